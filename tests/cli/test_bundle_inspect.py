"""`medseg bundle inspect`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from medseg.cli.main import cli

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
    return root


def run(*arguments):
    return CliRunner().invoke(cli, ["bundle", "inspect", *map(str, arguments)], standalone_mode=False)


def test_a_clean_bundle(repository):
    found = run(RECIPE)
    assert found.return_value == 0
    assert "unet2d 0.1.0" in found.output
    assert "License: Apache-2.0" in found.output
    assert "Classes: 118 (background, spleen" in found.output
    assert "Trusted: nothing was found" in found.output


def test_a_hostile_one_says_what_it_would_run(hostile, tmp_path):
    found = run(hostile)
    assert found.return_value == 1
    assert "expression-unknown" in found.output
    assert "Not trusted." in found.output
    assert "\x1b" not in found.output
    assert "evil\\x1b[2J[bold]" in found.output
    assert "1 of them not known to be harmless" in found.output
    assert not (tmp_path / "canary").exists()


def test_json_holds_everything(hostile):
    found = run(hostile, "--json")
    assert found.return_value == 1
    content = json.loads(found.output)
    assert content["trusted"] is False
    assert [one["code"] for one in content["findings"]] == ["expression-unknown", "metadata-name"]
    assert [part["location"] for part in content["parts"] if not part["allowed"]] == ["configs/train.json, lr"]
    assert len(content["parts"]) > 150


def test_all_lists_what_is_known(repository):
    assert "medseg.training.Checkpoints" in run(RECIPE, "--all").output


def test_by_name_and_without_torch(repository):
    code = (
        "import sys; from medseg.cli.main import cli;"
        "print(cli.main(['bundle', 'inspect', 'unet2d', '--json'], standalone_mode=False));"
        "print(sorted({'torch', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository)
    assert done.stdout.splitlines()[-2:] == ["0", "[]"]


def test_nothing_there(tmp_path):
    found = run(tmp_path / "gone")
    assert "there is no folder and no file of this name" in str(found.exception)
