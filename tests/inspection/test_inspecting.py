"""What an inspection says of a bundle."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medseg.inspection import inspect_bundle

RECIPE = Path(__file__).parents[2] / "bundles" / "unet2d"


@pytest.fixture
def root(tmp_path):
    return Path(shutil.copytree(RECIPE, tmp_path / "b"))


def test_what_it_is(root):
    (root / "run.json").write_text(json.dumps({"best_dice": 0.8, "best_epoch": 7}))
    found = inspect_bundle(root)
    assert (found.name, found.version, found.kind, found.licence) == ("unet2d", "0.1.0", "folder", "Apache-2.0")
    assert found.description.startswith("A 2D U-Net")
    assert (len(found.classes), found.classes["5"]) == (118, "liver")
    assert found.metrics == {"best_dice": 0.8, "best_epoch": 7}
    assert found.files["LICENSE"] == (root / "LICENSE").stat().st_size
    assert found.trusted
    assert json.loads(json.dumps(found.to_dict()))["trusted"] is True


def test_a_folder_of_a_run_gives_no_finding(trained):
    found = inspect_bundle(trained)
    assert found.findings == []
    assert found.metrics["best_epoch"] in (1, 2)


def test_it_takes_under_a_second_and_imports_neither_torch_nor_monai(root):
    code = (
        "import sys, time; began = time.perf_counter(); from medseg.inspection import inspect_bundle;"
        f"found = inspect_bundle({str(root)!r}); print(found.trusted, time.perf_counter() - began);"
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
    found = inspect_bundle(root)
    assert found.trusted
    assert [(one.severity, one.code) for one in found.findings] == [
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
    assert [one.code for one in inspect_bundle(tmp_path).findings] == ["metadata-missing"]


def test_overlays_from_elsewhere_are_looked_into_along_with_it(root, tmp_path):
    overlay = tmp_path / "mine.json"
    overlay.write_text('{"loss#_target_": "os.system"}')
    found = inspect_bundle(root, [overlay, tmp_path / "gone.json"])
    assert {one.code for one in found.findings} == {"target-unknown", "config-unreadable"}
    assert any(str(overlay) in one.location for one in found.findings)


def test_metadata_of_any_shape_is_survived(root):
    for content in (
        "[]",
        "{}",
        '{"name": 3, "network_data_format": []}',
        '{"network_data_format": {"outputs": {"pred": 1}}}',
    ):
        (root / "configs" / "metadata.json").write_text(content)
        assert inspect_bundle(root).name == "b"


def test_a_key_that_is_refused_is_shown_without_what_moves_the_cursor(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{}")
    (tmp_path / "configs" / "train.json").write_text(json.dumps({"a\x1b[2Jb": 1}))
    found = [one for one in inspect_bundle(tmp_path).findings if one.code == "config-unreadable"]
    assert "a\\x1b[2Jb" in found[0].message
