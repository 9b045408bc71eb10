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


@pytest.mark.parametrize("command", [("prepare",), ("convert", "--to", "nnunet")])
def test_masks_that_were_refused_are_taken_with_the_option_that_the_error_names(medseg, outputs, save, command):
    source, affine = outputs / "other", np.diag([2.0, 2.0, 3.0, 1.0])
    save("other/s0002/ct.nii.gz", np.arange(960, dtype=np.int16).reshape(12, 10, 8), affine)
    save("other/s0002/segmentations/liver.nii.gz", np.full((12, 10, 8), 255, np.uint8), affine)
    report = medseg("data", "check", source, "--workers", 0).out
    assert "mask-values" in report
    assert "masks-empty" not in report  # nobody knows what the masks hold
    name, *options = command
    arguments = ("data", name, source, outputs / "out", "--workers", 0, *options)
    first = medseg(*arguments)
    assert first.code == 1
    assert "s0002/segmentations/liver.nii.gz: a binary mask holds 0 and 1" in first.err
    kept = (outputs / "out" / ("labels" if name == "prepare" else "labelsTr") / "s0001.nii.gz").read_bytes()
    second = medseg(*arguments, "--binarize", 0.5)
    assert second.code == 0, second.err
    assert "2 cases" in second.out
    labels = next((outputs / "out").rglob("labels*"))
    assert (labels / "s0001.nii.gz").read_bytes() == kept
    assert (labels / "s0002.nii.gz").is_file()


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


def test_a_setting_that_reads_more_may_be_added_to_a_claim_once(tmp_path):
    def claim(**settings):
        return claim_folder(tmp_path / "out", "medseg x", tmp_path, ("binarize", "accept"), **settings)

    folder = claim(crop=False, binarize=None, accept=())
    (folder / "file").touch()
    for settings in ({"binarize": 0.5, "accept": ()}, {"binarize": 0.5, "accept": ("shear",)}):
        assert claim(crop=False, **settings) == folder
    for crop, binarize, accept in ((True, 0.5, ("shear",)), (False, 0.7, ("shear",)), (False, None, ("shear",))):
        with pytest.raises(OutputError, match="other settings"):
            claim(crop=crop, binarize=binarize, accept=accept)


def test_a_claim_is_of_one_command_its_source_and_settings(tmp_path):
    folder = claim_folder(tmp_path / "out", "medseg x", tmp_path / "a", structures=("liver",))
    (folder / "file").touch()
    assert claim_folder(tmp_path / "out", "medseg x", tmp_path / "a", structures=["liver"]) == folder
    others = [("medseg y", "a", ["liver"]), ("medseg x", "b", ["liver"]), ("medseg x", "a", ["spleen"])]
    for command, source, structures in others:
        with pytest.raises(OutputError, match=r"another source \(medseg x of a\)"):
            claim_folder(tmp_path / "out", command, tmp_path / source, structures=structures)
    with pytest.raises(OutputError, match="other settings"):
        claim_folder(folder, "medseg x", tmp_path / "a", structures=["liver"], binarize=0.5)
    for damaged in ("", "{", "[1]"):
        (folder / CLAIM).write_text(damaged)
        with pytest.raises(OutputError, match="the folder holds the output of another"):
            claim_folder(tmp_path / "out", "medseg x", tmp_path / "a", structures=("liver",))
    (folder / CLAIM).unlink()
    with pytest.raises(OutputError, match=r"out: the folder holds other files\. Choose an empty or a new folder\."):
        claim_folder(tmp_path / "out", "medseg x", tmp_path / "a", structures=("liver",))
