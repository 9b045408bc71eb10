"""Files of a bundle; a recipe needs no weights."""

from __future__ import annotations

from medseg.bundle.verify import files


def test_a_recipe_has_no_weights(found):
    gone = [lambda root: (root / "models/model.pt").unlink(), lambda root: (root / "label_map.json").unlink()]
    assert found(files, *gone) == []


def test_a_bundle_for_inference_alone_needs_them(found):
    gone = [lambda root: (root / "models/model.pt").unlink(), lambda root: (root / "label_map.json").unlink(),
            lambda root: (root / "configs/train.json").unlink()]  # fmt: skip
    assert found(files, *gone) == [("weights-missing", "models/model.pt")]


def test_safetensors_are_weights(found):
    assert found(files, lambda root: (root / "models/model.pt").rename(root / "models/model.safetensors")) == []


def test_nothing_to_run(found):
    gone = [lambda root, name=name: (root / "configs" / f"{name}.json").unlink() for name in ("train", "inference")]
    assert found(files, *gone) == [("file-missing", "configs")]


def test_the_zoos_list_of_large_files_says_where_they_are(found):
    faults = [lambda root: (root / "models/model.pt").unlink(), lambda root: (root / "large_files.yml").write_text("")]
    assert found(files, *faults) == [("weights-elsewhere", "large_files.yml")]
