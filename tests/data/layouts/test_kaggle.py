import logging
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medseg.data import SlicePhantomSpec, discover, write_slice_phantom
from medseg.data.layouts.kaggle import decode_runs, encode_runs
from medseg.errors import DataError, LabelError


@pytest.fixture
def root(tmp_path):
    return write_slice_phantom(
        tmp_path / "set", SlicePhantomSpec(layout="kaggle", bits=16, train=1, val=1, slices=3, size=(20, 24))
    )


def first(root):
    return sorted((root / "train").rglob("*.png"))[0]


def rows(root, change):
    table = root / "train.csv"
    table.write_text("\n".join(change(table.read_text().splitlines())) + "\n")


def test_cases_patients_numbers_and_spacing_come_from_the_names(root):
    result = discover(root)
    one = result.case("case102_day20_slice_0002")
    assert (one.patient, one.slice.scan, one.slice.number) == ("case102", "case102_day20", 2)
    assert one.slice.spacing == (1.5, 1.5)
    assert result.structures == ("large_bowel", "small_bowel", "stomach")
    assert one.annotated == result.structures
    assert len(result.cases) == 6
    assert not result.split
    split = result.with_split().split
    assert {id[:7] for id in split.train} != {id[:7] for id in split.val}


@pytest.mark.parametrize(("sizes", "spacing"), [("24_20", (1.25, 2.0)), ("20_24", (2.0, 1.25))])
def test_the_image_decides_the_order_of_different_spacings(root, sizes, spacing):
    path = first(root)
    path.rename(path.with_name(f"slice_0001_{sizes}_2.00_1.25.png"))
    assert discover(root).cases[0].slice.spacing == spacing


def test_images_without_rows_are_refused_and_rows_without_images_counted(root, caplog):
    path = first(root)
    image = path.read_bytes()
    path.unlink()
    with caplog.at_level(logging.WARNING):
        assert len(discover(root).cases) == 5
    assert "1 of its slices have no image and are left out, case101_day20_slice_0001 first" in caplog.text
    path.write_bytes(image)
    rows(root, lambda lines: [line for line in lines if not line.startswith("case101_day20_slice_0001")])
    with pytest.raises(DataError, match=r"slice_0001_.*train\.csv has no row of case101_day20_slice_0001"):
        discover(root)


def test_an_unknown_class_is_named(root):
    rows(root, lambda lines: [line.replace("0001,stomach", "0001,stomache") for line in lines])
    with pytest.raises(
        LabelError, match=r"'stomache' \(row of case101_day20_slice_0001\) is not one of .* Did you mean 'stomach'"
    ):
        discover(root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: ["id,label,x", *lines[1:]], "needs the columns id, class, segmentation and has id,label,x"),
        (lambda lines: [*lines, lines[1]], "is a second row of case101_day20_slice_0001"),
        (lambda lines: [*lines, "case1"], "line 20 is truncated"),
    ],
)
def test_a_broken_table_is_refused(root, change, said):
    rows(root, change)
    with pytest.raises(DataError, match=said):
        discover(root)


def test_other_names_are_refused(root):
    first(root).rename(first(root).with_name("picture.png"))
    with pytest.raises(DataError, match=r"picture\.png: the image must be named slice_SSSS_"):
        discover(root)


def test_test_slices_have_no_labels(root):
    folder = root / "test" / "case7" / "case7_day1" / "scans"
    folder.mkdir(parents=True)
    Image.new("I;16", (24, 20)).save(folder / "slice_0001_24_20_1.50_1.50.png")
    result = discover(root)
    assert result.split.test == ("case7_day1_slice_0001",)
    assert result.case("case7_day1_slice_0001").slice.runs is None


@pytest.mark.long
def test_a_set_as_large_as_the_real_one_is_found_in_seconds(tmp_path):
    lines = ["id,class,segmentation"]
    runs = " ".join(f"{start} 7" for start in range(1, 6000, 100))
    count = 0
    for case in range(85):
        for day in range(3):
            scan = f"case{case}_day{day}"
            folder = tmp_path / "train" / f"case{case}" / scan / "scans"
            folder.mkdir(parents=True)
            for k in range(1, 152):
                (folder / f"slice_{k:04d}_266_266_1.50_1.50.png").touch()
                lines += [f"{scan}_slice_{k:04d},{name},{runs}" for name in ("large_bowel", "small_bowel", "stomach")]
                count += 1
    (tmp_path / "train.csv").write_text("\n".join(lines))
    start = time.perf_counter()
    result = discover(tmp_path)
    assert len(result.cases) == count > 38_000
    assert len(result.with_split().items("train", context=1)) + len(result.with_split().split.val) == count
    assert time.perf_counter() - start < 60
    assert np.isfinite(result.cases[0].slice.spacing).all()


@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_encoding_and_decoding_give_the_same_mask(rows, columns, seed):
    mask = np.random.default_rng(seed).random((rows, columns)) < 0.5
    assert np.array_equal(decode_runs(encode_runs(mask), mask.shape), mask)


def test_runs_go_along_the_rows_from_one():
    assert np.argwhere(decode_runs("4 2", (3, 4))).tolist() == [[0, 3], [1, 0]]
    assert not decode_runs("", (3, 4)).any()


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("12 2", r"the run '12 2' ends at pixel 13, beyond the image of 3 x 4 = 12 pixels"),
        ("1 2 3", "pairs"),
        ("0 2", "begin at pixel 1"),
        ("3 0", "begin at pixel 1"),
        ("a b", "integers"),
    ],
)
def test_runs_that_cannot_be_are_refused(runs, message):
    with pytest.raises(DataError, match=message) as error:
        decode_runs(runs, (3, 4), "train.csv, case1")
    assert "train.csv, case1" in str(error.value)


@pytest.mark.parametrize(("runs", "pixel"), [("1 4 3 2", 3), ("5 2 1 5", 5), ("7 1 7 1", 7)])
def test_runs_that_overlap_are_damaged(runs, pixel):
    with pytest.raises(DataError, match=rf"two runs overlap at pixel {pixel}\."):
        decode_runs(runs, (3, 4))
