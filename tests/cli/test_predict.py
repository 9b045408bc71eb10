import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture
def scans(phantom):
    return [phantom / "p0002" / "ct.nii.gz", phantom / "p0003" / "ct.nii.gz"]


def test_masks_have_the_names_and_the_grids_of_their_scans(medseg, trained, scans, tmp_path):
    done = medseg("predict", trained, *scans, "-o", tmp_path / "out", "--preview")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "p0002.nii.gz",
        "p0002.png",
        "p0003.nii.gz",
        "p0003.png",
    ]
    for scan in scans:
        mask = nib.load(tmp_path / "out" / f"{scan.parent.name}.nii.gz")
        assert np.array_equal(mask.affine, nib.load(scan).affine)
        assert mask.shape == nib.load(scan).shape
    with Image.open(tmp_path / "out" / "p0002.png") as picture:
        assert picture.width > 300


def test_a_folder_of_scans_is_segmented(medseg, trained, scans, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii.gz").write_bytes(scans[0].read_bytes())
    assert medseg("predict", trained, tmp_path / "in", "-o", tmp_path / "out").code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.nii.gz"]


def test_complete_masks_stay_unless_overwrite_is_given(medseg, trained, scans, tmp_path):
    mask = tmp_path / "out" / "p0002.nii.gz"
    assert medseg("predict", trained, scans[0], "-o", tmp_path / "out").code == 0
    first = mask.stat().st_mtime_ns
    done = medseg("predict", trained, scans[0], "-o", tmp_path / "out")
    assert (done.code, mask.stat().st_mtime_ns) == (0, first)
    assert "--overwrite" in done.out
    assert medseg("predict", trained, scans[0], "-o", tmp_path / "out", "--overwrite").code == 0
    assert mask.stat().st_mtime_ns != first


def test_a_broken_scan_stops_no_other_and_sets_the_exit_code(medseg, trained, scans, tmp_path):
    broken = tmp_path / "in" / "broken.nii.gz"
    broken.parent.mkdir()
    broken.write_bytes(scans[0].read_bytes()[:-400])
    done = medseg("predict", trained, broken, scans[1], "-o", tmp_path / "out")
    assert done.code == 1
    assert "broken.nii.gz: the file is damaged or cut short" in done.err
    assert "1 of 2 scans failed" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["p0003.nii.gz"]


def test_a_folder_without_scans_stops_no_other(medseg, trained, scans, tmp_path):
    (tmp_path / "in" / "below").mkdir(parents=True)
    (tmp_path / "in" / "below" / "a.nii.gz").write_bytes(scans[0].read_bytes())
    (tmp_path / "in" / "below" / "._a.nii.gz").write_bytes(b"x")
    done = medseg("predict", trained, tmp_path / "in", tmp_path / "missing", scans[1], "-o", tmp_path / "out")
    assert done.code == 1
    assert "in: the folder holds no scans" in done.err
    assert "below, such as" in done.err
    assert "missing: no such file or folder" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["p0003.nii.gz"]
    done = medseg("predict", trained, tmp_path / "in", "--recursive", "-o", tmp_path / "out")
    assert (done.code, (tmp_path / "out" / "a.nii.gz").is_file()) == (0, True), done.err


def test_a_prediction_can_be_logged_as_a_run_of_its_own(medseg, trained, scans, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    done = medseg("predict", trained, *scans, "-o", tmp_path / "out", "--monitor", "trackio")
    assert done.code == 0, done.err
    assert "Logged to trackio, project medseg-unet2d" in done.out
    rows = [json.loads(line) for line in (tmp_path / "out" / ".monitor" / "metrics.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows] == ["begin", "case", "case", "end"]
    assert [row["case"] for row in rows[1:3]] == ["p0002", "p0003"]
    assert rows[1]["file"] == "../p0002.png"
    label = nib.load(tmp_path / "out" / "p0002.nii.gz")
    voxels = np.count_nonzero(np.asarray(label.dataobj))
    ml = abs(np.linalg.det(label.affine)) / 1000
    assert sum(rows[1]["volume_ml"].values()) == pytest.approx(voxels * ml, abs=0.01)
    assert str(tmp_path) not in json.dumps(rows)
    assert list((tmp_path / "trackio" / "media").rglob("*.png"))


def test_a_tracker_that_does_not_exist_is_refused_before_anything_is_read(medseg, trained, scans, tmp_path):
    done = medseg("predict", trained, scans[0], "-o", tmp_path / "out", "--monitor", "trakio")
    assert done.code == 1
    assert "Did you mean 'trackio'" in done.err


def test_a_mask_never_overwrites_its_scan(medseg, trained, scans, tmp_path):
    scan = tmp_path / "scan1.nii.gz"
    scan.write_bytes(scans[0].read_bytes())
    done = medseg("predict", trained, scan, "-o", tmp_path, "--overwrite")
    assert done.code == 2
    assert "would overwrite the scan itself" in done.err
    assert scan.read_bytes() == scans[0].read_bytes()


def test_wrong_arguments_are_one_error_each(medseg, trained, scans, tmp_path):
    (tmp_path / "file").touch()
    wrong = {
        "no such file": [trained, tmp_path / "missing.nii.gz", "-o", tmp_path / "out"],
        "Did you mean 'unet2d'": ["unet2", scans[0], "-o", tmp_path / "out"],
        "Train the bundle first": ["unet2d", scans[0], "-o", tmp_path / "out"],
        "the folder cannot be written": [trained, scans[0], "-o", tmp_path / "file"],
        "Did you mean 'inferer#overlap'": [trained, scans[0], "-o", tmp_path / "out", "--set", "inferer#overlp=0.5"],
        "does not fit the network": [
            trained,
            scans[0],
            "-o",
            tmp_path / "out",
            "--set",
            "out_channels=$3",
        ],
    }
    for message, arguments in wrong.items():
        done = medseg("predict", *arguments)
        assert done.code == 1, message
        assert message in done.err
    assert not list((tmp_path / "out").glob("*"))


def test_everything_that_can_be_written_beside_a_mask(medseg, trained, scans, tmp_path):
    out = tmp_path / "out"
    options = ("-o", out, "--stats", "--split", "--structures", "liver", "--structures", "spleen", "--memory", "1TB")
    done = medseg("predict", trained, scans[0], *options)
    assert done.code == 0, done.err
    assert "This needs about" in done.out
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == [
        "p0002.nii.gz",
        "p0002.statistics.csv",
        "p0002.statistics.json",
        "p0002/liver.nii.gz",
        "p0002/spleen.nii.gz",
    ]
    (out / "p0002.statistics.csv").unlink()
    before = (out / "p0002.nii.gz").stat().st_mtime_ns
    assert "is complete already" in medseg("predict", trained, scans[0], *options).out
    assert (out / "p0002.statistics.csv").exists()
    assert (out / "p0002.nii.gz").stat().st_mtime_ns == before
    (out / "p0002.statistics.json").unlink()  # the confidence is known to the network alone
    assert "p0002.nii.gz (" in medseg("predict", trained, scans[0], *options).out
    content = json.loads((out / "p0002.statistics.json").read_text())
    assert all(row["confidence"] is not None for row in content["structures"] if row["voxels"])


def test_doubtful_scans_are_named_in_the_line_the_statistics_and_the_preview(medseg, trained, scans, tmp_path, real):
    """A real CT, and the same without its intercept, for a network that was trained on phantoms in HU."""
    shifted = real / "found" / "nifti" / "hu_plus_1024_unsigned.nii.gz"
    done = medseg("predict", trained, shifted, scans[0], "-o", tmp_path, "--stats", "--preview")
    assert done.code == 0, done.err
    first, second = done.out.split("p0002.nii.gz")[0], done.out.split("p0002.nii.gz")[1]
    assert "warning rescale-missing: its values run from 0 to 2213" in first
    assert "warning trained-on-phantoms: " in first
    assert "warning" not in second  # a phantom, in HU
    content = json.loads((tmp_path / "hu_plus_1024_unsigned.statistics.json").read_text())
    assert [problem["code"] for problem in content["warnings"]] == ["trained-on-phantoms", "rescale-missing"]
    table = (tmp_path / "hu_plus_1024_unsigned.statistics.csv").read_text().splitlines()
    assert table[0].endswith(",warnings")
    assert table[1].endswith(",trained-on-phantoms rescale-missing")
    metadata = json.loads((trained / "configs" / "metadata.json").read_text())
    assert (metadata["training_images"]["phantoms"], metadata["training_images"]["hu"]) == (True, True)


@pytest.mark.parametrize("options", [(), ("--stats",), ("--stats", "--preview", "--split")])
def test_voxels_that_are_infinite_leave_nothing_behind(medseg, trained, tmp_path, real, options):
    done = medseg("predict", trained, real / "found" / "nifti" / "inf.nii.gz", "-o", tmp_path / "out", *options)
    assert done.code == 1
    assert "3,723 voxels are NaN or infinite" in done.err
    assert not list((tmp_path / "out").iterdir())


def test_a_coarse_pass_and_confidence(medseg, trained, scans, tmp_path):
    done = medseg("predict", trained, scans[0], "-o", tmp_path, "--stats", "--structures", "liver", "--coarse-first")
    assert done.code == 0, done.err
    (liver,) = json.loads((tmp_path / "p0002.statistics.json").read_text())["structures"]
    assert liver["voxels"] > 0
    assert 0 < liver["confidence"] <= 1
    wrong = medseg("predict", trained, scans[0], "-o", tmp_path, "--coarse-first")
    assert (wrong.code, "--coarse-first needs --structures" in wrong.err) == (2, True)


def test_a_damaged_mask_is_segmented_again_and_the_summary_counts(medseg, trained, scans, tmp_path):
    mask = tmp_path / "out" / "p0002.nii.gz"
    mask.parent.mkdir()
    mask.write_bytes(b"cut short")
    first = medseg("predict", trained, *scans, "-o", mask.parent)
    assert "2 segmented, 0 unchanged, 0 failed." in first.out
    assert nib.load(mask).shape == nib.load(scans[0]).shape
    assert "0 segmented, 2 unchanged, 0 failed." in medseg("predict", trained, *scans, "-o", mask.parent).out


def test_a_dicom_folder_is_segmented_and_a_bad_one_is_refused(medseg, trained, save_dicom, tmp_path):
    hu = np.random.default_rng(0).integers(-200, 200, (40, 36, 4)).astype(np.int16)
    good, bad = save_dicom("in/good", hu), save_dicom("in/bad", hu, skip=lambda k: k == 2)
    done = medseg("predict", trained, tmp_path / "in", "-o", tmp_path / "out")
    assert done.code == 1
    assert f"Error: {bad}: the slices are unevenly spaced, from 3 to 6 mm" in done.err
    assert str(good) in done.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.nii.gz"]


def test_an_amount_that_is_none_is_wrong_use(medseg, trained, scans, tmp_path):
    done = medseg("predict", trained, scans[0], "-o", tmp_path / "out", "--memory", "much")
    assert done.code == 2
    assert "6GB or 800MB, not 'much'" in done.err
