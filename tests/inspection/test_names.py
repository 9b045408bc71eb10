"""Names of files that go everywhere, and text that may be printed."""

import pytest

from medseg.inspection.names import fault, folded, printable


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("~/x", "absolute"),
        ("c:x", "absolute"),
        ("a/../../b", "climbs"),
        ("a\\..\\b", "climbs"),
        ("a/b?c", "character"),
        ("a\x07b", "character"),
        ("x" * 300, "240"),
        ("a//b", "empty part"),
        ("a/./b", "empty part"),
        ("a. /b", "dot or a blank"),
        ("a/COM1.txt", "device"),
        ("aux", "device"),
    ],
)
def test_what_may_not_become_a_file(name, said):
    assert said in fault(name)


@pytest.mark.parametrize("name", ["configs/train.json", "a b/c-d_e.nii.gz", "Größe/x", ".cache/x", "company/auxiliary"])
def test_what_may(name):
    assert fault(name) is None


def test_names_that_some_systems_take_for_the_same():
    assert folded("A/ﬁle") == folded("a/FILE")
    assert folded("e\u0301") == folded("\u00c9")
    assert folded("a") != folded("b")


def test_text_of_others_is_shown_without_what_moves_the_cursor():
    assert printable("a\x1b[2Jb\n\u202ec\u200d") == "a\\x1b[2Jb\\n\\u202ec\\u200d"
    assert printable("Leber, größer") == "Leber, größer"
    assert printable("x" * 300, 10) == "x" * 10 + "..."
