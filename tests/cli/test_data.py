import json


def test_a_phantom_set_is_written(medseg, tmp_path):
    done = medseg("data", "phantom", tmp_path / "set", "--train", 1, "--val", 1, "--test", 0, "--size", 16, 16,
                  "--spacing", 25, 18, 60, "--region", "abdomen", "--seed", 4)  # fmt: skip
    assert done.code == 0, done.err
    assert "2 phantoms" in done.out
    assert len(list((tmp_path / "set").glob("p*/segmentations/*.nii.gz"))) == 2 * 117
    assert json.loads((tmp_path / "set" / "phantom.json").read_text())["spec"]["seed"] == 4


def test_a_phantom_that_cannot_be_is_one_error(medseg, tmp_path):
    done = medseg("data", "phantom", tmp_path / "set", "--region", "leg")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: phantom: needs a region")
    assert not (tmp_path / "set").exists()


def test_a_set_is_prepared_and_its_overlaps_are_counted(medseg, case, tmp_path):
    done = medseg("data", "prepare", case, tmp_path / "out", "--structures", "organs")
    assert done.code == 0, done.err
    assert "overlap: spleen over liver, 8 voxels" in done.out or "overlap: spleen over liver" in done.out
    assert (tmp_path / "out" / "datalist.json").is_file()


def test_what_cannot_be_prepared_is_one_error_and_leaves_nothing(medseg, case, tmp_path):
    mask = case / "s0001" / "segmentations" / "liver.nii.gz"
    mask.write_bytes(mask.read_bytes()[:-30])
    done = medseg("data", "prepare", case, tmp_path / "out")
    assert done.code == 1
    assert "liver.nii.gz: must be a whole and readable NIfTI file" in done.err
    assert not list((tmp_path / "out").rglob("*.nii.gz"))
    for arguments in ((tmp_path / "nowhere", tmp_path / "out"), (case, case / "out")):
        assert medseg("data", "prepare", *arguments).code == 1
    assert "livr" in medseg("data", "prepare", case, tmp_path / "o", "--structures", "livr").err
