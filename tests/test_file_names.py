import unicodedata

import pytest

from medseg.errors import DataError
from medseg.file_names import entries, existing, files_by_name, is_clutter, list_files, name_key, spelled_as, stem, walk

DECOMPOSED, COMPOSED = (unicodedata.normalize(form, "José Müller") for form in ("NFD", "NFC"))


@pytest.fixture
def folder(tmp_path):
    def fill(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        return tmp_path

    return fill


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/b.nii.gz", "b"), ("b.NII", "b"), ("a.b.nii", "a.b"), ("x.png", "x"), ("C.NII.GZ", "C"), ("s.MhD", "s"),
     (f"{DECOMPOSED}.nii.gz", COMPOSED)],
)  # fmt: skip
def test_a_stem_has_no_suffix_and_composed_accents(path, name):
    assert stem(path) == name


@pytest.mark.parametrize(
    "name",
    ["._ct.nii.gz", ".DS_Store", ".nii.gz", "Thumbs.db", "THUMBS.DB", "desktop.ini", "Icon\r", "__MACOSX", "@eaDir"],
)
def test_what_systems_leave_behind_is_clutter(name):
    assert is_clutter(name)


@pytest.mark.parametrize("name", ["ct.nii.gz", "thumbs.nii.gz", "_a.nii", "icon.png", "macosx"])
def test_files_of_users_are_no_clutter(name):
    assert not is_clutter(name)


def test_a_listing_leaves_clutter_out_and_sorts_composed_names(folder):
    root = folder(
        "b.nii.gz", "._b.nii.gz", "Thumbs.db", f"{DECOMPOSED}.nii", "A.NII.GZ", ".git/x.nii", "__MACOSX/b.nii.gz"
    )
    assert [stem(path) for path in entries(root)] == ["A", COMPOSED, "b"]
    assert list(files_by_name(root)) == ["A", COMPOSED, "b"]
    assert sorted(path.name for path in walk(root)) == sorted(["A.NII.GZ", "b.nii.gz", f"{DECOMPOSED}.nii"])


@pytest.mark.parametrize(
    "names",
    [("x.nii", "x.nii.gz"), ("x.nii.gz", "X.NII.GZ"), (f"{DECOMPOSED}.nii", f"{COMPOSED}.nii"), ("x.nii", "X.nii.gz")],
)
def test_two_files_of_one_name_are_refused_and_named(folder, names):
    root = folder(*names)
    _, findings = list_files(root)
    assert [finding.code for finding in findings] == ["same-id"]
    with pytest.raises(DataError, match="has the same name, up to suffix, accents and upper and lower case") as error:
        files_by_name(root)
    assert all(name in str(error.value) for name in names)


@pytest.mark.parametrize("name", ["x.nrrd", "x.mha", "x.nii.gz.part", "x.nii.zip", "x.img", "x.dcm"])
def test_a_volume_of_another_kind_is_not_passed_over_in_silence(folder, name):
    files, findings = list_files(folder(name, "notes.txt", "a.nii"))
    assert list(files) == ["a"]
    assert [(finding.severity, finding.code) for finding in findings] == [("warning", "file-ignored")]
    assert name in findings[0].location


def test_a_folder_with_the_name_of_a_file_is_not_passed_over_in_silence(folder):
    files, findings = list_files(folder("liver.nii.gz/liver.nii.gz", "spleen/a.nii", "a.nii"))
    assert list(files) == ["a"]
    assert [(finding.code, finding.location.endswith("liver.nii.gz")) for finding in findings] == [
        ("file-ignored", True)
    ]


def test_names_take_the_spelling_of_their_partners():
    partners = spelled_as({"CASE1": 1, DECOMPOSED: 2, "Case2": 3, "other": 4}, ["case1", COMPOSED, "Case2", "case2"])
    assert partners == {"case1": 1, COMPOSED: 2, "Case2": 3, "other": 4}
    assert name_key("STRASSE") == name_key("straße")


def test_a_path_is_found_however_it_is_spelled(folder):
    root = folder(f"Images/{DECOMPOSED}.NII.GZ", "a/x.nii", "a/X.nii")
    assert existing(root / "images" / f"{COMPOSED}.nii.gz") == root / "Images" / f"{DECOMPOSED}.NII.GZ"
    assert existing(root / "none" / "x.nii") == root / "none" / "x.nii"
    assert existing(root / "a" / "x.NII") == root / "a" / "x.NII"
