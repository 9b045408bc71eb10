"""What an inspection finds about a bundle, and the trust gate that goes by it."""

import json
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medseg.errors import UntrustedError
from medseg.inspection import inspect_bundle, require_trust

RECIPE = Path(__file__).parents[2] / "bundles" / "unet2d"


@pytest.fixture
def root(tmp_path):
    return Path(shutil.copytree(RECIPE, tmp_path / "b"))


def test_an_inspection_describes_the_bundle(root):
    (root / "run.json").write_text(json.dumps({"best_dice": 0.8, "best_epoch": 7}))
    inspection = inspect_bundle(root)
    assert (inspection.name, inspection.version, inspection.kind, inspection.license) == (
        "unet2d",
        "0.1.0",
        "folder",
        "Apache-2.0",
    )
    assert inspection.description.startswith("A 2D U-Net")
    assert (len(inspection.classes), inspection.classes["5"]) == (118, "liver")
    assert inspection.metrics == {"best_dice": 0.8, "best_epoch": 7}
    assert inspection.files["LICENSE"] == (root / "LICENSE").stat().st_size
    assert inspection.trusted
    assert json.loads(json.dumps(inspection.to_dict()))["trusted"] is True


def test_a_folder_of_a_run_gives_no_finding(trained):
    inspection = inspect_bundle(trained)
    assert inspection.findings == []
    assert inspection.metrics["best_epoch"] in (1, 2)


def test_it_takes_under_a_second_and_imports_neither_torch_nor_monai(root):
    code = (
        "import sys, time; began = time.perf_counter(); from medseg.inspection import inspect_bundle;"
        f"inspection = inspect_bundle({str(root)!r}); print(inspection.trusted, time.perf_counter() - began);"
        "print(sorted({'torch', 'monai', 'ignite', 'numpy.random', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.split()[0] == "True"
    assert second == "[]"
    assert min(_timed(root) for _ in range(3)) < 1


def _timed(root):
    began = time.perf_counter()
    inspect_bundle(root)
    return time.perf_counter() - began


def test_warnings_do_not_take_trust_away(root):
    (root / "start.sh").write_text("echo")
    (root / "medseg-0.1.0-py3-none-any.whl").write_bytes(b"PK\x05\x06" + bytes(18))
    (root / "requirements.lock").write_text("torch==2.6.0\n# a note\nmonai>=1.6,<2\n--index-url http://example.org\n")
    inspection = inspect_bundle(root)
    assert inspection.trusted
    assert [(finding.severity, finding.code) for finding in inspection.findings] == [
        ("warning", "requirements-elsewhere"),
        ("warning", "script-in-bundle"),
        ("warning", "wheel-in-bundle"),
    ]


def test_pinned_requirements_with_hashes_are_fine(root):
    lines = ["torch==2.6.0 \\", "    --hash=sha256:" + "a" * 64, "monai[all]>=1.6,<2"]
    (root / "requirements.txt").write_text("\n".join(lines))
    assert inspect_bundle(root).findings == []


def test_a_folder_that_is_no_bundle_says_so(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    assert [finding.code for finding in inspect_bundle(tmp_path).findings] == ["metadata-missing"]


def test_overlays_from_elsewhere_are_inspected_too(root, tmp_path):
    overlay = tmp_path / "mine.json"
    overlay.write_text('{"loss#_target_": "os.system"}')
    inspection = inspect_bundle(root, [overlay, tmp_path / "gone.json"])
    assert {finding.code for finding in inspection.findings} == {"target-unknown", "config-unreadable"}
    assert any(str(overlay) in finding.location for finding in inspection.findings)


def test_metadata_of_any_shape_is_read(root):
    for content in (
        "[]",
        "{}",
        '{"name": 3, "network_data_format": []}',
        '{"network_data_format": {"outputs": {"pred": 1}}}',
    ):
        (root / "configs" / "metadata.json").write_text(content)
        assert inspect_bundle(root).name == "b"


def test_a_refused_key_is_shown_without_control_characters(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{}")
    (tmp_path / "configs" / "train.json").write_text(json.dumps({"a\x1b[2Jb": 1}))
    findings = [finding for finding in inspect_bundle(tmp_path).findings if finding.code == "config-unreadable"]
    assert "a\\x1b[2Jb" in findings[0].message


def change(root, **values):
    path = root / "configs" / "train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_clean_bundle_passes_the_gate(root):
    require_trust(root, False)


def test_a_refusal_names_the_findings_and_what_to_do(root, caplog):
    change(root, lr="$open('x')")
    with pytest.raises(UntrustedError) as caught:
        require_trust(root, False, "inference")
    message = str(caught.value)
    assert "1 unsafe thing: expression-unknown in configs/train.json, lr" in message
    assert f"medseg bundle inspect {root}" in message
    assert "give --trust" in message
    with caplog.at_level(logging.WARNING):
        require_trust(root, True, "inference")
    assert "trusted all the same" in caplog.text


def test_where_a_training_sends_its_copy_matters_to_training_alone(root):
    change(root, backup="s3://bucket/runs")
    require_trust(root, False, "inference")
    with pytest.raises(UntrustedError, match="sends-elsewhere"):
        require_trust(root, False, "train")


def test_an_overlay_is_judged_too(root, tmp_path):
    (tmp_path / "o.json").write_text('{"loss": {"_target_": "os.system"}}')
    with pytest.raises(UntrustedError, match="target-unknown"):
        require_trust(root, False, "train", [tmp_path / "o.json"])


def test_addresses_of_a_run_that_was_started_here_are_the_users_own(root):
    change(root, backup="s3://bucket/runs")
    require_trust(root, False, "train", started_here=True)
    change(root, lr="$open('x')")
    with pytest.raises(UntrustedError, match="expression-unknown"):
        require_trust(root, False, "train", started_here=True)


def test_an_address_that_another_file_names_is_not_the_users_own(root, tmp_path):
    change(root, backup="s3://bucket/runs")
    (tmp_path / "o.json").write_text('{"backup": "s3://other"}')
    with pytest.raises(UntrustedError, match="1 unsafe thing: sends-elsewhere .*'s3://other'"):
        require_trust(root, False, "train", [tmp_path / "o.json"], started_here=True)


def test_a_tracker_of_a_run_counts_as_its_configs_only_where_that_names_the_same(root):
    (root / "monitor").mkdir()
    (root / "monitor" / "settings.json").write_text('{"base_url": "https://example.org"}')
    with pytest.raises(UntrustedError, match=r"sends-elsewhere in monitor/settings\.json"):
        require_trust(root, False, "train", started_here=True)
    monitor = json.loads((root / "configs" / "train.json").read_text())["monitor"]
    change(root, monitor={**monitor, "base_url": "https://example.org"})
    require_trust(root, False, "train", started_here=True)
    with pytest.raises(UntrustedError, match=r"sends-elsewhere in configs/train\.json"):
        require_trust(root, False, "train")


def test_settings_of_a_recorded_command_are_judged(root):
    command = ["medseg", "train", "unet2d", "lr=1e-3", "run_name=$'bs%d' % @batch_size", "a/b=1", "--data", "/data"]
    (root / "run.json").write_text(json.dumps({"command": command}))
    assert inspect_bundle(root).trusted
    for words in (
        ["lr=$__import__('os')"],
        ['loss={"_target_": "os.system"}'],
        ["--loss#_target_=os.system"],
        ["--loss#_target_", "os.system"],
        ["--lr", "['$open(1)']"],
    ):
        (root / "run.json").write_text(json.dumps({"command": [*command, *words]}))
        assert [finding.code for finding in inspect_bundle(root).findings] == ["command-unsafe"], words


@pytest.mark.parametrize("word", ["monitor#base_url=https://example.org", 'monitor={"base_url": "x"}'])
def test_a_server_in_a_recorded_command_is_noted(root, word):
    (root / "run.json").write_text(json.dumps({"command": ["medseg", "train", "unet2d", word]}))
    assert [(finding.severity, finding.code) for finding in inspect_bundle(root).findings] == [
        ("note", "sends-elsewhere")
    ]


@pytest.mark.parametrize("command", ["rm -rf /", ["a", 1]])
def test_a_recorded_command_that_is_no_list_of_words_is_refused(root, command):
    (root / "run.json").write_text(json.dumps({"command": command}))
    assert [finding.code for finding in inspect_bundle(root).findings] == ["command-unsafe"]


def test_metrics_are_those_of_metadata_and_record(root):
    (root / "run.json").write_text(json.dumps({"best_dice": 0.5, "best_epoch": 3, "x": 1}))
    path = root / "configs" / "metadata.json"
    metrics = {"mean_dice": 0.9, "list": [1]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "eval_metrics": metrics}))
    assert inspect_bundle(root).metrics == {"mean_dice": 0.9, "best_dice": 0.5, "best_epoch": 3}
