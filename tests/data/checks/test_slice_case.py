import json

import numpy as np
import pytest
from PIL import Image

from medseg.cli.check import render_preview
from medseg.data import SlicePhantomSpec, check_dataset, open_dataset, write_slice_phantom
from medseg.data.checks.case import CaseJob
from medseg.data.checks.dataset import check_slice_sizes
from medseg.data.checks.slice_case import check_slice
from medseg.data.layouts import collect
from medseg.errors import DataError
from medseg.labels import LabelMap


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image).copy()


def phantom(tmp_path, **changes):
    said = {"train": 2, "val": 1, "slices": 2, "size": (20, 24), **changes}
    return write_slice_phantom(tmp_path / "set", SlicePhantomSpec(**said))


def codes(report):
    return {(finding.severity, finding.code, finding.case) for finding in report.findings}


@pytest.mark.parametrize("layout", ["split", "folder", "classes", "kaggle"])
def test_a_sound_set_has_neither_errors_nor_warnings(tmp_path, layout):
    report = check_dataset(phantom(tmp_path, layout=layout, bits=16), workers=1)
    assert report.counts()["error"] == report.counts()["warning"] == 0
    assert len(report.cases) == 6
    assert report.cases[0].shape == (20, 24, 1)
    json.dumps(report.to_dict(), allow_nan=False)


def test_every_fault_is_found_with_its_file(tmp_path):
    root = phantom(tmp_path, train=5)
    images, masks = (sorted((root / "train" / name).iterdir()) for name in ("images", "masks"))
    ids = [path.stem for path in images]
    images[0].write_bytes(images[0].read_bytes()[:-50])
    masks[1].unlink()
    images[2].unlink()
    mask = pixels(masks[3])
    mask[:4, :4] = (1, 200, 90)
    Image.fromarray(mask).save(masks[3])
    mask = pixels(masks[4])
    mask[0, 0] = (130, 0, 0)
    Image.fromarray(mask).save(masks[4])
    Image.fromarray(pixels(masks[5])[:-1]).save(masks[5])
    grey = pixels(images[6])
    Image.fromarray(np.dstack([grey] * 3 + [grey // 2])).save(images[6])
    Image.fromarray(np.dstack([pixels(images[7])] * 3 + [np.full_like(grey, 255)])).save(images[7])
    for path in (images[8], masks[8]):
        Image.fromarray(pixels(path)[:, 2:]).save(path)
    Image.new("L", (24, 20), 7).save(images[9])
    report = check_dataset(root, workers=1, previews=10)
    result = codes(report)
    assert {
        ("error", "image-unreadable", ids[0]),
        ("error", "image-alone", ""),
        ("error", "mask-alone", ""),
        ("error", "mask-colors", ids[3]),
        ("warning", "mask-doubtful", ids[4]),
        ("warning", "masks-smoothed", ""),
        ("error", "mask-shape", ids[5]),
        ("error", "image-unreadable", ids[6]),
        ("warning", "image-loss", ids[7]),
        ("warning", "slice-sizes", ""),
        ("warning", "image-constant", ids[9]),
    } == {first for first in result if first[0] != "note"}
    said = {finding.code: finding for finding in report.findings}
    assert said["mask-alone"].location == f"train/masks/{ids[2]}.png"
    assert said["image-alone"].location == f"train/images/{ids[1]}.png"
    message = said["mask-colors"].message
    assert message.startswith("16 pixels have colors that no class has ([1, 200, 90] in 16 pixels; the classes have [0")
    assert said["slice-sizes"].message.endswith(f"20x24 (5, {ids[3]}.png first), 20x22 (1, {ids[8]}.png first)")
    assert report.previews[ids[4]].hu.shape == (20, 24, 1)


def test_faults_of_the_kaggle_layout(tmp_path):
    root = phantom(tmp_path, layout="kaggle")
    lines = (root / "train.csv").read_text().splitlines()
    lines[1] = lines[1].rsplit(",", 1)[0] + ",470 20"
    lines[4] = lines[4].replace("stomach", "stomache")
    (root / "train.csv").write_text("\n".join(lines))
    path = sorted((root / "train").rglob("*.png"))[2]
    path.rename(path.with_name("slice_0001_99_98_1.50_1.50.png"))
    result = codes(check_dataset(root, workers=1))
    assert {
        ("error", "runs", "case101_day20_slice_0001"),
        ("error", "unknown-class", ""),
        ("warning", "slice-size", "case102_day20_slice_0001"),
    } <= result


def test_each_of_several_broken_masks_is_named(tmp_path):
    root = phantom(tmp_path, layout="classes")
    for name in ("stomach", "large_bowel"):
        file = sorted((root / "masks" / name).iterdir())[0]
        Image.fromarray((np.arange(480).reshape(20, 24) % 7).astype(np.uint8)).save(file)
    report = check_dataset(root, workers=1)
    wrong = [finding.location for finding in report.findings if finding.code == "mask-values"]
    assert wrong == [f"masks/{name}/case101_day20_slice_0001.png" for name in ("large_bowel", "stomach")]


def test_slices_of_a_patient_in_two_subsets_are_an_error(tmp_path):
    root = phantom(tmp_path)
    for folder in ("images", "masks"):
        source = sorted((root / "train" / folder).iterdir())[0]
        source.rename(root / "valid" / folder / source.name)
    assert ("error", "split-patient", "") in codes(check_dataset(root, workers=1))
    assert ("error", "split-patient", "") in codes(check_dataset(root, workers=1, patient=r"case\d+"))
    assert "split-patient" not in {code for _, code, _ in codes(check_dataset(root, workers=1, patient=".*"))}


def test_a_set_without_class_names_for_colors_is_an_error(tmp_path):
    root = phantom(tmp_path)
    (root / "classes.json").unlink()
    report = check_dataset(root, workers=1)
    assert ("error", "layout", "") in codes(report)
    assert "no classes.json names its colors" in next(
        finding.message for finding in report.findings if finding.code == "layout"
    )


def test_slice_sizes_of_no_slices_have_no_findings():
    assert check_slice_sizes({}) == []


def test_the_real_slices_are_sound(real):
    report = check_dataset(real / "png_slices", workers=1)
    assert report.counts()["error"] == report.counts()["warning"] == 0
    assert len(report.checked) == 108


def test_a_preview_of_a_slice_has_the_orientation_of_its_file(tmp_path):
    shape = np.zeros((20, 24), np.uint8)
    shape[:6, 16:] = 255  # upper right
    for name, values in (("images/a_1", shape), ("masks/a_1", np.zeros_like(shape))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    (tmp_path / "classes.json").write_text('{"background": [0, 0, 0], "liver": [255, 0, 0]}')
    listing = collect(tmp_path)
    report = check_slice(CaseJob("a_1", listing.cases[0]), listing.class_colors, preview=True)
    brightness = np.asarray(render_preview(report.preview)).astype(int).sum(-1)
    height, width = brightness.shape
    assert height < width
    assert brightness[: height // 4, -width // 4 :].min() > 600
    assert brightness[height // 2 :].max() < 100
    assert brightness[:, : width // 2].max() < 100


def test_smoothed_pixels_are_counted_by_class(tmp_path):
    codes = {"background": [0, 0, 0], "large_bowel": [255, 255, 0], "small_bowel": [0, 128, 0]}
    label = np.zeros((8, 12), np.uint8)
    label[2:6, 3:9] = 1
    (tmp_path / "classes.json").write_text(json.dumps(codes))
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in (1, 2):
        color = np.array(list(codes.values()), np.uint8)[label]
        color[2, 3:9] = (128, 128, 0)  # halfway to black: nearest to the color of the small bowel
        Image.fromarray(color).save(tmp_path / "masks" / f"a{number}_1.png")
        Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12) + number).save(
            tmp_path / "images" / f"a{number}_1.png"
        )
    report = check_dataset(tmp_path, workers=1)
    (total,) = (finding for finding in report.findings if finding.code == "masks-smoothed")
    assert total.message.startswith("2 masks are smoothed")
    assert total.message.endswith("class: large_bowel 12 (25.0% of it)")
    assert [case.voxels for case in report.cases] == [{"large_bowel": 24}] * 2


@pytest.mark.parametrize("layout", ["split", "folder", "classes", "kaggle"])
def test_a_set_of_black_masks_is_an_error_in_check_and_in_training(tmp_path, layout):
    root = phantom(tmp_path, layout=layout)
    if layout == "kaggle":
        rows = [line.rsplit(",", 1)[0] + "," for line in (root / "train.csv").read_text().splitlines()[1:]]
        (root / "train.csv").write_text("\n".join(["id,class,segmentation", *rows]))
    for path in root.rglob("masks/**/*.png"):
        Image.fromarray(pixels(path) * 0).save(path)
    report = check_dataset(root, workers=1)
    assert {("error", "masks-empty", "")} <= codes(report)
    labels = LabelMap(["stomach", "small_bowel", "large_bowel"])
    with pytest.raises(DataError, match=r"all masks of its training cases are empty, so there is nothing to learn"):
        open_dataset(root, labels, tmp_path / "cache", slices=True)


def test_the_same_slice_in_two_subsets_is_an_error_in_check_and_in_training(tmp_path):
    root = phantom(tmp_path)
    for folder in ("images", "masks"):
        path = sorted((root / "train" / folder).iterdir())[0]
        (root / "valid" / folder / "case900_day1_slice_0001.png").write_bytes(path.read_bytes())
    assert ("error", "split-image", "") in codes(check_dataset(root, workers=1))
    labels = LabelMap(["stomach", "small_bowel", "large_bowel"])
    with pytest.raises(DataError, match="are the same image, and one of them is held out"):
        open_dataset(root, labels, tmp_path / "cache", slices=True)
