import gzip
import json
import logging

import numpy as np
import pytest

from medseg.data import convert, discover, merge_masks, read_grid, read_volume
from medseg.data.convert_dataset import copy_verified
from medseg.errors import DataError, LabelError
from medseg.labels import LabelMap

pytestmark = pytest.mark.slow


def voxels(path):
    return np.asarray(read_volume(path)[0])


@pytest.fixture
def two(case, save):
    """Two cases in the TotalSegmentator layout; nobody looked for the spleen in the second."""
    affine = np.diag([-1.0, 1.0, 2.0, 1.0])
    liver = np.zeros((6, 5, 4), np.uint8)
    liver[1:3, 1:4, 2] = 1
    save("set/s0002/ct.nii.gz", np.arange(120, dtype=np.int16).reshape(6, 5, 4), affine)
    save("set/s0002/segmentations/liver.nii.gz", liver, affine)
    (case / "meta.csv").write_text("image_id;split\ns0001;train\ns0002;val\n")
    return case


def test_a_round_trip_through_nnunet_keeps_every_voxel_and_every_byte(phantom, tmp_path):
    source = discover(phantom)
    output = convert(phantom, tmp_path / "raw", "nnunet")
    result = discover(tmp_path / "raw")
    labels = LabelMap(source.structures)
    assert result.labels == output.labels == labels
    assert result.split == source.split
    assert sum(output.overlaps.values()) > 0
    for case in source.cases:
        again = result.case(case.id)
        assert again.image.read_bytes() == case.image.read_bytes()
        assert np.array_equal(voxels(again.label), merge_masks(case.image, case.masks, labels).label)
        assert read_grid(again.label).matches(read_grid(case.image), 0.0)
        assert set(again.annotated) == set(case.annotated)
    back = convert(tmp_path / "raw", tmp_path / "back", "datalist")
    assert back.labels == labels
    last = discover(tmp_path / "back")
    assert (last.split, last.labels) == (source.split, labels)
    for case in source.cases:
        assert last.case(case.id).image.read_bytes() == case.image.read_bytes()
        assert last.case(case.id).label.read_bytes() == result.case(case.id).label.read_bytes()


def test_real_patients_come_through(real, tmp_path):
    output = convert(real / "totalseg_mini", tmp_path / "raw", "nnunet", ["organs", "ribs"])
    source, result = discover(real / "totalseg_mini"), discover(tmp_path / "raw")
    assert result.labels == LabelMap.totalsegmentator(["organs", "ribs"])
    for case in source.cases:
        merged = merge_masks(case.image, case.masks, output.labels)
        assert np.array_equal(voxels(result.case(case.id).label), merged.label)


def test_the_files_of_nnunet_are_written(two, tmp_path, caplog):
    out = tmp_path / "raw"
    with caplog.at_level(logging.WARNING):
        output = convert(two, out, "nnunet")
    assert output.description == out / "dataset.json"
    content = json.loads((out / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "CT"}
    assert content["labels"] == {"background": 0, "spleen": 1, "liver": 2}
    assert (content["numTraining"], content["file_ending"], content["name"]) == (2, ".nii.gz", "set")
    assert json.loads((out / "splits_final.json").read_text()) == [{"train": ["s0001"], "val": ["s0002"]}]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.nii.gz")) == [
        "imagesTr/s0001_0000.nii.gz",
        "imagesTr/s0002_0000.nii.gz",
        "labelsTr/s0001.nii.gz",
        "labelsTr/s0002.nii.gz",
    ]
    assert "nnU-Net takes structures that were not annotated for background" in caplog.text
    assert content["annotated"] == {"s0002": ["liver"]}
    assert discover(out).case("s0002").annotated == ("liver",)


def test_a_decathlon_datalist_is_one_that_monai_reads(two, tmp_path):
    from monai.data import load_decathlon_datalist

    convert(two, tmp_path / "out", "datalist")
    (item,) = load_decathlon_datalist(str(tmp_path / "out" / "dataset.json"), True, "training")
    assert item["image"] == str(tmp_path / "out" / "imagesTr" / "s0001.nii.gz")
    assert voxels(item["label"]).max() == 2
    assert discover(tmp_path / "out").case("s0002").annotated == ("liver",)


def test_test_cases_lie_apart_with_their_truth(phantom, tmp_path):
    convert(phantom, tmp_path / "raw", "nnunet", "liver")
    (test,) = discover(phantom).split.test
    assert (tmp_path / "raw" / "imagesTs" / f"{test}_0000.nii.gz").is_file()
    assert (tmp_path / "raw" / "labelsTs" / f"{test}.nii.gz").is_file()


def test_a_stopped_conversion_resumes(two, tmp_path):
    complete = convert(two, tmp_path / "whole", "nnunet")
    first = convert(two, tmp_path / "raw", "nnunet")
    assert (first.reused, first.overlaps) == ((), complete.overlaps)
    (tmp_path / "raw" / "labelsTr" / "s0002.nii.gz").unlink()
    untouched = (tmp_path / "raw" / "labelsTr" / "s0001.nii.gz").stat().st_mtime_ns
    again = convert(two, tmp_path / "raw", "nnunet")
    assert (again.reused, again.overlaps) == (("s0001",), complete.overlaps)
    assert (tmp_path / "raw" / "labelsTr" / "s0001.nii.gz").stat().st_mtime_ns == untouched
    for path in (tmp_path / "whole").rglob("*.nii.gz"):
        assert (tmp_path / "raw" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


def test_a_changed_source_is_converted_again(two, tmp_path, save):
    assert convert(two, tmp_path / "raw", "nnunet", "liver").reused == ()
    save("set/s0002/segmentations/liver.nii.gz", np.ones((6, 5, 4), np.uint8), np.diag([-1.0, 1.0, 2.0, 1.0]))
    again = convert(two, tmp_path / "raw", "nnunet", "liver")
    assert again.reused == ("s0001",)
    assert voxels(tmp_path / "raw" / "labelsTr" / "s0002.nii.gz").min() == 1


def test_a_broken_case_is_listed_and_the_others_are_written(two, tmp_path):
    mask = two / "s0001" / "segmentations" / "liver.nii.gz"
    mask.write_bytes(mask.read_bytes()[:-30])
    output = convert(two, tmp_path / "raw", "nnunet")
    assert output.cases == ("s0002",)
    assert "liver.nii.gz" in output.failed["s0001"]
    assert [case.id for case in discover(tmp_path / "raw").cases] == ["s0002"]
    assert not list((tmp_path / "raw").rglob("s0001*"))
    assert not list((tmp_path / "raw").rglob("*.partial*"))


def test_a_set_of_broken_cases_is_an_error(case, tmp_path):
    image = case / "s0001" / "ct.nii.gz"
    image.write_bytes(image.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"none of its 1 cases could be converted\. .*ct\.nii\.gz"):
        convert(case, tmp_path / "raw", "nnunet")
    assert not (tmp_path / "raw" / "dataset.json").exists()


def test_other_files_in_the_output_are_refused_before_writing(two, tmp_path):
    (tmp_path / "raw" / "imagesTr").mkdir(parents=True)
    (tmp_path / "raw" / "imagesTr" / "z_0000.nii.gz").touch()
    with pytest.raises(DataError, match=r"z_0000\.nii\.gz: the file does not belong to the data set"):
        convert(two, tmp_path / "raw", "nnunet")
    assert not (tmp_path / "raw" / "labelsTr").exists()


def test_wrong_places_and_words_are_refused(two, tmp_path):
    with pytest.raises(DataError, match="must not lie inside the source"):
        convert(two, two / "raw", "nnunet")
    with pytest.raises(DataError, match="nosuch: there is no such folder"):
        convert("nosuch", "raw", "nnunet")  # beside each other, where the user stands
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="this is a file, not a folder"):
        convert(two, tmp_path / "file", "nnunet")
    with pytest.raises(DataError, match="Did you mean 'nnunet'"):
        convert(two, tmp_path / "raw", "nnunett")
    with pytest.raises(LabelError, match=r"structure 'livr'.*Did you mean 'liver'"):
        convert(two, tmp_path / "raw", "nnunet", "livr")
    with pytest.raises(LabelError, match="structure 'brain'"):
        convert(two, tmp_path / "raw", "nnunet", ["liver", "brain"])


def test_a_choice_keeps_the_order_of_the_set(two):
    result = discover(two)
    assert result.choose(["liver", "spleen"]).structures == ("spleen", "liver")
    assert result.choose("organs").structures == ("spleen", "liver")
    assert result.choose(["liver", "liver"]).structures == ("liver",)


def test_an_uncompressed_image_is_compressed_without_change(save, tmp_path):
    source = save("a.nii", np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    copy_verified(source, tmp_path / "out" / "a.nii.gz")
    assert gzip.decompress((tmp_path / "out" / "a.nii.gz").read_bytes()) == source.read_bytes()
    source.write_bytes(source.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"a\.nii: the file ends after 399 of 400 bytes"):
        copy_verified(source, tmp_path / "b.nii.gz")


def test_an_image_whose_checksum_is_wrong_is_not_copied(save, tmp_path):
    source = save("a.nii.gz", np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    data = bytearray(source.read_bytes())
    data[-6] ^= 0xFF
    source.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.nii\.gz: the file is damaged or cut short"):
        copy_verified(source, tmp_path / "b.nii.gz")
    assert not (tmp_path / "b.nii.gz").exists()


def test_an_image_without_a_label_cannot_train(tmp_path, save):
    for name in ("imagesTr/a", "labelsTr/a", "imagesTr/b"):
        save(f"set/{name}.nii.gz", np.zeros((2, 2, 2), np.uint8))
    entries = [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}, {"image": "imagesTr/b.nii.gz"}]
    content = {"labels": {"0": "background", "1": "liver"}, "training": entries, "validation": []}
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(content))
    output = convert(tmp_path / "set", tmp_path / "raw", "nnunet")
    assert output.cases == ("a",)
    assert "case b: it has neither masks nor a label map" in output.failed["b"]


def test_a_case_that_trains_and_tests_is_refused(two, tmp_path):
    (two / "meta.csv").write_text("image_id;split\ns0001;train\ns0001;test\ns0002;val\n")
    with pytest.raises(DataError, match="s0001 train and are held out at the same time"):
        convert(two, tmp_path / "raw", "nnunet")


def test_several_processes_write_the_same_bytes(two, tmp_path):
    one = convert(two, tmp_path / "one", "nnunet")
    many = convert(two, tmp_path / "many", "nnunet", workers=2)
    assert (many.cases, many.overlaps) == (one.cases, one.overlaps)
    for path in (tmp_path / "one").rglob("*.nii.gz"):
        assert (tmp_path / "many" / path.relative_to(tmp_path / "one")).read_bytes() == path.read_bytes()
