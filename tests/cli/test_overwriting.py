"""A forgotten `-o`: no command that writes replaces what another command, or the user, has written."""

import numpy as np
import pytest

from medseg.atomic import CLAIM, claim_folder
from medseg.errors import OutputError


@pytest.fixture
def outputs(tmp_path, case, save):
    """A folder with a file of the user's, and a second set of the same case ids."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for part, dtype in (("ct", np.int16), ("segmentations/liver", np.uint8)):
        save(f"other/s0001/{part}.nii.gz", np.ones((12, 10, 8), dtype), np.diag([2.0, 2.0, 3.0, 1.0]))
    return tmp_path


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", [("prepare",), ("convert", "--to", "nnunet"), ("convert", "--to", "datalist")])
def test_prepare_and_convert_leave_another_output_as_it_is(medseg, outputs, case, command):
    name, *options = command
    first = medseg("data", name, case, outputs / "out", "--workers", 0, *options)
    assert first.code == 0, first.err
    before = content(outputs / "out")
    assert medseg("data", name, case, outputs / "out", "--workers", 0, *options).code == 0  # the same command resumes
    attempts = [
        (name, outputs / "other", outputs / "out", *options),
        (name, case, outputs / "out", "--structures", "liver", *options),
        (name, case, outputs / "out", "--binarize", 0.5, *options),
        (name, case, outputs / "mine", *options),
        ("prepare", case, outputs / "other"),
        ("convert", case, outputs / "out", "--to", "nnunet" if "nnunet" not in options else "datalist"),
    ]
    for attempt in attempts:
        before |= content(outputs)
        result = medseg("data", *attempt, "--workers", 0)
        assert result.code == 1, attempt
        assert "Choose " in result.err
        after = content(outputs)
        assert {path: after[path] for path in after} == {path: before.get(path) for path in after}


def test_reports_of_a_check_replace_no_file(medseg, outputs, case):
    for option in ("--json", "--html", "--write-exclude"):
        arguments = ("data", "check", case, option, outputs / "mine" / "notes.txt", "--workers", 0)
        refused = medseg(*arguments)
        assert refused.code == 1
        assert "notes.txt: the file exists already" in refused.err
        assert (outputs / "mine" / "notes.txt").read_text() == "mine"
    assert medseg(*arguments, "--overwrite").code == 0
    assert "mine" not in (outputs / "mine" / "notes.txt").read_text()


def test_packing_and_reporting_replace_no_file(medseg, outputs):
    mine = outputs / "mine" / "notes.zip"
    mine.write_text("mine")
    for arguments in (
        ("bundle", "pack", "unet2d", "-o", mine),
        ("evaluate", "compare", mine, mine, "-o", outputs / "c"),
    ):
        (outputs / "c").mkdir(exist_ok=True)
        (outputs / "c" / "comparison.csv").write_text("mine")
        refused = medseg(*arguments)
        assert refused.code == 1
        assert "the file exists already" in refused.err
    assert (outputs / "c" / "comparison.csv").read_text() == mine.read_text() == "mine"


def test_a_claim_is_of_one_command_its_source_and_settings(tmp_path):
    folder = claim_folder(tmp_path / "out", "medseg x", tmp_path / "a", structures=("liver",))
    (folder / "file").touch()
    assert claim_folder(tmp_path / "out", "medseg x", tmp_path / "a", structures=["liver"]) == folder
    others = [("medseg y", "a", ["liver"]), ("medseg x", "b", ["liver"]), ("medseg x", "a", ["spleen"])]
    for command, source, structures in others:
        with pytest.raises(OutputError, match=r"another source \(medseg x of a\)"):
            claim_folder(tmp_path / "out", command, tmp_path / source, structures=structures)
    for damaged in ("", "{", "[1]"):
        (folder / CLAIM).write_text(damaged)
        with pytest.raises(OutputError, match="the folder holds the output of another"):
            claim_folder(tmp_path / "out", "medseg x", tmp_path / "a", structures=("liver",))
    (folder / CLAIM).unlink()
    with pytest.raises(OutputError, match=r"out: the folder holds other files\. Choose an empty or a new folder\."):
        claim_folder(tmp_path / "out", "medseg x", tmp_path / "a", structures=("liver",))
