import shutil

import pytest

from medseg.bundle import Bundle
from medseg.errors import ConfigError
from medseg.runs.find import find_bundle
from medseg.search_path import find_overlay


def test_a_bundle_is_found_by_name_and_by_path(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_bundle("unet2d") == repository / "bundles" / "unet2d"
    assert Bundle.open(repository / "bundles" / "unet2d").name == "unet2d"


def test_an_unknown_bundle_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'unet2d'"):
        Bundle.open("unet2")
    with pytest.raises(ConfigError, match=r"the folder has no configs/metadata\.json"):
        Bundle.open(tmp_path)


def test_an_overlay_is_found_by_path_by_name_and_in_the_bundle(repository, tmp_path, monkeypatch):
    root = repository / "bundles" / "unet2d"
    (tmp_path / "mine.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_overlay("mine.json", root).resolve() == tmp_path / "mine.json"
    assert find_overlay("poly", root) == repository / "configs" / "poly.json"
    assert find_overlay("configs/poly.json", root) == repository / "configs" / "poly.json"
    assert find_overlay("fast_cpu", root) == root / "configs" / "fast_cpu.json"


def test_an_unknown_overlay_names_the_nearest_and_no_config(repository):
    root = repository / "bundles" / "unet2d"
    with pytest.raises(ConfigError, match="Did you mean 'round1_quick'"):
        find_overlay("round1_quik", root)
    with pytest.raises(ConfigError) as caught:
        find_overlay("zzz", root)
    assert "metadata" not in str(caught.value)
    assert "multilabel" in str(caught.value)


def test_a_bundle_without_the_config_that_is_wanted_says_so(repository, tmp_path):
    shutil.copytree(repository / "bundles" / "unet2d", tmp_path / "b")
    (tmp_path / "b" / "configs" / "inference.json").unlink()
    with pytest.raises(ConfigError, match=r"it has no configs/inference\.json"):
        Bundle.open(tmp_path / "b").resolve("inference")


def test_a_broken_metadata_file_names_itself(repository, tmp_path):
    shutil.copytree(repository / "bundles" / "unet2d", tmp_path / "b")
    (tmp_path / "b" / "configs" / "metadata.json").write_text("{")
    with pytest.raises(ConfigError, match=r"metadata\.json: this is no readable JSON file"):
        Bundle.open(tmp_path / "b")


def test_overrides_are_checked_when_it_is_resolved(repository):
    bundle = Bundle.open("unet2d")
    assert bundle.resolve("train", {"lr": 0.5}, ["round1_quick"])["max_epochs"] == 5
    with pytest.raises(ConfigError, match="Did you mean 'lr'"):
        bundle.resolve("train", {"lrr": 0.5})
