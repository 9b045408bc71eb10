"""What a recorded command would do when it is given again."""

import shutil
from pathlib import Path

import pytest

from medseg.inspection.commands import named, value_of

RECIPE = Path(__file__).parents[2] / "bundles" / "unet2d"
CONFIG = str(RECIPE / "configs" / "train.json")


def monai(*words):
    return named(["-m", "monai.bundle", "run", "training", "--config_file", CONFIG, *words], Path("/"))


def test_a_training_names_its_bundle_its_overlays_and_its_overrides(tmp_path):
    (tmp_path / "o.json").write_text("{}")
    words = ["--with", "quick", "--with=o.json", "--data", "/d", "--fresh", "lr=1e-3", "size=(64, 64)", "x={1: [2]}"]
    found = named(["-m", "medseg", "train", "unet2d", *words, "resume=x"], tmp_path, {"resume"})
    assert [path.resolve() for path in found.roots] == [RECIPE]
    assert {path.name for path in found.overlays} == {"quick.json", "o.json"}
    assert found.overrides == {"dataset_dir": "/d", "lr": 0.001, "size": [64, 64], "x": {"1": [2]}}
    assert found.faults == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("-1", -1),
        ("None", None),
        ("/data/my scans", "/data/my scans"),
        ("C:\\data", "C:\\data"),
        ("[64, 64]", [64, 64]),
        ("['a', \"b\"]", ["a", "b"]),
        ('["a", [1]]', ["a", [1]]),
        ("'cpu'", "cpu"),
        ("@labels", "@labels"),
    ],
)
def test_plain_values(text, value):
    found = monai("--lr", text)
    assert found.faults == []
    assert found.overrides == {"lr": value}
    assert found.roots == [RECIPE]


@pytest.mark.parametrize(
    "text",
    [
        "{a: b}",
        "{'a': 1}",
        "['\\x24a']",
        "('a', 'b')",
        "a, b",
        "[a, b]",
        "b'a'",
        "1 # 2",
        "-a",
        "--a",
        "a\nb",
        "f(1)",
        "'a",
    ],
)
def test_values_that_are_not(text):
    assert monai(f"--lr={text}").faults


def test_files_are_settings_of_a_bundle_or_ours(tmp_path):
    ours = RECIPE.parents[1] / "configs" / "quick.json"
    found = named(["-m", "monai.bundle", "run", "--config_file", f"['{CONFIG}', '{ours}']"], tmp_path)
    assert (found.roots, found.overlays, found.faults) == ([RECIPE], [ours], [])
    (tmp_path / "a b.json").write_text("{}")
    for name in ("a b.json", str(tmp_path / "a b.json"), "gone.json", "", CONFIG + ",x"):
        assert named(["-m", "monai.bundle", "run", "--config_file", name], tmp_path).faults


def test_files_are_read_as_what_they_were_looked_into(tmp_path):
    other = Path(shutil.copytree(RECIPE, tmp_path / "b")) / "configs"
    meta = str(RECIPE / "configs" / "metadata.json")
    assert monai("--meta_file", meta).faults == []
    for words in (["--meta_file", CONFIG], ["--meta_file", str(other / "metadata.json")], ["--config_file", meta]):
        assert monai(*words).faults
    both = f"['{CONFIG}', '{other / 'train.json'}']"
    assert named(["-m", "monai.bundle", "run", "--config_file", both], tmp_path).faults


def test_values_of_pairs():
    assert value_of("{'a': (1, 2)}") == {"a": [1, 2]}
    assert value_of("[" * 100_000) == "[" * 100_000
