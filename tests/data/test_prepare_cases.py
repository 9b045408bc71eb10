import errno
import json
import shutil
import subprocess
import sys

import filelock
import nibabel as nib
import numpy as np
import pytest

from medseg.data import PrepareConfig, convert, discover, merge_masks, prepare, read_store
from medseg.errors import DataError, LabelError, OutputError, RunError
from medseg.labels import LabelMap

pytestmark = pytest.mark.slow

LABELS = LabelMap(["liver", "spleen", "kidney_left"])
BOTH = {"train": ["s0001"], "val": ["s0001"]}


def load(path):
    return np.asanyarray(nib.load(path).dataobj)


def test_a_prepared_set_holds_images_labels_names_and_split(phantom, tmp_path):
    output = prepare(phantom, tmp_path / "out", PrepareConfig("organs"))
    out = tmp_path / "out"
    assert output.cases == ("p0000", "p0001", "p0002", "p0003")
    labels = LabelMap.load(out / "label_map.json")
    assert labels == LabelMap.totalsegmentator("organs")
    result = discover(out / "datalist.json")
    assert result.split == discover(phantom).split
    for case in result.cases:
        assert case.image.read_bytes() == (phantom / case.id / "ct.nii.gz").read_bytes()
        masks = discover(phantom).case(case.id).masks
        assert np.array_equal(load(case.label), merge_masks(case.image, masks, labels).label)
    assert sum(output.overlaps.values()) > 0
    assert json.loads((out / "datalist.json").read_text())["numTest"] == 1


def test_a_folder_inside_the_source_is_refused(case):
    with pytest.raises(DataError, match="must not lie inside the source"):
        prepare(case, case / "out")
    assert not (case / "out").exists()


def test_an_output_that_cannot_be_written_is_refused(case, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the folder cannot be written"):
        prepare(case, tmp_path / "file" / "out")


def test_a_broken_case_is_listed_and_the_others_are_written(case, tmp_path, save):
    shutil.copytree(case / "s0001", case / "s0002")
    save("set/s0002/segmentations/spleen.nii.gz", np.zeros((1, 1, 1), np.uint8))
    output = prepare(case, tmp_path / "out")
    assert output.cases == ("s0001",)
    assert list(output.failed) == ["s0002"]
    assert "spleen" in output.failed["s0002"]
    assert [path.name for path in (tmp_path / "out").rglob("s0002*")] == []
    assert "s0002" in json.loads((tmp_path / "out" / "fingerprint.json").read_text())["failed"]


def test_a_set_in_which_every_case_is_broken_is_an_error(case, tmp_path, save):
    save("set/s0001/segmentations/spleen.nii.gz", np.zeros((1, 1, 1), np.uint8))
    with pytest.raises(DataError, match="none of its 1 cases could be prepared"):
        prepare(case, tmp_path / "out")
    assert not (tmp_path / "out" / "datalist.json").exists()


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def undisturbed(phantom, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    prepare(phantom, out, EVERYTHING)
    return tree(out)


EVERYTHING = PrepareConfig("organs", spacing=(9.0, 9.0, -1.0), crop=True, store=True)


def reached(out, moment):
    """Whether a file exists; of the journal, whether it names the second case."""
    return any(moment != "cases.jsonl" or "p0001" in path.read_text() for path in out.glob(moment))


@pytest.mark.parametrize(
    "moment", ["images/.*.partial*", "images/*.nii.gz", "store/*.image*", "cases.jsonl", "fingerprint.json"]
)
def test_a_killed_preparation_resumes_to_the_same_bytes(phantom, tmp_path, undisturbed, moment):
    out = tmp_path / "out"
    code = (
        "import sys; from medseg.data import PrepareConfig, prepare;"
        "prepare(sys.argv[1], sys.argv[2], PrepareConfig('organs', spacing=(9.0, 9.0, -1.0), crop=True, store=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(phantom), str(out)])
    while process.poll() is None and not reached(out, moment):
        pass
    process.kill()
    process.wait()
    assert tree(out) != undisturbed or moment == "fingerprint.json"
    kept = prepare(phantom, out, EVERYTHING).reused
    assert tree(out) == undisturbed
    if moment == "cases.jsonl":
        assert kept >= 2


def test_the_number_of_workers_changes_nothing(phantom, tmp_path, undisturbed):
    prepare(phantom, tmp_path / "out", EVERYTHING, workers=2)
    assert tree(tmp_path / "out") == undisturbed


def test_only_changed_cases_are_prepared_again(phantom, tmp_path):
    shutil.copytree(phantom, tmp_path / "set")
    output = [prepare(tmp_path / "set", tmp_path / "out") for _ in range(2)]
    assert [first.reused for first in output] == [0, 4]
    mask = tmp_path / "set" / "p0001" / "segmentations" / "liver.nii.gz"
    image = nib.load(mask)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), mask)
    assert prepare(tmp_path / "set", tmp_path / "out").reused == 3
    labels = LabelMap.load(tmp_path / "out" / "label_map.json")
    assert not (load(tmp_path / "out" / "labels" / "p0001.nii.gz") == labels.index("liver")).any()
    (tmp_path / "out" / "labels" / "p0002.nii.gz").write_bytes(b"cut")
    assert prepare(tmp_path / "set", tmp_path / "out").reused == 3
    assert prepare(tmp_path / "set", tmp_path / "out", PrepareConfig(store=True)).reused == 0
    with pytest.raises(OutputError, match="the output of another command, other settings or another source"):
        prepare(tmp_path / "set", tmp_path / "out", PrepareConfig("organs"))


def test_resampling_and_cropping_keep_positions(phantom, tmp_path):
    prepare(phantom, tmp_path / "out", PrepareConfig("organs", spacing=(9.0, 9.0, -1.0), crop=True))
    for case in discover(tmp_path / "out").cases:
        image, label = nib.load(case.image), nib.load(case.label)
        source = nib.load(phantom / case.id / "ct.nii.gz")
        assert np.allclose(image.header.get_zooms(), (9, 9, source.header.get_zooms()[2]))
        assert np.allclose(image.affine, label.affine)
        assert image.shape == label.shape
        merged = merge_masks(phantom / case.id / "ct.nii.gz", discover(phantom).case(case.id).masks, LABELS).label
        labels = LabelMap.load(tmp_path / "out" / "label_map.json")
        for name in ("liver", "spleen"):
            here, there = load(case.label) == labels.index(name), merged == LABELS.index(name)
            if there.sum() > 50:
                centres = [
                    nib.affines.apply_affine(first.affine, np.argwhere(held)).mean(axis=0)
                    for first, held in ((label, here), (source, there))
                ]
                assert np.linalg.norm(centres[0] - centres[1]) < 4.5  # half a voxel, mm


def test_the_datalist_names_store_and_annotated_structures(phantom, tmp_path):
    shutil.copytree(phantom, tmp_path / "set")
    (tmp_path / "set" / "p0002" / "segmentations" / "liver.nii.gz").unlink()
    prepare(tmp_path / "set", tmp_path / "out", PrepareConfig(("liver", "spleen"), store=True))
    result = discover(tmp_path / "out" / "datalist.json")
    assert result.store == tmp_path / "out" / "store"
    assert result.case("p0002").annotated == ("spleen",)
    assert result.case("p0001").annotated == ("spleen", "liver")
    stored = read_store(result.store, "p0001")
    assert np.array_equal(np.sort(np.unique(stored.label.read())), np.unique(load(result.case("p0001").label)))


def test_excluded_cases_are_left_out(phantom, tmp_path):
    output = prepare(phantom, tmp_path / "out", exclude={"p0001": "moved", "gone": "not there any more"})
    assert output.cases == ("p0000", "p0002", "p0003")


def test_a_prepared_set_is_prepared_again_with_other_structures(phantom, tmp_path):
    prepare(phantom, tmp_path / "one", PrepareConfig("organs"))
    prepare(tmp_path / "one", tmp_path / "two", PrepareConfig(("liver", "spleen"), store=True))
    first, two = (LabelMap.load(tmp_path / name / "label_map.json") for name in ("one", "two"))
    assert two == LabelMap(["spleen", "liver"])  # the order of the set
    before, after = (
        load(tmp_path / "one" / "labels" / "p0000.nii.gz"),
        load(tmp_path / "two" / "labels" / "p0000.nii.gz"),
    )
    assert np.array_equal(after == two.index("spleen"), before == first.index("spleen"))


@pytest.mark.parametrize(
    ("how", "error", "why"),
    [
        ({"axis": 3}, DataError, "it must be 0, 1 or 2"),
        ({"spacing": (1.0, 1.0)}, DataError, "three lengths of"),
        ({"spacing": (1.5, 1.5, 0.0)}, DataError, "or -1 for an axis to leave .got 1.5, 1.5, 0."),
        ({"spacing": (1.5, -2.0, -1.0)}, DataError, "three lengths of"),
        ({"spacing": (float("nan"), 1.0, 1.0)}, DataError, "three lengths of"),
        ({"spacing": (1.0, 1.0, float("inf"))}, DataError, "three lengths of"),
        ({"precedence": ("livre",)}, LabelError, "Did you mean 'liver'"),
        ({"structures": "organ"}, LabelError, "Did you mean 'organs'"),
        ({"precedence": ("liver", "liver")}, LabelError, "a structure is named twice"),
    ],
)
def test_invalid_options_are_refused_before_writing(phantom, tmp_path, how, error, why):
    with pytest.raises(error, match=why):
        prepare(phantom, tmp_path / "out", PrepareConfig(**how))
    assert not (tmp_path / "out").exists()


def test_the_source_is_never_written_to(phantom, case, tmp_path):
    for inside in (case / "out", case.parent):
        with pytest.raises(DataError, match="must not lie inside the source .*, nor hold it"):
            prepare(case, inside)


def test_two_preparations_into_one_folder_are_refused(phantom, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        filelock.FileLock(tmp_path / "out" / ".lock"),
        pytest.raises(RunError, match="another process prepares into this folder"),
    ):
        prepare(phantom, tmp_path / "out")


def test_a_full_disk_ends_it_at_once(phantom, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OutputError, match="No space left on device"):
        prepare(phantom, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_a_test_image_without_labels_is_prepared_alone(phantom, tmp_path):
    convert(phantom, tmp_path / "raw", "nnunet", ("liver", "spleen"))
    for label in (tmp_path / "raw" / "labelsTs").glob("*.nii.gz"):
        label.unlink()
    output = prepare(tmp_path / "raw", tmp_path / "out", PrepareConfig(store=True))
    assert not output.failed
    result = discover(tmp_path / "out" / "datalist.json")
    (test,) = result.subset("test")
    assert test.label is None
    assert test.image.read_bytes() == (phantom / test.id / "ct.nii.gz").read_bytes()
    assert prepare(tmp_path / "raw", tmp_path / "out", PrepareConfig(store=True)).reused == 4


def test_structures_of_the_first_version_are_prepared_too(save, tmp_path):
    rng = np.random.default_rng(0)
    for id in ("s1", "s2"):
        save(f"set/{id}/ct.nii.gz", rng.integers(-200, 200, (6, 6, 6)).astype(np.int16))
        for name in ("heart_atrium_left", "liver"):
            save(f"set/{id}/segmentations/{name}.nii.gz", rng.integers(0, 2, (6, 6, 6)).astype(np.uint8))
    prepare(tmp_path / "set", tmp_path / "out")
    assert set(LabelMap.load(tmp_path / "out" / "label_map.json")) == {"heart_atrium_left", "liver"}
