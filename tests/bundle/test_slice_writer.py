"""Pictures to masks: with a network whose answer is known by the grey of a pixel, and with a trained one."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from medseg.bundle import BatchPredictor, Bundle, Predictor, SliceWriter
from medseg.bundle.prediction import SlicePrediction, slice_prediction, spacing_of
from medseg.data import slice_items
from medseg.data.masks import flatten_masks
from medseg.errors import DataError, LabelError, MedsegError
from medseg.labels import LabelMap
from medseg.networks import SegFormer
from tests.slices import TINY, Levels, Ranges

NAMES = ("stomach", "small_bowel", "large_bowel")
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]])  # classes.json of the phantom
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture
def predictor(trained_slices):
    found = Predictor(Bundle(trained_slices), {"device": "cpu"}, slices=True)
    found.network = Levels()
    return found


@pytest.fixture(scope="module")
def overlapping(trained_slices, tmp_path_factory):
    """A predictor of structures that may overlap."""
    weights = tmp_path_factory.mktemp("multilabel") / "model.pt"
    torch.save(SegFormer(3, 3, TINY["variant"]).state_dict(), weights)
    overrides = {"device": "cpu", "multilabel": True, "ckpt_path": str(weights)}
    found = Predictor(Bundle(trained_slices), overrides, slices=True)
    found.network = Ranges()
    return found


def noise(shape, seed=0, high=256):
    return np.random.default_rng(seed).integers(0, high, shape)


def save(folder, **pictures):
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in pictures.items():
        Image.fromarray(values).save(folder / f"{name}.png")
    return folder


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def segment(predictor, source, out, **options):
    batch = BatchPredictor(predictor, SliceWriter.of(predictor, out, slice_items(source)), **options)
    return list(batch.run()), batch


def table(out):
    with (out / "pixels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def levels(grey):
    """What `Levels` says of grey values from 0 to 1."""
    return np.abs(grey[..., None] - np.array(Levels.centres)).argmin(axis=-1)


def written(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def test_masks_hold_the_networks_classes_in_the_colors_of_the_data_set(predictor, tmp_path):
    deep = (noise((32, 32), 3, 3000) + 500).astype(np.uint16)
    source = save(
        tmp_path / "in",
        grey=noise((32, 32), 1).astype(np.uint8),
        red=np.stack([noise((32, 32), 2)] * 3, axis=-1).astype(np.uint8),
        scan_slice_0007=deep,
    )
    outcomes, work = segment(predictor, source, tmp_path / "out")
    wanted = {
        "grey": levels(noise((32, 32), 1) / 255),
        "red": levels(noise((32, 32), 2) / 255),
        "scan_slice_0007": levels((deep - deep.min()) / (deep.max() - float(deep.min()))),
    }
    out = tmp_path / "out"
    assert [outcome.result.mask for outcome in outcomes] == [out / "masks" / f"{name}.png" for name in sorted(wanted)]
    for name, label in wanted.items():
        mask = pixels(out / "masks" / f"{name}.png")
        assert mask.dtype == np.uint8
        assert np.mean(mask == label) > 0.998  # a value may lie between two levels
        assert np.array_equal(pixels(out / "colors" / f"{name}.png"), COLOURS[mask])
        assert pixels(out / "overlays" / f"{name}.png").shape[2] == 3
    assert LabelMap.load(out / "label_map.json").structures == NAMES
    assert dict(work.counts) == {"segmented": 3}
    rows = table(out)
    assert [(row["slice"], row["structure"]) for row in rows] == [(id, name) for id in sorted(wanted) for name in NAMES]
    for row in rows:
        mask = pixels(out / "masks" / f"{row['slice']}.png")
        assert int(row["pixels"]) == np.count_nonzero(mask == 1 + NAMES.index(row["structure"]))
        assert row["area_mm2"] == ""  # nobody said how large a pixel is
        assert row["scan"] == ("scan" if row["slice"] == "scan_slice_0007" else "")


def test_masks_equal_the_trained_networks_argmax(trained_slices, tmp_path):
    predictor = Predictor(Bundle(trained_slices), {"device": "cpu"}, slices=True)
    with torch.no_grad():  # one epoch taught it next to nothing: let all classes come out
        predictor.network.decode_head.classifier.weight.mul_(1000)
    source = save(tmp_path / "in", **{f"p{n}": noise((32, 32), n).astype(np.uint8) for n in range(3)})
    segment(predictor, source, tmp_path / "out")
    seen = set()
    for n in range(3):
        image = (noise((32, 32), n)[None] / 255 - MEAN[:, None, None]) / STD[:, None, None]
        with torch.no_grad():
            logits = predictor.network(torch.tensor(image[None], dtype=torch.float32))[0]
        mask = pixels(tmp_path / "out" / "masks" / f"p{n}.png")
        top = logits.topk(2, dim=0).values
        clear = np.asarray(top[0] - top[1] > 1e-5 * logits.abs().max())
        assert clear.mean() > 0.95
        assert np.array_equal(mask[clear], np.asarray(logits.argmax(0))[clear])
        seen |= set(np.unique(mask).tolist())
    assert len(seen) > 1


@pytest.mark.parametrize("shape", [(20, 28), (28, 20), (70, 90), (32, 32)])
def test_a_mark_stays_at_its_position_in_images_of_any_size(predictor, tmp_path, shape):
    rows, columns = shape
    picture = np.zeros(shape, np.uint8)
    top, left, bottom, right = rows // 10, columns // 2, rows // 3, columns - 2
    picture[top:bottom, left:right] = 255
    segment(predictor, save(tmp_path / "in", mark=picture), tmp_path / "out")
    mask = pixels(tmp_path / "out" / "masks" / "mark.png")
    assert mask.shape == shape
    wide = int(np.ceil(max(shape) / 32))  # the border of a mark is grey once it is scaled
    away = np.ones(shape, bool)
    away[max(0, top - wide) : bottom + wide, max(0, left - wide) : right + wide] = False
    assert not mask[away].any()
    assert (mask[top + wide : bottom - wide, left + wide : right - wide] == 3).all()
    assert mask[top + wide : bottom - wide, left + wide : right - wide].size


def times(out, *folders):
    return {path: path.stat().st_mtime_ns for folder in folders for path in (out / folder).rglob("*.png")}


def test_complete_slices_are_not_segmented_again_and_stay_in_the_table(predictor, tmp_path):
    source = save(tmp_path / "in", **{f"p{n}": noise((30, 26), n).astype(np.uint8) for n in range(5)})
    out, parts = tmp_path / "out", ("masks", "colors", "overlays")
    segment(predictor, source, out)
    rows, before = table(out), times(out, *parts)
    outcomes, work = segment(predictor, source, out)
    assert (dict(work.counts), table(out), times(out, *parts)) == ({"existing": 5}, rows, before)
    assert [outcome.result.mask.name for outcome in outcomes] == [f"p{n}.png" for n in range(5)]
    mask = out / "masks" / "p0.png"
    mask.write_bytes(mask.read_bytes()[:60])  # cut short
    Image.fromarray(np.full((30, 26), 4, np.uint8)).save(out / "masks" / "p1.png")  # a class that there is not
    Image.fromarray(np.zeros((26, 30), np.uint8)).save(out / "masks" / "p2.png")  # of another picture
    (out / "overlays" / "p3.png").unlink()
    _, work = segment(predictor, source, out)
    assert dict(work.counts) == {"segmented": 4, "existing": 1}
    assert table(out) == rows
    after = times(out, *parts)
    assert [path for path in before if after[path] == before[path]] == [out / part / "p4.png" for part in parts]
    _, work = segment(predictor, source, out, overwrite=True)
    assert dict(work.counts) == {"segmented": 5}
    assert not set(times(out, *parts).values()) & set(after.values())


def test_structures_that_overlap_have_masks_of_their_own(overlapping, tmp_path):
    grey = noise((32, 32), 5)
    source, out = save(tmp_path / "in", a=grey.astype(np.uint8)), tmp_path / "out"
    segment(overlapping, source, out)
    wanted = [grey / 255 > least for least in (0.25, 0.5, 0.75)]
    for name, one in zip(NAMES, wanted, strict=True):
        assert np.array_equal(pixels(out / "structures" / name / "a.png"), one * 255)
    mask = pixels(out / "masks" / "a.png")
    order = [NAMES.index(name) for name in LabelMap(NAMES).overlap_priority()]
    label = np.zeros((32, 32), int)
    for index in order:
        label[wanted[index]] = index + 1
    assert np.array_equal(mask, label)
    assert np.array_equal(pixels(out / "colors" / "a.png"), COLOURS[label])
    rows = table(out)
    assert [int(row["pixels"]) for row in rows] == [np.count_nonzero(one) for one in wanted]
    _, work = segment(overlapping, source, out)
    assert (work.counts["existing"], table(out)) == (1, rows)  # the parts under others count as before
    (out / "structures" / "small_bowel" / "a.png").unlink()
    assert segment(overlapping, source, out)[1].counts["existing"] == 0
    assert np.array_equal(pixels(out / "structures" / "small_bowel" / "a.png"), wanted[1] * 255)


def test_areas_are_in_the_mm_of_the_names_that_say_them(predictor, tmp_path):
    scans = tmp_path / "in" / "case7" / "case7_day3" / "scans"
    picture = np.zeros((32, 32), np.uint16)
    picture[2:12, 4:9], picture[20:23, 1:3] = 900, 300
    save(scans, **{"slice_0002_32_32_1.50_2.50": picture, "slice_0001_32_32_1.50_2.50": picture.T})
    segment(predictor, tmp_path / "in", tmp_path / "out")
    rows = table(tmp_path / "out")
    assert {(row["slice"], row["scan"]) for row in rows} == {(f"case7_day3_slice_000{n}", "case7_day3") for n in (1, 2)}
    found = {(row["slice"][-1], row["structure"]): (int(row["pixels"]), float(row["area_mm2"])) for row in rows}
    for number in "12":  # 900 is the scan's white, 300 a third of it
        assert found[number, "large_bowel"] == (50, 50 * 1.5 * 2.5)
        assert found[number, "stomach"] == (6, 22.5)
        assert found[number, "small_bowel"] == (0, 0.0)
    assert np.array_equal(pixels(tmp_path / "out/masks/case7_day3_slice_0001.png") == 3, picture.T == 900)


def test_only_requested_structures_come_out(trained_slices, tmp_path):
    predictor = Predictor(Bundle(trained_slices), {"device": "cpu"}, only=["small_bowel"], slices=True)
    predictor.network = Levels()
    grey = noise((32, 32), 1)
    segment(predictor, save(tmp_path / "in", a=grey.astype(np.uint8)), tmp_path / "out")
    mask = pixels(tmp_path / "out" / "masks" / "a.png")
    assert set(np.unique(mask)) == {0, 2}
    assert np.mean((mask == 2) == (levels(grey / 255) == 2)) > 0.998
    assert [int(row["pixels"]) for row in table(tmp_path / "out")] == [0, np.count_nonzero(mask), 0]
    assert segment(predictor, tmp_path / "in", tmp_path / "out")[1].counts["existing"] == 1
    whole = Predictor(Bundle(trained_slices), {"device": "cpu"}, slices=True)
    whole.network = Levels()
    for work, found in ((whole, {0, 1, 2, 3}), (predictor, {0, 2})):  # a mask of other structures is no mask of these
        assert segment(work, tmp_path / "in", tmp_path / "out")[1].counts["existing"] == 0
        assert set(np.unique(pixels(tmp_path / "out" / "masks" / "a.png"))) == found


def test_partial_files_of_a_killed_process_are_removed_and_nothing_else(predictor, tmp_path):
    out = tmp_path / "out"
    left = ["masks/.a.12ab34cd.partial.png", "structures/stomach/.a.12ab34cd.partial.png", ".pixels.0a.partial.csv"]
    others = ["runs/one/checkpoints/.last.0a.partial.pt", ".notes.0a.partial.txt", "masks/old.png"]
    for name in (*left, *others):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    segment(predictor, save(tmp_path / "in", a=noise((32, 32)).astype(np.uint8)), out)
    own = [f"{folder}/a.png" for folder in ("masks", "colors", "overlays")] + ["label_map.json", "pixels.csv"]
    assert written(out) == sorted(own + others)


def test_an_error_of_one_slice_stops_no_other(predictor, tmp_path):
    source = save(tmp_path / "in", **{f"p{n}": noise((32, 32), n).astype(np.uint8) for n in range(3)})
    broken = source / "p1.png"
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 0xFF
    broken.write_bytes(content)
    outcomes, work = segment(predictor, source, tmp_path / "out")
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, MedsegError)
    assert str(outcomes[1].error).startswith(f"{broken}: the checksum of the IDAT chunk is wrong")
    assert dict(work.counts) == {"segmented": 2, "failed": 1}
    assert {row["slice"] for row in table(tmp_path / "out")} == {"p0", "p2"}
    assert [path.name for path in sorted((tmp_path / "out" / "masks").iterdir())] == ["p0.png", "p2.png"]


def test_the_bundles_own_config_writes_the_same_files(trained_slices, tmp_path):
    scans = tmp_path / "in" / "case7" / "case7_day3" / "scans"
    save(scans, **{f"slice_000{n}_40_30_1.50_1.25": (noise((30, 40), n, 999)).astype(np.uint16) for n in (1, 2, 3)})
    overrides = {"device": "cpu", "dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "eval")}
    parser = Bundle(trained_slices).resolve("inference", overrides)
    evaluator = parser.get_parsed_content("evaluator")
    evaluator.network.decode_head.classifier.weight.data.mul_(40)
    evaluator.run()
    predictor = Predictor(Bundle(trained_slices), {"device": "cpu"}, slices=True)
    predictor.network.decode_head.classifier.weight.data.mul_(40)
    segment(predictor, tmp_path / "in", tmp_path / "out")
    assert len(np.unique(np.stack([pixels(path) for path in (tmp_path / "out" / "masks").iterdir()]))) > 1
    assert written(tmp_path / "eval") == written(tmp_path / "out")
    assert len(written(tmp_path / "out")) == 3 * 3 + 2
    for name in written(tmp_path / "out"):
        assert (tmp_path / "eval" / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name
    assert float(table(tmp_path / "out")[0]["area_mm2"]) == int(table(tmp_path / "out")[0]["pixels"]) * 1.875


@pytest.mark.parametrize("kind", ["grey", "color", "deep", "palette"])
def test_an_overlay_lies_on_the_pixels_of_its_image(tmp_path, kind):
    generator = np.random.default_rng(3)
    values = generator.integers(0, 256, (30, 41) if kind != "color" else (30, 41, 3)).astype(np.uint8)
    shown = values if kind == "color" else np.repeat(values[..., None], 3, 2)
    image = Image.fromarray(values)
    if kind == "deep":
        image = Image.fromarray(values.astype(np.uint16) * 7 + 100)
        low, high = np.percentile(values, [0.5, 99.5])
        shown = np.repeat((np.clip((values - low) / (high - low), 0, 1) * 255).round()[..., None], 3, 2)
    if kind == "palette":
        colors = generator.integers(0, 256, (256, 3)).astype(np.uint8)
        image.putpalette(colors.ravel().tolist())
        shown = colors[values]
    image.save(tmp_path / "a.png")
    label = np.zeros((30, 41), np.uint8)
    label[10:20, 5:25] = 1
    labels = LabelMap(["liver"])
    writer = SliceWriter(tmp_path / "out", labels, previews=True)
    writer.begin()
    writer.write({}, SlicePrediction("a", tmp_path / "a.png", label, labels))
    result = pixels(tmp_path / "out" / "overlays" / "a.png").astype(float)
    expected = shown.astype(float)
    expected[10:20, 5:25] = labels.color(1)
    inside = (slice(11, 19), slice(6, 24))
    expected[inside] = (shown[inside] + np.array(labels.color(1))) / 2
    assert result.shape == (30, 41, 3)
    assert np.abs(result - expected).max() <= 1
    assert pixels(tmp_path / "out" / "previews" / "a.png").shape[0] > 300  # a panel


def test_colors_that_do_not_fit_are_refused(tmp_path):
    labels, path = LabelMap(["liver", "spleen"]), tmp_path / "classes.json"
    assert labels.with_colors(path) is labels
    path.write_text(json.dumps({"spleen": [1, 2, 3], "liver": [4, 5, 6], "other": [7, 8, 9]}))
    colored = labels.with_colors(path)
    assert colored == labels
    assert [colored.color(index) for index in range(3)] == [(0, 0, 0), (4, 5, 6), (1, 2, 3)]
    wrong = {"{}": "color to each class", "[]": "color to each class", "no json": "color to each class"}
    wrong[json.dumps({"liver": [1, 2, 3], "spleen": [1, 2, 300]})] = "three numbers from 0 to 255"
    wrong[json.dumps({"liver": [1, 2], "spleen": [1, 2]})] = "three numbers from 0 to 255"
    wrong[json.dumps({"liver": 1, "spleen": 2})] = "color to each class"
    for text, message in wrong.items():
        path.write_text(text)
        with pytest.raises(LabelError, match=rf"classes\.json: .*{message}"):
            labels.with_colors(path)


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path):
    save(tmp_path, a=np.zeros((6, 8), np.uint8))
    item, labels = {"image": str(tmp_path / "a.png"), "case": "x"}, LabelMap(["liver"])
    assert slice_prediction(torch.ones(1, 6, 8, dtype=torch.uint8), item, labels, False).pixels() == {"liver": 48}
    for shape in ((1, 8, 6), (2, 6, 8), (6, 8)):
        with pytest.raises(DataError, match=r"a\.png: the mask must have 6 rows and 8 columns"):
            slice_prediction(torch.ones(shape, dtype=torch.uint8), item, labels, False)
    with pytest.raises(LabelError):
        slice_prediction(torch.ones(1, 6, 8, dtype=torch.uint8), item, labels, False, only=["spleen"])


def test_spacing_and_flattening():
    assert spacing_of({"spacing": [1.5, 2]}) == (1.5, 2.0)
    assert spacing_of({"spacing": (1.0, 1.0)}) == (1.0, 1.0)
    assert spacing_of({}) is None
    masks = np.array([[[1, 1, 0]], [[0, 1, 1]]], bool)
    assert flatten_masks(masks, LabelMap(["kidney_left", "kidney_cyst_left"])).tolist() == [[1, 2, 2]]
    assert flatten_masks(masks, LabelMap(["kidney_cyst_left", "kidney_left"])).tolist() == [[1, 1, 2]]


def test_masks_of_other_classes_are_never_mixed(predictor, tmp_path, monkeypatch):
    source, out = save(tmp_path / "in", a=noise((32, 32)).astype(np.uint8)), tmp_path / "out"
    segment(predictor, source, out)
    before = {name: (out / name).read_bytes() for name in written(out)}
    monkeypatch.setattr(predictor, "labels", LabelMap(["liver", "kidney", "pancreas"]))
    monkeypatch.setattr(predictor, "root", tmp_path)  # whose classes have no colours of their own
    with pytest.raises(DataError, match="the masks in the folder are of other classes, see"):
        segment(predictor, source, out, overwrite=True)
    assert {name: (out / name).read_bytes() for name in written(out)} == before


def test_the_table_keeps_earlier_rows_as_long_as_their_masks_exist(predictor, tmp_path):
    out = tmp_path / "out"
    for name in ("a", "b", "c"):
        segment(predictor, save(tmp_path / name, **{name: noise((32, 32)).astype(np.uint8)}), out)
        if name == "a":
            first = table(out)
        if name == "b":
            (out / "masks" / "b.png").unlink()
    assert [row for row in table(out) if row["slice"] == "a"] == first
    assert {row["slice"] for row in table(out)} == {"a", "c"}


def test_more_than_255_classes_have_indices_of_16_bits(tmp_path):
    labels = LabelMap([f"class_{index}" for index in range(1, 300)])
    source = save(tmp_path / "in", a=noise((4, 5)).astype(np.uint8)) / "a.png"
    wanted = np.arange(280, 300).reshape(4, 5)
    item = {"image": str(source)}
    found = slice_prediction(torch.from_numpy(wanted)[None], item, labels, False)
    writer = SliceWriter(tmp_path / "out", labels)
    assert np.array_equal(pixels(writer.write(item, found).mask), wanted)
    existing = writer.existing({"case": "a", "image": str(source)})
    assert np.array_equal(existing.label, wanted)
    assert existing.pixels() == found.pixels()


def test_a_structure_called_like_a_folder_is_a_structure(tmp_path):
    labels = LabelMap(["masks", "colors"])
    source = save(tmp_path / "in", a=noise((2, 3)).astype(np.uint8)) / "a.png"
    channels = torch.tensor([[[1, 1, 0], [0, 0, 0]], [[0, 1, 1], [0, 0, 0]]])
    writer = SliceWriter(tmp_path / "out", labels, multilabel=True)
    item = {"image": str(source)}
    writer.write(item, slice_prediction(channels, item, labels, True))
    assert (pixels(tmp_path / "out" / "structures" / "masks" / "a.png") > 0).tolist() == channels[0].bool().tolist()
    assert sorted(np.unique(pixels(tmp_path / "out" / "masks" / "a.png"))) == [0, 1, 2]
