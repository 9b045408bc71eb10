import json


def test_a_set_is_converted_and_overlaps_are_counted(medseg, case, tmp_path):
    command = "data", "convert", case, tmp_path / "raw", "--to", "nnunet", "--structures", "organs", "--workers", 0
    done = medseg(*command)
    assert done.code == 0, done.err
    assert "1 cases with 2 structures" in done.out
    assert "overlap: spleen over liver" in done.out
    assert "splits_final.json" in done.out
    assert json.loads((tmp_path / "raw" / "dataset.json").read_text())["numTraining"] == 1
    again = medseg(
        "data", "convert", case, tmp_path / "raw", "--to", "nnunet", "--structures", "organs", "--workers", 0
    )
    assert "1 of them from before" in again.out


def test_an_invalid_conversion_is_one_error(medseg, case, tmp_path):
    done = medseg("data", "convert", case, case / "raw", "--to", "nnunet")
    assert (done.code, done.out) == (1, "")
    assert "must not lie inside the source" in done.err
    assert (
        "the layouts to convert to are nnunet, datalist"
        in medseg("data", "convert", case, tmp_path / "o", "--to", "coco").err
    )
    assert medseg("data", "convert", case, tmp_path / "o").code == 2


def test_a_case_that_is_left_out_is_named_and_gives_exit_code_1(medseg, case, tmp_path, save):
    (case / "s0002").mkdir()
    (case / "s0002" / "ct.nii.gz").write_bytes(b"broken")
    (case / "s0002" / "segmentations").mkdir()
    (case / "s0002" / "segmentations" / "liver.nii.gz").write_bytes(b"broken")
    done = medseg("data", "convert", case, tmp_path / "raw", "--to", "datalist", "--workers", 0)
    assert done.code == 1
    assert "Left out: s0002: " in done.err
    assert "1 cases with 2 structures" in done.out
