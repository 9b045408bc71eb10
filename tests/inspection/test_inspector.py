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
from medseg.inspection import inspect_bundle, require_safe

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
    assert inspection.is_safe
    assert json.loads(json.dumps(inspection.to_dict()))["is_safe"] is True


def test_a_folder_of_a_run_gives_no_finding(trained):
    inspection = inspect_bundle(trained)
    assert inspection.findings == []
    assert inspection.metrics["best_epoch"] in (1, 2)


def test_it_takes_under_a_second_and_imports_neither_torch_nor_monai(root):
    code = (
        "import sys, time; began = time.perf_counter(); from medseg.inspection import inspect_bundle;"
        f"inspection = inspect_bundle({str(root)!r}); print(inspection.is_safe, time.perf_counter() - began);"
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


def test_warnings_do_not_take_safety_away(root):
    (root / "start.sh").write_text("echo")
    (root / "helper.py").write_text("")
    (root / "medseg-0.1.0-py3-none-any.whl").write_bytes(b"PK\x05\x06" + bytes(18))
    inspection = inspect_bundle(root)
    assert inspection.is_safe
    assert [(finding.severity, finding.code) for finding in inspection.findings] == [
        ("warning", "code-in-bundle"),
        ("warning", "script-in-bundle"),
        ("warning", "script-in-bundle"),
    ]


def test_a_folder_that_is_no_bundle_says_so(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    assert [finding.code for finding in inspect_bundle(tmp_path).findings] == ["metadata-missing"]


def test_metadata_of_any_shape_is_read(root):
    for content in (
        "[]",
        "{}",
        '{"name": 3, "network_data_format": []}',
        '{"network_data_format": {"outputs": {"pred": 1}}}',
    ):
        (root / "configs" / "metadata.json").write_text(content)
        assert inspect_bundle(root).name == "b"


def test_it_says_what_needs_trust(root):
    (root / "label_map.json").write_text('{"0": "background", "1": "liver"}')
    assert inspect_bundle(root).needs_trust == {"train": "its train.json runs whatever it holds"}
    path = root / "configs" / "inference.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "inferer": {"_target_": "mine.Inferer\x1b[2J"}}))
    problem = inspect_bundle(root).needs_trust["predict"]
    assert problem == (
        "without trust its key 'inferer' does not run: the component 'mine.Inferer\\x1b[2J' is not on the list of what "
        "runs without trust"
    )


def test_a_clean_bundle_passes_the_gate_and_a_pickle_does_not(root, caplog):
    require_safe(root, False)
    (root / "docs" / "a.pkl").write_bytes(b"cos\nsystem\n.")
    with pytest.raises(UntrustedError) as caught:
        require_safe(root, False)
    assert str(caught.value) == (
        f"bundle {root}: it could do harm, with 1 unsafe thing: pickle-unsafe in docs/a.pkl: loading it as a pickle "
        f"could run code: it imports os.system. See all of it with: medseg bundle inspect {root}. If you trust its "
        "maker, give --trust (trust=True in Python)."
    )
    with caplog.at_level(logging.WARNING):
        require_safe(root, True)
    assert "trusted all the same" in caplog.text


def test_metrics_are_those_of_metadata_and_record(root):
    (root / "run.json").write_text(json.dumps({"best_dice": 0.5, "best_epoch": 3, "x": 1}))
    path = root / "configs" / "metadata.json"
    metrics = {"mean_dice": 0.9, "list": [1]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "eval_metrics": metrics}))
    assert inspect_bundle(root).metrics == {"mean_dice": 0.9, "best_dice": 0.5, "best_epoch": 3}
