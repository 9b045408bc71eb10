"""`medseg bundle inspect` and `verify`: what is printed, and the exit code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from medseg.cli.bundle_check import verify
from medseg.cli.main import cli
from tests.bundle.verify.broken import BROKEN, plain

RECIPE = Path(__file__).parents[2] / "bundles" / "unet2d"


@pytest.fixture
def hostile(tmp_path):
    root = Path(shutil.copytree(RECIPE, tmp_path / "b"))
    path = root / "configs" / "train.json"
    content = json.loads(path.read_text())
    content["lr"] = f"$open({str(tmp_path / 'canary')!r}, 'w')"
    path.write_text(json.dumps(content))
    metadata = json.loads((root / "configs" / "metadata.json").read_text())
    metadata["name"] = "evil\x1b[2J[bold]"
    (root / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (root / "label_map.json").write_text('{"0": "background", "1": "liver"}')
    return root


def run_inspect(*arguments):
    return CliRunner().invoke(cli, ["bundle", "inspect", *map(str, arguments)], standalone_mode=False)


def test_a_bundle_of_ones_own(repository):
    done = run_inspect(RECIPE)
    assert done.return_value == 0
    assert "unet2d 0.1.0" in done.output
    assert "License: Apache-2.0" in done.output
    assert "Classes: 118 (background, spleen" in done.output
    assert "It is your own, and needs no --trust." in done.output


def test_inspect_shows_what_a_bundle_from_elsewhere_needs(hostile, tmp_path):
    done = run_inspect(hostile)
    assert done.return_value == 0
    assert "Needs --trust to train: its train.json runs whatever it holds" in done.output
    assert "Predicts without --trust." in done.output
    path = hostile / "configs" / "inference.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "spacing": 1, "inferer": {"_target_": "x.Y"}}))
    done = run_inspect(hostile)
    assert "Needs --trust to predict: without trust its key 'inferer' does not run" in done.output.replace("\n", " ")
    assert "\x1b" not in done.output
    assert "evil\\x1b[2J[bold]" in done.output
    assert not (tmp_path / "canary").exists()


def test_json_holds_everything(hostile):
    (hostile / "docs" / "a.pkl").write_bytes(b"cos\nsystem\n.")
    done = run_inspect(hostile, "--json")
    assert done.return_value == 1
    content = json.loads(done.output)
    assert content["is_safe"] is False
    assert [entry["code"] for entry in content["findings"]] == ["pickle-unsafe"]
    assert content["needs_trust"] == {"train": "its train.json runs whatever it holds"}


def test_by_name_and_without_torch(repository):
    code = (
        "import sys; from medseg.cli.main import cli;"
        "print(cli.main(['bundle', 'inspect', 'unet2d', '--json'], standalone_mode=False));"
        "print(sorted({'torch', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository)
    assert done.stdout.splitlines()[-2:] == ["0", "[]"]


def test_inspect_of_a_missing_path_is_an_error(tmp_path):
    done = run_inspect(tmp_path / "gone")
    assert "there is no folder and no file of this name" in str(done.exception)


def run_verify(*arguments):
    return CliRunner().invoke(verify, [str(entry) for entry in arguments], standalone_mode=False)


def test_verify_without_findings_exits_with_0(tmp_path):
    done = run_verify(plain(tmp_path / "plain"))
    assert (done.return_value, done.output) == (0, f"{tmp_path / 'plain'}: no findings\n")


@pytest.mark.parametrize(("fault", "code"), [("no licence", 0), ("no weights", 1)])
def test_errors_end_with_1_and_warnings_with_0(tmp_path, fault, code):
    root = plain(tmp_path / "plain")
    BROKEN[fault][0](root)
    done = run_verify(root)
    assert done.return_value == code
    assert BROKEN[fault][1] in done.output
    assert done.output.splitlines()[-1].startswith(f"{root}: {code} error")


def test_json_holds_every_finding(tmp_path):
    root = plain(tmp_path / "plain")
    BROKEN["smoothed in training alone"][0](root)
    done = run_verify(root, "--json")
    content = json.loads(done.output)
    assert content["counts"] == {"error": 2, "warning": 0, "note": 0}
    assert {entry["code"] for entry in content["findings"]} == {"preprocessing-drift"}
    assert set(content["findings"][0]) == {"severity", "code", "case", "location", "message", "fix"}


def test_verify_finds_a_bundle_by_name():
    assert run_verify("unet2d").return_value == 0


def test_no_bundle_is_an_error(tmp_path):
    done = run_verify(tmp_path / "nothing")
    assert "there is no bundle or run of that name" in str(done.exception)
