import json
import subprocess
import sys

import pytest

from medseg.cli import main
from medseg.cli.info import describe


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["info", *arguments])
    output = capsys.readouterr()
    return stop.value.code, output.out, output.err


def test_info_lists_versions_extras_and_bundles_as_json(capsys):
    code, text, _ = run(capsys, "--json")
    content = json.loads(text)
    assert code == 0
    assert content["packages"]["monai"]
    assert {"unet2d", "segformer2d"} <= set(content["bundles"])
    assert set(content["extras"]) == {"monitor", "share", "store", "segformer", "onnx", "fast", "zoo"}


def test_info_of_a_bundle_tells_its_structures_and_that_it_has_no_weights(capsys):
    code, text, _ = run(capsys, "unet2d", "--json")
    content = json.loads(text)
    assert code == 0
    assert len(content["structures"]) == 117
    assert content["weights"] == []
    assert "inference" in content["configs"]
    assert "structures" in run(capsys, "unet2d")[1]


def test_info_of_a_run_tells_how_far_it_is(trained):
    content = describe(str(trained))
    assert content["run"]["state"] == "finished"
    assert content["weights"] == ["model.pt"]
    assert content["structures"] == ["spleen", "kidney_right", "kidney_left", "liver"]


def test_an_unknown_name_is_one_clear_line(capsys):
    code, _, text = run(capsys, "unet2")
    assert code == 1
    assert text == "Error: bundle 'unet2': there is no bundle or run of that name. Did you mean 'unet2d'?\n"


def test_damaged_metadata_is_one_clear_line(tmp_path, capsys):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("[1]")
    code, _, text = run(capsys, str(tmp_path))
    assert code == 1
    assert text.endswith("metadata.json: a config must be a JSON object (got a list).\n")


def test_info_does_not_import_torch():
    code = "import sys; from medseg.cli.info import installation; installation(); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
