"""The doctor: one fault a case, made in a real one, each found by its own code, and nothing said of the sound ones."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medseg.data import check, check_dataset
from medseg.data.check import DatasetReport
from medseg.data.scan_rules import RULES
from medseg.errors import DataError, RunError
from medseg.findings import Finding

pytestmark = pytest.mark.slow

STRUCTURES = (
    "aorta", "colon", "gallbladder", "hip_left", "hip_right", "iliopsoas_left", "iliopsoas_right", "kidney_left",
    "kidney_right", "liver", "rib_left_9", "rib_left_10", "rib_left_11", "rib_left_12", "spleen", "vertebrae_L1",
    "vertebrae_L2", "vertebrae_L3", "vertebrae_L4",
)  # fmt: skip
AIR_SLICES = 2  # above and below, so that the ribs of the cut scan end inside of it


@dataclass
class Patient:
    """A case on disk that a test may break."""

    folder: Path

    @property
    def ct(self) -> Path:
        return self.folder / "ct.nii.gz"

    def mask(self, name: str) -> Path:
        return self.folder / "segmentations" / f"{name}.nii.gz"

    def files(self) -> list[Path]:
        return [self.ct, *self.folder.glob("segmentations/*.nii.gz")]

    def write(self, path: Path, array: np.ndarray, **header) -> None:
        image = nib.load(path)
        new = nib.Nifti1Image(array, header.pop("affine", image.affine))
        for key, value in header.items():
            new.header[key] = value
        path.unlink()
        nib.save(new, path)

    def voxels(self, path: Path) -> np.ndarray:
        return np.asarray(nib.load(path).dataobj)

    def change(self, path: Path, function: Callable[[np.ndarray], np.ndarray], **header) -> None:
        self.write(path, function(self.voxels(path)), **header)

    def everywhere(self, **header) -> None:
        for path in self.files():
            self.write(path, self.voxels(path), **header)

    def affine(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self.everywhere(affine=change(nib.load(self.ct).affine))

    def swap(self, *pairs: tuple[str, str]) -> None:
        for one, other in pairs:
            first, second = self.mask(one), self.mask(other)
            content = first.read_bytes()
            first.write_bytes(second.read_bytes())
            second.write_bytes(content)

    def content(self, path: Path, change: Callable[[bytearray], bytearray | bytes], packed: bool = True) -> None:
        """Change the bytes of a file, those inside of its compression or those of the file itself."""
        old = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
        new = change(old)
        path.write_bytes(gzip.compress(bytes(new)) if packed else bytes(new))


def put(start: int, new: bytes) -> Callable[[bytearray], bytearray]:
    def change(old: bytearray) -> bytearray:
        start_at = start % len(old)
        old[start_at : start_at + len(new)] = new
        return old

    return change


def rgb(hu: np.ndarray) -> np.ndarray:
    return np.zeros(hu.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


def grown(mask: np.ndarray) -> np.ndarray:
    return ndimage.binary_dilation(mask).astype(np.uint8)


def lowest(mask: np.ndarray) -> np.ndarray:
    first = np.flatnonzero(mask.any(axis=(0, 1)))[0]
    return np.where(np.arange(mask.shape[2]) < first + 8, mask, 0).astype(np.uint8)


def beside(mask: np.ndarray) -> np.ndarray:
    return np.roll(mask, (-6, -12), (0, 1))


def specks(mask: np.ndarray) -> np.ndarray:
    inside = np.zeros_like(mask)
    inside[20:44:3, 16:38:3, 40:60:5] = 1
    return mask | inside


def turned(degrees: float, axis: int = 2) -> Callable[[np.ndarray], np.ndarray]:
    def change(affine: np.ndarray) -> np.ndarray:
        one, other = (i for i in range(3) if i != axis)
        turn = np.eye(4)
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn[[one, one, other, other], [one, other, one, other]] = [cos, -sin, sin, cos]
        return turn @ affine

    return change


def sheared(part: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(affine: np.ndarray) -> np.ndarray:
        affine = affine.copy()
        affine[0, 2] += part * affine[2, 2]
        return affine

    return change


def two_places(p: Patient) -> None:
    image = nib.load(p.ct)
    moved = image.affine.copy()
    moved[:3, 3] += 20
    new = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    new.set_sform(image.affine, 1)
    new.set_qform(moved, 1)
    p.ct.unlink()
    nib.save(new, p.ct)


def far_away(affine: np.ndarray) -> np.ndarray:
    affine = affine.copy()
    affine[1, 3] += 20_000
    return affine


def left_handed(p: Patient) -> None:
    affine = nib.load(p.ct).affine
    for path in p.files():
        p.write(path, p.voxels(path)[::-1], affine=affine @ np.array(
            [[-1, 0, 0, p.voxels(path).shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))  # fmt: skip


def no_air(hu: np.ndarray) -> np.ndarray:
    fat = np.random.default_rng(0).integers(-120, -80, hu.shape)
    return np.where(hu < -300, fat, hu).astype(np.int16)


def around(value: int) -> Callable[[np.ndarray], np.ndarray]:
    """A field of view: a circle, and something else around it."""

    def change(hu: np.ndarray) -> np.ndarray:
        x, y = np.ogrid[-1 : 1 : hu.shape[0] * 1j, -1 : 1 : hu.shape[1] * 1j]
        return np.where((x**2 + y**2 > 1)[..., None], value, hu).astype(np.int16)

    return change


def link_to_nowhere(p: Patient) -> None:
    p.mask("spleen").unlink()
    p.mask("spleen").symlink_to(p.folder / "moved.nii.gz")


def unpacked(p: Patient) -> None:
    p.ct.write_bytes(gzip.decompress(p.ct.read_bytes()))


def renamed(p: Patient, old: str, new: str) -> None:
    p.mask(old).rename(p.folder / "segmentations" / new)


def emptied(p: Patient) -> None:
    for path in p.folder.glob("segmentations/*.nii.gz"):
        p.change(path, np.zeros_like)


def twin_of(p: Patient, other: str) -> None:
    shutil.copy(p.folder.parent / other / "ct.nii.gz", p.ct)


SIDES = [("kidney_left", "kidney_right"), ("hip_left", "hip_right"), ("iliopsoas_left", "iliopsoas_right")]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"

FAULTS: dict[str, tuple[Callable[[Patient], object], str]] = {
    # files
    "no_ct": (lambda p: p.ct.unlink(), "image-missing"),
    "no_masks": (lambda p: shutil.rmtree(p.folder / "segmentations"), "masks-missing"),
    "nothing_in_it": (lambda p: (shutil.rmtree(p.folder), p.folder.mkdir()), "case-empty"),
    "ct_empty": (lambda p: p.ct.write_bytes(b""), "file-empty"),
    "mask_empty_file": (lambda p: p.mask("liver").write_bytes(b""), "file-empty"),
    "ct_cut": (lambda p: p.content(p.ct, lambda old: old[: len(old) // 2], packed=False), "file-truncated"),
    "mask_cut": (lambda p: p.content(p.mask("colon"), lambda old: old[:-9], packed=False), "file-truncated"),
    "too_few_voxels": (lambda p: p.content(p.ct, lambda old: old[:-500]), "file-truncated"),
    "bad_crc": (lambda p: p.content(p.ct, put(-8, b"\1\2\3\4"), packed=False), "file-crc"),
    "bad_crc_of_a_mask": (lambda p: p.content(p.mask("liver"), put(-8, b"\1\2\3\4"), packed=False), "file-crc"),
    "bad_bytes": (lambda p: p.content(p.ct, put(10, b"\xff" * 60), packed=False), "file-damaged"),
    "pointer": (lambda p: p.mask("liver").write_bytes(POINTER), "file-pointer"),
    "text": (lambda p: p.ct.write_bytes(b"<html>404 Not Found</html>"), "file-not-image"),
    "png": (lambda p: p.mask("liver").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500)), "file-not-image"),
    "bad_header": (lambda p: p.content(p.ct, put(70, struct.pack("<h", 9999))), "file-header"),
    "bad_shape": (lambda p: p.content(p.ct, put(42, struct.pack("<h", -5))), "file-header"),
    "not_compressed": (unpacked, "file-name"),
    "dangling_link": (link_to_nowhere, "file-missing"),
    "nrrd_mask": (lambda p: renamed(p, "spleen", "spleen.nrrd"), "file-ignored"),
    "zz_copy": (lambda p: twin_of(p, "sound_0"), "image-duplicate"),
    "sound_8": (lambda p: None, "same-id"),
    # geometry
    "mask_shape": (lambda p: p.change(p.mask("liver"), lambda mask: mask[:-1]), "mask-shape"),
    "mask_moved": (lambda p: p.write(p.mask("liver"), p.voxels(p.mask("liver")), affine=np.eye(4)), "mask-affine"),
    "mask_turned": (
        lambda p: p.write(p.mask("liver"), p.voxels(p.mask("liver")),
                            affine=nib.load(p.ct).affine @ np.diag([-1, 1, 1, 1])), "mask-affine"),
    "two_places": (two_places, "sform-qform"),
    "sheared": (lambda p: p.affine(sheared(0.05)), "shear"),
    "not_orthonormal": (lambda p: p.affine(sheared(0.001)), "axes-not-orthonormal"),
    "left_handed": (left_handed, "axes-left-handed"),
    "oblique": (lambda p: p.affine(turned(10)), "axes-oblique"),
    "no_geometry": (lambda p: [p.content(path, put(252, bytes(4))) for path in p.files()], "no-geometry"),
    "four_d": (lambda p: p.change(p.ct, lambda hu: np.stack([hu, hu], axis=-1)), "not-3d"),
    "flat": (lambda p: p.change(p.ct, lambda hu: hu[..., 0]), "not-3d"),
    "rgb": (lambda p: p.change(p.ct, rgb), "rgb"),
    "complex": (lambda p: p.change(p.ct, lambda hu: hu.astype(np.complex64)), "complex"),
    "in_metres": (lambda p: p.affine(lambda affine: np.diag([1e-3, 1e-3, 1e-3, 1]) @ affine), "spacing-beyond-body"),
    "in_centimetres": (lambda p: p.affine(lambda affine: np.diag([0.1, 0.1, 0.02, 1]) @ affine), "spacing-suspicious"),
    "header_in_metres": (lambda p: p.everywhere(xyzt_units=1), "spacing-beyond-body"),
    "all_in_metres": (
        lambda p: p.everywhere(affine=np.diag([1e-3, 1e-3, 1e-3, 1]) @ nib.load(p.ct).affine, xyzt_units=1),
        "spacing-unit"),
    "unknown_unit": (lambda p: p.everywhere(xyzt_units=7), "unit-unknown"),
    "spacing_of_0": (lambda p: p.content(p.ct, put(88, bytes(4))), "pixdim-zero"),
    "spacing_negative": (lambda p: p.content(p.ct, put(88, struct.pack("<f", -3))), "pixdim-negative"),
    "voxels_at_0": (lambda p: p.content(p.ct, put(108, bytes(4))), "vox-offset"),
    "far_away": (lambda p: p.affine(far_away), "origin-beyond-body"),
    "infinite": (lambda p: p.change(p.ct, lambda hu: np.where(hu > 1000, np.inf, hu).astype(np.float32)), "nan"),
    "pixdim_lost": (lambda p: p.everywhere(pixdim=[1] * 8), "spacing-contradicts"),
    "flat_affine": (lambda p: p.content(p.ct, put(312, bytes(16))), "affine-impossible"),
    # intensities
    "normalised": (lambda p: p.change(p.ct, lambda hu: ((hu + 1024) / 3000).astype(np.float32)), "not-hu"),
    "eight_bits": (lambda p: p.change(p.ct, lambda hu: np.clip(hu / 4 + 128, 0, 255).astype(np.uint8)), "not-hu"),
    "never_scaled": (lambda p: p.change(p.ct, lambda hu: np.clip(hu + 1024, 0, None)), "rescale-missing"),
    "scaled_twice": (lambda p: p.change(p.ct, lambda hu: (hu - 1024).astype(np.int16)), "not-hu"),
    "constant": (lambda p: p.change(p.ct, np.zeros_like), "constant"),
    "nan": (lambda p: p.change(p.ct, lambda hu: np.where(hu > 1000, np.nan, hu).astype(np.float32)), "nan"),
    "window_above": (lambda p: p.change(p.ct, lambda hu: np.minimum(hu, 240)), "saturated"),
    "window_below": (lambda p: p.change(p.ct, lambda hu: np.maximum(hu, -160)), "saturated"),
    "padding_below": (lambda p: p.change(p.ct, around(-3024)), "padding"),
    "padding_of_water": (lambda p: p.change(p.ct, around(0)), "padding"),
    "no_air": (lambda p: p.change(p.ct, no_air), "no-air"),
    "too_wide": (lambda p: p.change(p.ct, lambda hu: np.where(hu > 100, hu * 16, hu).astype(np.int16)), "hu-range"),
    # labels
    "unknown_name": (lambda p: renamed(p, "liver", "livr.nii.gz"), "unknown-name"),
    "absent": (lambda p: p.change(p.mask("gallbladder"), np.zeros_like), "empty-mask"),
    "unannotated": (lambda p: p.mask("gallbladder").unlink(), "unannotated"),
    "nothing_labelled": (emptied, "nothing-labeled"),
    "values_255": (lambda p: p.change(p.mask("liver"), lambda mask: mask * 255), "mask-values"),
    "probabilities": (lambda p: p.change(p.mask("liver"), lambda mask: mask * np.float32(0.7)), "mask-values"),
    "overlap": (lambda p: p.change(p.mask("aorta"), grown), "overlaps"),
    "one_in_another": (
        lambda p: p.write(p.mask("liver"), p.voxels(p.mask("liver")) | p.voxels(p.mask("gallbladder"))),
        "overlap-large"),
    "same_twice": (lambda p: shutil.copy(p.mask("vertebrae_L3"), p.mask("gallbladder")), "mask-duplicate"),
    "over_air": (lambda p: p.change(p.mask("spleen"), beside), "label-over-air"),
    "specks": (lambda p: p.change(p.mask("aorta"), specks), "islands"),
    "kidneys_exchanged": (lambda p: p.swap(SIDES[0]), "sides-exchanged"),
    "mirrored": (lambda p: p.swap(*SIDES), "mirrored"),
    "situs": (lambda p: p.swap(("liver", "spleen")), "situs"),
    "vertebrae": (lambda p: p.swap(("vertebrae_L1", "vertebrae_L2")), "vertebrae-order"),
    "ribs": (lambda p: p.swap(("rib_left_9", "rib_left_12")), "ribs-order"),
    "shrunk": (lambda p: p.change(p.mask("kidney_left"), lowest), "volume-outlier"),
    "cut": (lambda p: [p.change(path, lambda part: part[..., 30:-12]) for path in p.files()], "touches-border"),
}  # fmt: skip
NOTES = {"axes-left-handed", "axes-oblique", "empty-mask", "unannotated", "overlaps", "touches-border"}
COMPANIONS = {
    "situs": {"volume-outlier"},  # a spleen as large as a liver
    "header_in_metres": {"spacing-unit", "origin-beyond-body"},
}
SOUND = [*(f"sound_{number}" for number in range(8)), "SOUND_8"]
TWIN = "zz_twin"  # holds the image of sound_2, on the other side of the split
META = "\n".join(
    ["image_id;split;patient", "sound_0;train;A", "sound_1;train;B", "sound_1;val;B", "sound_2;train;C",
     f"{TWIN};val;D", "sound_3;train;E", "sound_4;val;E", "sound_5;train;F", "sound_7;;H", "not_there;train;I"]
)  # fmt: skip


def coarse(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Every second voxel of a real file in the plane, with air above and below."""
    image = nib.load(path)
    array = np.asarray(image.dataobj)[::2, ::2]
    empty = -1024 if array.dtype.kind == "i" else 0
    array = np.pad(array, ((0, 0), (0, 0), (AIR_SLICES, AIR_SLICES)), constant_values=empty)
    affine = image.affine @ np.diag([2.0, 2.0, 1.0, 1.0])
    affine[:3, 3] -= AIR_SLICES * affine[:3, 2]
    return array, affine


@pytest.fixture(scope="module")
def ward(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of real, coarse cases: eight sound ones, and one for each fault."""
    root = tmp_path_factory.mktemp("ward") / "set"
    source = real / "totalseg_mini" / "s0000"
    first = root / SOUND[0]
    (first / "segmentations").mkdir(parents=True)
    hu, affine = coarse(source / "ct.nii.gz")
    for name in STRUCTURES:
        mask, _ = coarse(source / "segmentations" / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), first / "segmentations" / f"{name}.nii.gz")
    for number, name in enumerate([*SOUND, *FAULTS, TWIN]):
        if name != SOUND[0]:
            shutil.copytree(first / "segmentations", root / name / "segmentations")
        hu[0, 0, 0] = number  # no two cases have the same image
        nib.save(nib.Nifti1Image(hu, affine), root / name / "ct.nii.gz")
    shutil.copy(root / "sound_2" / "ct.nii.gz", root / TWIN / "ct.nii.gz")
    for name, (harm, _) in FAULTS.items():
        harm(Patient(root / name))
    (root / "meta.csv").write_text(META)
    return root


@pytest.fixture(scope="module")
def report(ward: Path) -> DatasetReport:
    before = {path: path.lstat().st_mtime_ns for path in ward.rglob("*")}
    result = check_dataset(ward, workers=1, previews=100)
    assert before == {path: path.lstat().st_mtime_ns for path in ward.rglob("*")}
    return result


def of_case(report: DatasetReport, id: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.case == id]


def test_there_are_at_least_forty_faults():
    assert len(FAULTS) >= 40
    assert len({code for _, code in FAULTS.values()}) >= 40


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_by_its_own_code_alone(report, name):
    code = FAULTS[name][1]
    result = of_case(report, name) if code != "case-empty" else [f for f in report.findings if f.location == name]
    assert code in {finding.code for finding in result}
    loud = {finding.code for finding in result if finding.severity != "note"}
    assert loud - COMPANIONS.get(name, set()) == (set() if code in NOTES or name == "padding_below" else {code})
    assert all(finding.message for finding in result)


@pytest.mark.parametrize("name", SOUND)
def test_sound_cases_have_no_findings(report, name):
    assert of_case(report, name) == []


def test_the_split_is_checked_for_cases_patients_and_images(report):
    complete = {finding.code: finding for finding in report.findings if not finding.case}
    assert "sound_1" in complete["split-case"].message
    assert "sound_3 and sound_4" in complete["split-patient"].message
    assert f"sound_2 and {TWIN}" in complete["split-image"].message
    assert {complete[code].severity for code in ("split-case", "split-patient", "split-image")} == {"error"}
    assert "1 of its cases" in complete["meta-absent"].message
    assert "meta-no-subset" in complete
    assert "image-duplicate" in {finding.code for finding in of_case(report, TWIN)}


def test_cases_with_errors_are_excluded_with_a_reason(report):
    assert set(report.excluded) == {finding.case for finding in report.findings if finding.severity == "error"} - {""}
    assert report.excluded["mask_shape"].startswith("mask-shape: mask_shape/segmentations/liver.nii.gz: its shape")
    assert report.worst == "error"


def test_the_report_separates_absent_from_unannotated(report):
    assert report.unannotated["unannotated"] == ("gallbladder",)
    assert report.absent["absent"] == ("gallbladder",)
    assert "absent" not in report.unannotated


def test_overlaps_come_with_their_voxels(report, ward):
    p = Patient(ward / "one_in_another")
    both = (p.voxels(p.mask("liver")) & p.voxels(p.mask("gallbladder"))).sum()
    assert report.overlaps["gallbladder", "liver"] == both


def test_the_report_is_json_without_nan_and_absolute_paths(report):
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert not any(finding["location"].startswith("/") for finding in content["findings"])
    case = next(case for case in content["cases"] if case["id"] == SOUND[0])
    assert case["shape"] == [61, 51, 116]
    assert case["spacing"] == pytest.approx([6, 6, 3], abs=0.01)
    assert case["voxels"]["vertebrae_L1"] * 0.108 == pytest.approx(case["ml"]["vertebrae_L1"], rel=0.01)
    assert case["hu"]["min"] < -1000 < case["hu"]["p50"] < case["hu"]["p99_5"] < case["hu"]["max"]


def test_previews_show_the_structure_of_the_finding(report):
    assert {"kidneys_exchanged", "window_above"} <= set(report.previews)
    assert not {"sound_0", "ct_cut", "no_ct"} & set(report.previews)
    printable = report.previews["kidneys_exchanged"]
    assert "kidney_left" in printable.names
    assert printable.hu.shape == printable.label.shape == (61, 51, 1)


def test_every_code_is_documented_with_its_severity(report, repository):
    text = (repository / "docs" / "reference" / "findings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?`) \| (\w+) \| (.*) \|$", text, flags=re.M)
    documented = {
        code: f"{severity} {remaining}" for codes, severity, remaining in rows for code in re.findall("`(.+?)`", codes)
    }
    for finding in report.findings:
        rule = RULES.get(finding.code)
        text = f"{rule.severity} {rule.meaning}" if rule else documented[finding.code]
        assert finding.code == "padding" or re.search(rf"\b{finding.severity}\b", text), finding
    folder = repository / "medseg" / "data"
    sources = [
        repository / "medseg" / "file_names.py",
        folder / "check.py",
        *(folder / "checks").glob("*.py"),
        *(folder / "layouts").glob("*.py"),
    ]
    code = "".join(path.read_text(encoding="utf-8") for path in sources)
    code = code.replace('f"{kind}-', '"mask-') + code.replace('f"{kind}-', '"label-')
    assert [name for name in documented if f'"{name}"' not in code] == []
    written = re.findall(r'(?:error|warning|note|report)\(\s*"([a-z0-9-]+)"', code)
    assert set(written) - set(documented) - set(RULES) == set()


def test_the_real_set_is_sound(real):
    report = check_dataset(real / "totalseg_mini", workers=1)
    assert report.counts()["error"] == report.counts()["warning"] == 0
    about_split = {"split-unvalidated", "split-untrained", "split-one-patient", "structures-absent"}
    assert {finding.code for finding in report.findings} == {"empty-mask", "touches-border", *about_split}
    never = next(finding for finding in report.findings if finding.code == "split-unvalidated")
    assert never.message.startswith("34 of 117 structures")


def test_odd_files_are_described_one_by_one(real):
    report = check_dataset(real / "odd", workers=1)
    codes = {(finding.case or finding.location).rpartition("/")[2]: set() for finding in report.findings}
    for finding in report.findings:
        codes[(finding.case or finding.location).rpartition("/")[2]].add(finding.code)
    expected = {
        "DERIVED_empty.nii.gz": "file-empty", "DERIVED_text.nii.gz": "file-not-image",
        "DERIVED_example_ct_truncated.nii.gz": "file-truncated", "liver_9.nii.gz": "file-pointer",
        "niivue_shear.nii.gz": "shear", "niivue_complex.nii.gz": "complex", "niivue_minimal.nii.gz": "no-geometry",
        "nibabel_header_only_nifti1.hdr": "file-pair", "nibabel_example4d.nii.gz": "not-3d",
        "d2n_rgba_vector.nii.gz": "rgb", "niivue_CT_pitch.nii.gz": "axes-oblique", "pydicom": "file-truncated",
        "lungmask": "not-ct", "001": "slices-uneven", "dicom2nifti_rgb": "not-read",
        "nibabel_anatomical_bigendian.nii": "axes-left-handed", "odd": "layout",
    }  # fmt: skip
    assert {name: code for name, code in expected.items() if code not in codes.get(name, ())} == {}


def test_the_phantom_is_sound_with_and_without_processes(phantom):
    one, two = check_dataset(phantom, workers=0), check_dataset(phantom, workers=2)
    assert one.counts()["error"] == one.counts()["warning"] == 0
    assert one.to_dict() == two.to_dict()


def test_cases_of_a_dead_process_are_read_one_by_one(phantom, monkeypatch):
    def dying(function, jobs, workers, description):
        yield jobs[0], function(jobs[0])
        raise RunError("worker", "must live")

    monkeypatch.setattr(check, "run_each", dying)
    monkeypatch.setattr(check, "_check_in_own_process", lambda check_job, job: check_job(job))
    assert check_dataset(phantom).to_dict()["cases"] == check_dataset(phantom).to_dict()["cases"]
    assert len(check_dataset(phantom).cases) == 4


def test_a_case_that_breaks_the_check_is_a_finding(phantom, monkeypatch):
    def broken(job, labels, preview):
        raise MemoryError("no more")

    monkeypatch.setattr(check, "check_case", broken)
    report = check_dataset(phantom, workers=0)
    assert {finding.code for finding in report.findings} == {"case-failed", "split-unvalidated"} - {"split-unvalidated"}
    assert len(report.excluded) == 4


def test_a_folder_that_is_not_there_is_one_error(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        check_dataset(tmp_path / "nowhere")


def test_dicom_folders_are_looked_into(save_dicom, tmp_path):
    """A series is a case; what is wrong with it is an error by its code; other objects are counted."""
    hu = np.random.default_rng(0).integers(-1000, 300, (40, 30, 6)).astype(np.int16)
    save_dicom("set/sound", hu)
    save_dicom("set/gap", hu, skip=lambda k: k == 2)
    save_dicom("set/capture", hu, BitsStored=8, HighBit=7)
    save_dicom("set/plus_1024", hu, RescaleIntercept=0.0)
    save_dicom("set/plan", hu[:, :, :1], SOPClassUID="1.2.840.10008.5.1.4.1.1.481.5", Modality="RTPLAN")
    report = check_dataset(tmp_path / "set")
    assert report.checked == ("capture", "gap", "plus_1024", "sound")
    errors = {finding.case: finding.code for finding in report.findings if finding.severity == "error"}
    assert {id: errors.get(id) for id in report.checked} == {
        "capture": "dicom-not-hu", "gap": "slices-uneven", "plus_1024": None, "sound": None,
    }  # fmt: skip
    (finding,) = [finding for finding in report.findings if finding.code == "not-read"]
    assert (finding.location, finding.message) == ("plan", "1 DICOM file, which check does not read")
    (case,) = check_dataset(tmp_path / "set" / "sound").cases
    assert (case.id, case.shape) == ("sound", (40, 30, 6))
    stored = save_dicom("stored", hu + 1024, RescaleIntercept=0.0)
    assert "rescale-missing" in [finding.code for finding in check_dataset(stored).findings]
