import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medseg.bundle import Bundle, Predictor

pytestmark = pytest.mark.slow


@pytest.fixture
def images(tmp_path):
    """A folder of three images of one scan, wider than high."""
    for k in (1, 2, 3):
        path = tmp_path / "in" / f"case7_day3_slice_{k:04d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (32, 40)).astype(np.uint8)).save(path)
    return tmp_path / "in"


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_folder_of_images_gives_masks_colors_overlays_and_a_table(medseg, trained_slices, images, tmp_path):
    out = tmp_path / "out"
    done = medseg("predict", trained_slices, images, "-o", out)
    assert done.code == 0, done.err
    assert "3 segmented, 0 unchanged (--overwrite segments them again), 0 failed." in done.out
    assert "warning trained-on-phantoms: the network was trained on phantoms" in done.out
    assert f"Masks are in {out / 'masks'}, pixels and areas in {out / 'pixels.csv'}" in done.out
    names = [path.name for path in sorted(images.iterdir())]
    for folder in ("masks", "colors", "overlays"):
        assert sorted(path.name for path in (out / folder).iterdir()) == names
    predictor = Predictor(Bundle(trained_slices), {"device": "cpu"}, slices=True)
    for name in names:
        item = predictor.preprocessing({"image": str(images / name)})
        assert np.array_equal(pixels(out / "masks" / name), np.asarray(predictor.infer(item["image"][None]))[0, 0])
    with (out / "pixels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["slice"] for row in rows[::3]] == [name[:-4] for name in names]
    assert {row["scan"] for row in rows} == {"case7_day3"}


def test_complete_masks_stay_unless_overwrite_is_given(medseg, trained_slices, images, tmp_path):
    call = ("predict", trained_slices, images, "-o", tmp_path / "out")
    assert medseg(*call).code == 0
    mask = tmp_path / "out" / "masks" / "case7_day3_slice_0002.png"
    first = mask.stat().st_mtime_ns
    done = medseg(*call)
    assert (done.code, mask.stat().st_mtime_ns) == (0, first)
    assert "0 segmented, 3 unchanged" in done.out
    assert "3 segmented, 0 unchanged" in medseg(*call, "--overwrite").out
    assert mask.stat().st_mtime_ns != first


def test_one_image_and_one_structure(medseg, trained_slices, images, tmp_path):
    (image, *_) = sorted(images.iterdir())
    for number, subset in enumerate(([], ["--structures", "small_bowel"])):
        done = medseg("predict", trained_slices, image, "-o", tmp_path / str(number), *subset)
        assert done.code == 0, done.err
        assert "1 segmented" in done.out
    everything, one = (pixels(tmp_path / name / "masks" / image.name) for name in "01")
    assert np.array_equal(one, np.where(everything == 2, 2, 0))


def test_a_broken_image_stops_no_other_and_sets_the_exit_code(medseg, trained_slices, images, tmp_path):
    broken = images / "case7_day3_slice_0002.png"
    content = bytearray(broken.read_bytes())
    content[-30] ^= 0xFF
    broken.write_bytes(content)
    done = medseg("predict", trained_slices, images, "-o", tmp_path / "out")
    assert done.code == 1
    assert f"Error: {broken}: the checksum of the IDAT chunk is wrong" in done.err
    assert "2 segmented, 0 unchanged (--overwrite segments them again), 1 failed." in done.out
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 2


VOLUMES = {
    "--coarse-first": ["--coarse-first", "--structures", "stomach"],
    "--accept": ["--accept", "shear"],
    "--split": ["--split"],
    "--stats": ["--stats"],
    "--monitor": ["--monitor", "trackio"],
    "--memory": ["--memory", "1GB"],
}


@pytest.mark.parametrize("option", VOLUMES)
def test_options_for_volumes_are_usage_errors_with_images(medseg, trained_slices, images, tmp_path, option):
    done = medseg("predict", trained_slices, images, "-o", tmp_path / "out", *VOLUMES[option])
    assert done.code == 2
    assert "holds 2D images" in done.err
    assert f"{option} is for volumes." in done.err
    assert not (tmp_path / "out").exists()


def test_images_and_volumes_together_are_a_usage_error(medseg, trained_slices, images, phantom, tmp_path):
    scan = phantom / "p0003" / "ct.nii.gz"
    for inputs in ((images, scan), (scan, images)):
        done = medseg("predict", trained_slices, *inputs, "-o", tmp_path / "out")
        assert done.code == 2
        assert f"{images} holds 2D images" in done.err
        assert str(scan) in done.err
        assert "for volumes." in done.err
        assert not (tmp_path / "out").exists()


def test_a_bundle_for_volumes_takes_no_images(medseg, trained, images, tmp_path):
    done = medseg("predict", trained, images, "-o", tmp_path / "out")
    assert done.code == 1
    assert "this bundle takes volumes only, not 2D slices" in done.err


def test_masks_are_not_written_into_the_folder_of_the_images(medseg, trained_slices, images, tmp_path):
    before = sorted(images.iterdir())
    for inputs, folder in ((images, images), (before[0], tmp_path), (images, tmp_path / "a" / "..")):
        done = medseg("predict", trained_slices, inputs, "-o", folder)
        assert done.code == 2
        assert "is in the output folder itself. Choose another folder with -o." in done.err
    assert sorted(images.iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_wrong_arguments_are_one_error_each(medseg, trained_slices, images, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "out"
    wrong = {
        "missing.png: there is no such image or folder of images": [tmp_path / "missing.png", "-o", out],
        "the folder cannot be written": [images, "-o", tmp_path / "file"],
        "Did you mean 'inferer#overlap'": [images, "-o", out, "--set", "inferer#overlp=0.5"],
        "'stomack'": [images, "-o", out, "--structures", "stomack"],
        "context: use a whole number from 0 to 32": [images, "-o", out, "--set", "context=two"],
    }
    for message, arguments in wrong.items():
        done = medseg("predict", trained_slices, *arguments)
        assert done.code == 1, message
        assert message in done.err
        assert done.err.count("Error") == 1
    untrained = medseg("predict", "segformer2d", images, "-o", out)
    assert (untrained.code, "Train the bundle first" in untrained.err) == (1, True)
    assert not list(out.glob("*"))


def test_a_volume_is_segmented_slice_by_slice_with_a_window(medseg, trained_slices, save, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (30, 26, 3)).astype(np.int16)
    scan = save("mr.nii.gz", values, np.diag([-1.5, -1.5, 4, 1]))
    done = medseg("predict", trained_slices, scan, "-o", tmp_path / "out")
    assert done.code == 1
    assert "--set window=[-160,240]" in done.err
    assert not list((tmp_path / "out").iterdir())
    done = medseg("predict", trained_slices, scan, "-o", tmp_path / "out", "--set", "window=[0,255]", "--stats")
    assert done.code == 0, done.err
    mask = nib.load(tmp_path / "out" / "mr.nii.gz")
    assert mask.shape == values.shape
    assert np.array_equal(mask.affine, nib.load(scan).affine)
    assert (tmp_path / "out" / "mr.statistics.csv").is_file()


def test_a_bundle_that_would_run_code_is_refused_for_images_too(medseg, trained_slices, images, tmp_path, monkeypatch):
    bundle = tmp_path / "foreign"
    shutil.copytree(trained_slices, bundle)
    config = bundle / "configs" / "inference.json"
    opens = f"$open({str(tmp_path / 'canary')!r}, 'w') or "
    config.write_text(config.read_text().replace('"amp": "$', f'"amp": "{opens}', 1))
    done = medseg("predict", bundle, images, "-o", tmp_path / "out")
    assert done.code == 1
    assert "--trust" in done.err
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "out" / "masks").exists()


def test_the_output_may_lie_below_the_input_each_time(medseg, trained_slices, images):
    for summary in ("3 segmented", "0 segmented, 3 unchanged"):
        done = medseg("predict", trained_slices, images, "-o", images / "out")
        assert done.code == 0, done.err
        assert summary in done.out


def test_a_volume_has_the_colors_of_the_set_in_its_preview(medseg, trained_slices, phantom, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_slices, run)
    scan, colors = phantom / "p0003" / "ct.nii.gz", {"stomach": [1, 255, 2], "small_bowel": [255, 3, 250]}
    colors["large_bowel"] = [4, 5, 255]
    (run / "classes.json").write_text(json.dumps(colors))
    done = medseg("predict", run, scan, "-o", tmp_path / "out", "--preview", "--set", "window=[-160,240]")
    assert done.code == 0, done.err
    (mask,) = (tmp_path / "out").glob("*.nii.gz")
    present = [name for index, name in enumerate(colors, 1) if (np.asanyarray(nib.load(mask).dataobj) == index).any()]
    shown = pixels(mask.with_name(mask.name.replace(".nii.gz", ".png")))[..., :3]
    assert present
    assert any((shown == colors[name]).all(-1).any() for name in present)


def test_a_submission_holds_the_masks_as_run_lengths(medseg, trained_slices, tmp_path):
    scans = tmp_path / "test" / "case7" / "case7_day3" / "scans"
    scans.mkdir(parents=True)
    for k in (1, 2):
        values = np.random.default_rng(k).integers(0, 256, (32, 40)).astype(np.uint8)
        Image.fromarray(values).save(scans / f"slice_{k:04d}_40_32_1.50_1.50.png")
    table = tmp_path / "submission" / "s.csv"
    call = ("predict", trained_slices, tmp_path / "test", "-o", tmp_path / "out", "--submission", table)
    for _ in range(2):  # as well from masks that are there
        done = medseg(*call)
        assert done.code == 0, done.err
        assert f"Run lengths are in {table}" in done.out
        with table.open(newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["id", "class", "predicted"]
        names = ["large_bowel", "small_bowel", "stomach"]
        ids = [f"case7_day3_slice_{k:04d}" for k in (1, 2)]
        assert [row[:2] for row in rows[1:]] == [[id, name] for id in ids for name in names]
        indices = {name: index for index, name in enumerate(("stomach", "small_bowel", "large_bowel"), 1)}
        for id, name, runs in rows[1:]:
            mask = np.zeros(32 * 40, bool)
            numbers = [int(number) for number in runs.split()]
            for start, length in zip(numbers[::2], numbers[1::2], strict=True):
                mask[start - 1 : start - 1 + length] = True
            expected = pixels(tmp_path / "out" / "masks" / f"{id}.png") == indices[name]
            assert np.array_equal(mask.reshape(32, 40), expected)
        assert any(row[2] for row in rows[1:])
        table.unlink()


def test_a_run_is_evaluated_on_its_data_set(medseg, trained_slices, tmp_path):
    from medseg.data import SlicePhantomSpec, write_slice_phantom

    data = write_slice_phantom(tmp_path / "set", SlicePhantomSpec(train=1, val=2, slices=3, size=(40, 48)))
    done = medseg("evaluate", trained_slices, "--data", data, "-o", tmp_path / "out", "--workers", 0, "--error-maps", 1)
    assert done.code == 0, done.err
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert sorted(case["case"] for case in content["cases"]) == ["case102_day20", "case103_day20"]
    colors = {"stomach": (255, 0, 0), "small_bowel": (0, 255, 0), "large_bowel": (0, 0, 255)}
    for index, (name, color) in enumerate(colors.items(), 1):
        both = total = 0
        for path in sorted((data / "valid" / "masks").iterdir()):
            true = (pixels(path) == color).all(-1)
            predicted = pixels(tmp_path / "out" / "predictions" / "masks" / path.name) == index
            both += 2 * int((true & predicted).sum())
            total += int(true.sum() + predicted.sum())
        row = next(row for row in content["structures"] if row["structure"] == name)
        assert row["f1"] == pytest.approx(both / total)
    assert "2 cases (6 slices), 3 structures" in done.out
    assert "Score of the UW-Madison GI tract competition: 0." in done.out
    page = (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 1
    assert "GI tract score" in page
    printed = medseg(
        "evaluate",
        tmp_path / "out" / "predictions",
        data / "valid" / "masks",
        "-o",
        tmp_path / "two",
        "--json",
        "--workers",
        0,
    )
    assert json.loads(printed.out)["f1"] == pytest.approx(content["f1"])
    for option in ("--resample", "--nsd=2"):
        wrong = medseg(
            "evaluate", tmp_path / "out" / "predictions", data / "valid" / "masks", "-o", tmp_path / "x", option
        )
        assert wrong.code == 2
        assert "is for volumes, and these are 2D pictures." in wrong.err


def test_keys_of_the_other_kind_of_input_are_refused(medseg, trained_slices, images, phantom, tmp_path):
    for key in ("window=[0,5]", "volume_axes=PLI", "volume_inferer#overlap=0.5"):
        done = medseg("predict", trained_slices, images, "-o", tmp_path / "out", "--set", key)
        assert done.code == 1
        assert f"{key.partition('=')[0]}: this key is for volumes, and means nothing for 2D images" in done.err
    assert medseg("predict", trained_slices, images, "-o", tmp_path / "out", "--set", "window=5").code == 1
    scan = phantom / "p0003" / "ct.nii.gz"
    sets = ("--set", "window=[-160,240]", "--set", "inferer#overlap=0.5")
    done = medseg("predict", trained_slices, scan, "-o", tmp_path / "out", *sets)
    assert done.code == 1
    assert "inferer#overlap: this key is for 2D images, and means nothing for volumes" in done.err
    assert "Set volume_inferer#overlap." in done.err
    assert not (tmp_path / "out" / "masks").exists()


def test_an_empty_folder_asks_for_pictures(medseg, trained_slices, tmp_path):
    (tmp_path / "empty").mkdir()
    done = medseg("predict", trained_slices, tmp_path / "empty", "-o", tmp_path / "out")
    assert done.code == 1
    assert "it holds no 2D images that are read (.png, .jpg" in done.err
    (tmp_path / "empty" / "a.webp").write_bytes(b"any")
    for given in (tmp_path / "empty", tmp_path / "empty" / "a.webp"):
        done = medseg("predict", trained_slices, given, "-o", tmp_path / "out")
        assert done.code == 1
        assert "a.webp" in done.err
        assert not (tmp_path / "out").exists()


def test_if_every_picture_is_refused_nothing_is_left(medseg, trained_slices, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.png").write_bytes(b"no picture")
    out = tmp_path / "new" / "out"
    done = medseg("predict", trained_slices, tmp_path / "in", "-o", out, "--submission", out / "s.csv")
    assert done.code == 1
    assert done.err.count("the image cannot be read") == 2
    assert "Masks are in" not in done.out
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    assert medseg("predict", trained_slices, tmp_path / "in", "-o", tmp_path / "old").code == 1
    assert list((tmp_path / "old").iterdir()) == []


def test_masks_beside_images_are_not_segmented(medseg, trained_slices, images, tmp_path):
    for path in sorted(images.iterdir()):
        shutil.copy(path, path.with_name(f"{path.stem}_mask.png"))
        shutil.copy(path, path.with_name(f"{path.stem}_small_bowel.png"))
    done = medseg("predict", trained_slices, images, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 3
