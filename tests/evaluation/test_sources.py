import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from medseg.data import prepare
from medseg.errors import DataError, LabelError
from medseg.evaluation import find_sources, read_names
from medseg.labels import LabelMap


def plain(save, name, label=None):
    """A label map without names."""
    return save(name, np.zeros((4, 4, 4), np.uint8) if label is None else label)


def test_names_are_read_from_headers(folders):
    result = find_sources(folders[0])
    assert list(result) == ["a", "b", "c"]
    assert result["a"].labels.names == ("background", "kidney_left", "gizmo", "liver", "spleen")
    assert result["a"].structures == result["a"].labels.structures


@pytest.mark.parametrize("location", ["maps", "."])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("label_map.json", {"0": "background", "1": "liver", "2": "spleen"}),
        ("dataset.json", {"labels": {"background": 0, "liver": 1, "spleen": 2}}),
        ("dataset.json", {"labels": {"0": "background", "1": "liver", "2": "spleen"}}),
    ],
)
def test_names_are_read_from_a_file_beside_or_above(save, tmp_path, location, name, content):
    plain(save, "maps/a.nii.gz")
    (tmp_path / location / name).write_text(json.dumps(content))
    assert find_sources(tmp_path / "maps")["a"].labels == LabelMap(["liver", "spleen"])


def test_label_maps_without_names_are_refused(save, tmp_path):
    plain(save, "maps/a.nii.gz")
    with pytest.raises(LabelError, match=r"a.nii.gz: its labels have no names, .* never by number.*-labels"):
        find_sources(tmp_path / "maps")
    assert find_sources(tmp_path / "maps", LabelMap(["liver"]))["a"].structures == ("liver",)


def test_masks_of_a_case_lie_in_its_folder_or_below_in_segmentations(case, tmp_path):
    result = find_sources(case)["s0001"]
    assert result.label is None
    assert result.structures == ("spleen", "liver")
    assert result.image == case / "s0001" / "ct.nii.gz"
    shutil.move(case / "s0001" / "segmentations", tmp_path / "flat" / "s0001")
    flat = find_sources(tmp_path / "flat")["s0001"]
    assert set(flat.masks) == {"liver", "spleen"}
    assert flat.image is None
    assert flat.location == str(tmp_path / "flat" / "s0001")


def test_a_truth_without_its_scan_is_a_truth(case):
    (case / "s0001" / "ct.nii.gz").unlink()
    assert find_sources(case)["s0001"].image is None


def test_a_prepared_set_says_what_is_annotated_from_its_root_and_from_its_labels(phantom, tmp_path):
    source = tmp_path / "set"
    shutil.copytree(phantom, source)
    (source / "p0001" / "segmentations" / "liver.nii.gz").unlink()
    prepared = prepare(source, tmp_path / "prepared")
    for root in (tmp_path / "prepared", prepared.datalist, tmp_path / "prepared" / "labels"):
        result = find_sources(root)
        assert "liver" not in result["p0001"].structures
        assert "liver" in result["p0000"].structures
        assert result["p0000"].image is not None


@pytest.mark.parametrize("root", ["nowhere", "file.txt", "empty"])
def test_a_path_without_label_maps_is_refused(tmp_path, root):
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there must be a folder of label maps|layout"):
        find_sources(tmp_path / root)


def test_names_are_totalsegmentators_or_those_of_a_file(tmp_path):
    assert read_names("totalsegmentator") == LabelMap.totalsegmentator()
    file = tmp_path / "names.json"
    file.write_text("[1, 2]")
    with pytest.raises(LabelError, match="the file must be JSON that names labels"):
        read_names(file)


def test_a_damaged_label_map_is_named(folders):
    for case in "abc":
        (folders[1] / f"{case}.nii.gz").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"a\.nii\.gz"):  # one among others fails alone, see test_pairs.py
        find_sources(folders[1])


def test_a_restricted_prediction_holds_only_its_structures(put, tmp_path):
    put("pred/a.nii.gz", np.zeros((3, 3, 3)))
    image = nib.load(tmp_path / "pred" / "a.nii.gz")
    comment = json.dumps({"labels": LabelMap(["liver", "spleen"]).to_dict(), "only": ["spleen"]})
    image.header.extensions[:] = [nib.nifti1.Nifti1Extension(6, comment.encode())]
    nib.save(image, tmp_path / "pred" / "a.nii.gz")
    assert find_sources(tmp_path / "pred")["a"].structures == ("spleen",)
