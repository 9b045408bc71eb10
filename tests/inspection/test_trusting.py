"""The gate."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from medseg.errors import UntrustedError
from medseg.inspection.trusting import require_trust, require_trusted_command

RECIPE = Path(__file__).parents[2] / "bundles" / "unet2d"


@pytest.fixture
def root(tmp_path):
    return Path(shutil.copytree(RECIPE, tmp_path / "b"))


def change(root, **values):
    path = root / "configs" / "train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_clean_bundle_passes(root):
    require_trust(root, False)


def test_what_was_found_is_named_with_the_way_on(root, caplog):
    change(root, lr="$open('x')")
    with pytest.raises(UntrustedError) as caught:
        require_trust(root, False, "inference")
    said = str(caught.value)
    assert "1 unsafe thing: expression-unknown in configs/train.json, lr" in said
    assert f"medseg bundle inspect {root}" in said
    assert "give --trust" in said
    with caplog.at_level(logging.WARNING):
        require_trust(root, True, "inference")
    assert "trusted all the same" in caplog.text


def test_where_a_training_sends_its_copy_matters_to_training_alone(root):
    change(root, backup="s3://bucket/runs")
    require_trust(root, False, "inference")
    with pytest.raises(UntrustedError, match="sends-elsewhere"):
        require_trust(root, False, "train")


def test_an_overlay_counts(root, tmp_path):
    (tmp_path / "o.json").write_text('{"loss": {"_target_": "os.system"}}')
    with pytest.raises(UntrustedError, match="target-unknown"):
        require_trust(root, False, "train", [tmp_path / "o.json"])


def monai(*words):
    return ["-m", "monai.bundle", "run", "training", *words]


def test_a_run_whose_record_is_known_may_be_gone_on_with(root, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"command": ["medseg", "train", "unet2d", "lr=0.1"]}))
    require_trusted_command(tmp_path, ["-m", "medseg", "train", "unet2d", "lr=0.1"], tmp_path, False)
    words = ["--config_file", "b/configs/train.json", "--logging_file", "b/configs/logging.conf", "--lr", "0.1"]
    require_trusted_command(tmp_path, monai(*words), tmp_path, False)
    ours = RECIPE.parents[1] / "configs" / "quick.json"
    require_trusted_command(tmp_path, monai("--config_file", f"['b/configs/train.json', '{ours}']"), tmp_path, False)


def test_a_record_that_would_run_something_else_is_refused(root, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    (root / "docs" / "evil.conf").write_text("")
    cases = [
        monai("--config_file", "x.json"),
        monai("--config_file=b/configs/train.json,x.json"),
        monai("--logging_file", "b/docs/evil.conf"),
        monai("--tracking", str(tmp_path / "x.json")),
    ]
    for arguments in cases:
        with pytest.raises(UntrustedError, match="command-unsafe"):
            require_trusted_command(tmp_path, arguments, tmp_path, False)
        require_trusted_command(tmp_path, arguments, tmp_path, True)
    change(root, lr="$open('x')")
    with pytest.raises(UntrustedError, match="expression-unknown"):
        require_trusted_command(tmp_path, monai("--config_file", "b/configs/train.json"), tmp_path, False)
    (tmp_path / "run.json").write_text(json.dumps({"command": ["medseg", "train", "b", "lr=$open('x')"]}))
    with pytest.raises(UntrustedError, match="command-unsafe"):
        require_trusted_command(tmp_path, ["-m", "medseg", "train", "b"], tmp_path, False)
