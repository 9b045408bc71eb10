import json

from medseg.monitoring.about import about


def test_settings_versions_and_data_without_places(finished):
    found = about(finished)
    assert found["lr"] == 0.01
    assert found["batch"] == "$@batch_size"
    assert found["reader"] == {"_target_": "Reader"}
    assert found["load"] == "$open('(a file)')"
    assert found["git"] == {"commit": "abc", "dirty": True}
    assert found["data"] == "f1n9"
    assert found["cases"] == {"train": 2, "val": 1}
    text = json.dumps(found)
    assert not [word for word in ("max", "/usr", str(finished), "the-host", "s1", "medseg-run") if word in text]


def test_a_run_without_config_says_what_its_record_says(finished):
    (finished / "configs" / "train.json").unlink()
    assert set(about(finished)) == {"bundle", "data", "git", "cases"}


def test_the_bundles_own_config_keeps_what_it_computes(repository, tmp_path):
    (tmp_path / "configs").mkdir()
    config = json.loads((repository / "bundles" / "unet2d" / "configs" / "train.json").read_text())
    (tmp_path / "configs" / "train.json").write_text(json.dumps(config))
    found = about(tmp_path)
    assert found["network_def"] == config["network_def"]
    assert found["train"] == config["train"]  # nothing in it is taken for a path
    assert "output_dir" not in found
