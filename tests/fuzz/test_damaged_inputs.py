"""Damaged and odd inputs by the thousand: a clear error or a right result, never a traceback, a hang or a wrong mask.

The ordinary run tries a few hundred of them, `-m long` two thousand; the draws are the same each time.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import logging
import shutil
import signal
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medseg.data import check_dataset, discover
from medseg.data.layouts.kaggle import decode_runs, encode_runs
from medseg.data.volumes import read_volume
from medseg.errors import MedsegError
from medseg.inspection import inspect_bundle
from medseg.labels import LabelMap

SECONDS = 60  # no input here takes one on an idle machine
COUNTS = [pytest.param(30, id="some"), pytest.param(250, id="many", marks=pytest.mark.long)]
VOXELS = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
AFFINE = np.array([[-1.5, 0, 0, 20], [0, 1.5, 0, -30], [0, 0, 3, 100], [0, 0, 0, 1.0]])
ODD_TEXTS = [
    "",
    " ",
    "..",
    "../up",
    "a/b",
    "nul",
    "\0",
    "é",
    "e\u0301",
    "x" * 300,
    "@x",
    "$1",
    "%a",
    "NaN",
    "1e999",
    "-1",
]
ODD_VALUES = [None, True, -1, 0, 1.5, 10**30, [], {}, [[]], {"": 0}, *ODD_TEXTS]

byte_edits = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.integers(0, 10**6), st.integers(0, 7)),
        st.tuples(
            st.just("write"), st.integers(0, 10**6), st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xf0\0\0", b"-"])
        ),
        st.tuples(st.just("cut"), st.integers(0, 10**6), st.integers(1, 400)),
        st.tuples(st.just("end"), st.integers(0, 10**6), st.just(0)),
        st.tuples(st.just("double"), st.integers(0, 10**6), st.integers(1, 100)),
    ),
    min_size=1,
    max_size=4,
)


def edited(content: bytes, edits: list[tuple[str, int, Any]]) -> bytes:
    """Return the bytes with the edits made, at positions taken modulo the length."""
    data = bytearray(content)
    for kind, position, value in edits:
        position %= max(1, len(data))
        if kind == "flip":
            data[position : position + 1] = bytes(byte ^ 1 << value for byte in data[position : position + 1])
        elif kind == "write":
            data[position : position + len(value)] = value
        elif kind == "cut":
            del data[position : position + value]
        elif kind == "end":
            del data[position:]
        else:
            data[position:position] = data[position : position + value]
    return bytes(data)


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Fail after a minute, where the system has alarms."""

    def stop(*_: object) -> None:
        raise TimeoutError("this input hangs")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def attempt(read: Callable[[], Any]) -> Any | None:
    """Return what reading gives, or None for one clear error of ours; any other exception fails the test."""
    with in_time(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read()
        except MedsegError as error:
            text = str(error)
            assert ": " in text
            assert "\n" not in text.strip()
            assert not any(ord(letter) < 32 for letter in text), "control characters would reach the terminal"
            return None


def fuzz(test: Callable[..., None], count: int, *strategies: st.SearchStrategy[Any]) -> None:
    """Run a test on that many draws, the same each time."""
    logging.disable(logging.WARNING)
    try:
        checks = list(HealthCheck)
        settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=checks)(
            given(*strategies)(test)
        )()
    finally:
        logging.disable(logging.NOTSET)


def nifti_bytes() -> bytes:
    image = nib.Nifti1Image(VOXELS, AFFINE)
    image.header.set_xyzt_units("mm")
    return bytes(image.to_bytes())


HEADER_FIELDS = [name for name in nib.Nifti1Header().structarr.dtype.names if name not in ("sizeof_hdr",)]


@pytest.mark.parametrize("count", COUNTS)
def test_a_nifti_with_an_odd_header_is_read_as_nibabel_reads_it_or_refused(count):
    odd = st.sampled_from(
        [0, 1, -1, 2, 3, 4, 5, 7, 255, 1e-30, 1e30, float("nan"), float("inf"), 0.5, 352, 32767, -32768]
    )

    def test(changes: list[tuple[str, int, float]]) -> None:
        content = bytearray(nifti_bytes())
        header = np.frombuffer(bytes(content[:348]), nib.Nifti1Header().structarr.dtype.newbyteorder("<")).copy()
        for name, place, value in changes:
            field = header[name]
            if field.dtype.kind in "SV":
                content_of = f"{value}".encode()
                header[name] = content_of
                continue
            kind = field.dtype
            number = np.nan_to_num(value, posinf=2**15 - 1) if kind.kind in "iu" else value
            if kind.kind in "iu":
                number = np.clip(number, np.iinfo(kind).min, np.iinfo(kind).max)
            flat = field.reshape(-1)
            flat[place % flat.size] = number
            header[name] = flat.reshape(field.shape)
        content[:348] = header.tobytes()
        with temporary() as folder:
            path = folder / "scan.nii"
            path.write_bytes(content)
            result = attempt(lambda: read_volume(path))
            if result is None:
                return
            voxels, grid = result
            image = nib.load(path)
            assert np.isfinite(voxels).all()
            assert np.isfinite(grid.affine).all()
            offset = int(image.header["vox_offset"])
            if offset >= 352:
                np.testing.assert_allclose(voxels, np.asarray(image.dataobj).reshape(voxels.shape), rtol=1e-6)
            units = {1: 1000.0, 3: 0.001}.get(int(image.header["xyzt_units"]) % 8, 1.0)  # mm a unit
            scale = np.diag([units, units, units, 1.0])
            np.testing.assert_allclose(grid.affine, scale @ image.affine, atol=1e-3 * units, rtol=1e-5)

    changes = st.tuples(st.sampled_from(HEADER_FIELDS), st.integers(0, 9), odd)
    fuzz(test, count, st.lists(changes, min_size=1, max_size=3))


@pytest.mark.parametrize("count", COUNTS)
def test_no_voxels_come_from_a_compressed_file_whose_bytes_were_damaged(count):
    packed = gzip.compress(nifti_bytes(), mtime=0)

    def test(edits: list[tuple[str, int, Any]]) -> None:
        content = edited(packed, edits)
        with temporary() as folder:
            path = folder / "scan.nii.gz"
            path.write_bytes(content)
            result = attempt(lambda: read_volume(path))
            if result is not None:  # only what is no part of the content, such as the date, was changed
                np.testing.assert_array_equal(result[0], VOXELS)
                np.testing.assert_allclose(result[1].affine, AFFINE)

    fuzz(test, count, byte_edits)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_no_voxels_come_from_a_damaged_nrrd_or_metaimage(count, suffix):
    data = zlib.compress(VOXELS.tobytes(order="F"))
    if suffix == ".nrrd":
        data = gzip.compress(VOXELS.tobytes(order="F"), mtime=0)
        header = (
            "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 5 4\n"
            "space directions: (1.5,0,0) (0,1.5,0) (0,0,3)\nkinds: domain domain domain\nendian: little\n"
            "encoding: gzip\nspace origin: (0,0,0)\n\n"
        )
    else:
        header = (
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = True\n"
            f"CompressedDataSize = {len(data)}\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
            "ElementSpacing = 1.5 1.5 3\nDimSize = 6 5 4\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        )

    def test(edits: list[tuple[str, int, Any]], of_header: bool) -> None:
        head, body = (edited(header.encode(), edits), data) if of_header else (header.encode(), edited(data, edits))
        with temporary() as folder:
            path = folder / f"scan{suffix}"
            path.write_bytes(head + body)
            result = attempt(lambda: read_volume(path))
            if result is None:
                return
            assert np.isfinite(result[0]).all()
            if not of_header:
                np.testing.assert_array_equal(result[0], VOXELS)

    fuzz(test, count // 2, byte_edits, st.booleans())


DICOM_KEYS = {
    "SOPClassUID": ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7", "1.2.3", ""],
    "Modality": ["CT", "MR", "OT", "", "ct"],
    "SliceThickness": [3, 0, -1, "nan", "", "x"],
    "SeriesInstanceUID": ["1.2.3.4", "1.2.3.5", ""],
    "ImagePositionPatient": [(0.0, 0.0, 0.0), (0.0, 0.0, 3.0), None, ("nan", 0, 0), (1e30, 0, 0), (0.0, 0.0)],
    "ImageOrientationPatient": [
        (1, 0, 0, 0, 1, 0),
        (0, 0, 0, 0, 0, 0),
        (1, 0, 0, 1, 0, 0),
        None,
        (1, 0, 0),
        ("x",) * 6,
    ],
    "SamplesPerPixel": [1, 3, 0, None],
    "PhotometricInterpretation": ["MONOCHROME2", "MONOCHROME1", "RGB", "PALETTE COLOR", ""],
    "Rows": [4, 0, 65535, 5, None],
    "Columns": [5, 0, 65535, 4, None],
    "PixelSpacing": [(1, 1), (0, 0), (-1, 1), ("nan", 1), None, (1,), (1e9, 1)],
    "BitsAllocated": [16, 8, 32, 0, 12, None],
    "BitsStored": [16, 12, 8, 17, 0, None],
    "HighBit": [15, 11, 0, 16, None],
    "PixelRepresentation": [1, 0, 2, None],
    "RescaleIntercept": [-1024, 0, "nan", "inf", None, "x", "1e300"],
    "RescaleSlope": [1, 0, -1, 0.5, "nan", None],
}


@pytest.mark.parametrize("count", COUNTS)
def test_a_series_with_odd_tags_is_read_as_pydicom_reads_it_or_refused(count, tmp_path, save_dicom):
    hu = np.clip(VOXELS, -1000, 900)

    def test(changes: dict[str, int], slices: int) -> None:
        for path in tmp_path.glob("*"):
            shutil.rmtree(path)
        values = {name: DICOM_KEYS[name][index % len(DICOM_KEYS[name])] for name, index in changes.items()}
        good = {"RescaleIntercept": -1024.0, "RescaleSlope": 1.0}
        folder = save_dicom("series", hu)
        for path in sorted(folder.iterdir())[: slices or None]:
            dataset = pydicom.dcmread(path, force=True)
            for name, value in values.items():
                element = pydicom.dataelem.RawDataElement
                tag = pydicom.datadict.tag_for_keyword(name)
                kind = pydicom.datadict.dictionary_VR(tag)
                if value is None:
                    dataset.pop(tag, None)
                    continue
                if kind == "US":
                    coded = int(value).to_bytes(2, "little")
                else:
                    coded = "\\".join(map(str, value if isinstance(value, tuple) else (value,))).encode()
                dataset[tag] = element(tag, kind, len(coded), coded, 0, False, True)
            dataset.save_as(path)
        result = attempt(lambda: read_volume(folder))
        if result is None:
            return
        voxels, grid = result
        assert np.isfinite(voxels).all()
        for k, path in enumerate(sorted(folder.iterdir(), reverse=True)):
            dataset = pydicom.dcmread(path)
            if not dataset.SOPClassUID.endswith(".5.1.4.1.1.2"):
                continue  # another object beside the series
            slope = float(dataset.get("RescaleSlope", good["RescaleSlope"]))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = dataset.pixel_array.T * slope + float(dataset.get("RescaleIntercept", 0))
            depth = float(dataset.ImagePositionPatient[2])
            index = round(
                float(
                    (np.linalg.inv(grid.affine) @ [*(-np.array(dataset.ImagePositionPatient[:2], float)), depth, 1])[2]
                )
            )
            assert 0 <= index < voxels.shape[2], k
            plane = voxels[:, :, index]
            assert any(
                plane.shape == turned.shape and np.allclose(plane, turned)
                for turned in (expected, expected[::-1], expected[:, ::-1], expected[::-1, ::-1])
            )

    fuzz(
        test,
        count,
        st.dictionaries(st.sampled_from(sorted(DICOM_KEYS)), st.integers(0, 6), min_size=1, max_size=3),
        st.integers(0, 3),
    )


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_dicom_file_gives_no_traceback(count, tmp_path, save_dicom):
    folder = save_dicom("series", np.clip(VOXELS, -1000, 900))
    file = sorted(folder.iterdir())[1]
    content = file.read_bytes()

    def test(edits: list[tuple[str, int, Any]]) -> None:
        file.write_bytes(edited(content, edits))
        result = attempt(lambda: read_volume(folder))
        assert result is None or (np.isfinite(result[0]).all() and result[0].ndim == 3)

    fuzz(test, count, byte_edits)


def mutated(tree: Any, draws: list[tuple[int, int]]) -> Any:
    """Return a copy of a JSON tree with values replaced, keys renamed and entries dropped."""
    tree = json.loads(json.dumps(tree))
    for position, choice in draws:
        places: list[tuple[Any, Any]] = []
        stack = [tree]
        while stack:
            node = stack.pop()
            keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
            for key in keys:
                places.append((node, key))
                stack.append(node[key])
        if not places:
            return tree
        node, key = places[position % len(places)]
        if choice % 7 == 0:
            del node[key]
        elif choice % 7 == 1 and isinstance(node, dict):
            node[ODD_TEXTS[choice % len(ODD_TEXTS)]] = node.pop(key)
        else:
            node[key] = copy.deepcopy(ODD_VALUES[choice % len(ODD_VALUES)])
    return tree


tree_edits = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**4)), min_size=1, max_size=3)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("config", ["inference", "train", "metadata"])
def test_inspecting_a_bundle_with_a_broken_config_gives_findings(count, config, repository):
    tree = json.loads((repository / f"bundles/unet2d/configs/{config}.json").read_text())

    def test(edits: list[tuple[int, int]]) -> None:
        with temporary() as folder:
            shutil.copytree(repository / "bundles/unet2d", folder / "unet2d", ignore=shutil.ignore_patterns("models"))
            (folder / f"unet2d/configs/{config}.json").write_text(json.dumps(mutated(tree, edits)))
            attempt(lambda: inspect_bundle(folder / "unet2d"))

    fuzz(test, count // 3, tree_edits)


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_zip_is_refused_or_read(count, repository):
    with temporary() as folder:
        with zipfile.ZipFile(folder / "bundle.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted((repository / "bundles/unet2d").rglob("*.json")):
                file.write(path, f"unet2d/{path.relative_to(repository / 'bundles/unet2d').as_posix()}")
        content = (folder / "bundle.zip").read_bytes()

    def test(edits: list[tuple[str, int, Any]], from_end: bool) -> None:
        if from_end:  # the table of a zip stands at its end
            edits = [(kind, len(content) - 1 - position % 1500, value) for kind, position, value in edits]
        with temporary() as folder:
            (folder / "bundle.zip").write_bytes(edited(content, edits))
            attempt(lambda: inspect_bundle(folder / "bundle.zip"))

    fuzz(test, count, byte_edits, st.booleans())


@pytest.mark.parametrize("count", COUNTS)
def test_broken_descriptions_of_data_sets_are_refused_or_read(count, tmp_path, save):
    for split in ("imagesTr/a_0000", "labelsTr/a", "imagesTr/b_0000", "labelsTr/b"):
        save(f"nnunet/{split}.nii.gz", np.zeros((4, 4, 4), np.uint8))
    nnunet = {
        "channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "spleen": 2},
        "numTraining": 2, "file_ending": ".nii.gz",
    }  # fmt: skip
    entries = [{"image": f"imagesTr/{id}_0000.nii.gz", "label": f"labelsTr/{id}.nii.gz"} for id in "ab"]
    datalist = {"labels": {"0": "background", "1": "liver"}, "training": entries, "validation": entries[1:]}

    def test(edits: list[tuple[int, int]], as_datalist: bool, damage: list[tuple[str, int, Any]] | None) -> None:
        path = tmp_path / "nnunet" / ("datalist.json" if as_datalist else "dataset.json")
        content = json.dumps(mutated(datalist if as_datalist else nnunet, edits)).encode()
        path.write_bytes(content if damage is None else edited(content, damage))
        attempt(lambda: discover(path if as_datalist else path.parent))
        path.unlink()

    fuzz(test, count, tree_edits, st.booleans(), st.none() | byte_edits)


@pytest.mark.parametrize("count", COUNTS)
def test_broken_label_maps_are_refused_or_read(count, tmp_path):
    path = tmp_path / "label_map.json"

    def test(edits: list[tuple[int, int]], damage: list[tuple[str, int, Any]] | None) -> None:
        content = json.dumps(mutated({"0": "background", "1": "liver", "2": "spleen"}, edits)).encode()
        path.write_bytes(content if damage is None else edited(content, damage))
        labels = attempt(lambda: LabelMap.load(path))
        assert labels is None or all(labels.index(name) == index for index, name in enumerate(labels, 1))

    fuzz(test, count, tree_edits, st.none() | byte_edits)


@pytest.mark.parametrize("count", COUNTS)
def test_broken_runs_are_refused_or_decode_to_what_they_say(count):
    mask = np.zeros((12, 9), bool)
    mask[2:7, 3:6] = True

    def test(edits: list[tuple[str, int, Any]]) -> None:
        text = edited(encode_runs(mask).encode(), edits).decode("latin-1")
        decoded = attempt(lambda: decode_runs(text, mask.shape))
        if decoded is not None:
            numbers = [int(number) for number in text.split()]
            assert decoded.sum() == sum(numbers[1::2])

    fuzz(test, count, byte_edits)


@pytest.mark.parametrize("count", COUNTS)
def test_a_broken_table_of_cases_gives_findings_or_one_error(count, case):
    path = case / "meta.csv"
    content = b"image_id;age;gender;split;patient\ns0001;60;m;train;p1\ns0002;61;f;val;p2\n"

    def test(edits: list[tuple[str, int, Any]]) -> None:
        path.write_bytes(edited(content, edits))
        attempt(lambda: discover(case))

    fuzz(test, count, byte_edits)


@pytest.mark.parametrize("count", COUNTS)
def test_the_check_of_a_set_survives_damaged_masks(count, case):
    path = case / "s0001/segmentations/liver.nii.gz"
    content = gzip.decompress(path.read_bytes())

    def test(edits: list[tuple[str, int, Any]], packed: bool) -> None:
        path.write_bytes(edited(gzip.compress(content), edits) if packed else gzip.compress(edited(content, edits)))
        report = attempt(lambda: check_dataset(case, workers=0))
        assert report is not None

    fuzz(test, count // 3, byte_edits, st.booleans())
