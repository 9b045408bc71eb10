import pytest

from medseg.errors import MedsegError, printable
from medseg.findings import SEVERITIES, Finding, error, note, ranked, warning, worst


def test_a_finding_prints_as_one_line():
    finding = error("mask-shape", "liver.nii.gz", "its shape is another", "Resample it.").of("s1")
    assert str(finding) == "error mask-shape: s1, liver.nii.gz: its shape is another. Resample it."
    assert str(note("x", "", "nothing to do")) == "note x: nothing to do."
    assert finding.to_dict()["case"] == "s1"


def test_an_invalid_finding_is_refused():
    with pytest.raises(MedsegError, match="it must be one of error, warning, note [(]got 'fatal'"):
        Finding("fatal", "x", "", "", "")
    for code in ("Mask-Shape", "mask shape", "", "-x", "x-"):
        with pytest.raises(MedsegError, match="kebab case"):
            error(code, "", "")


def test_errors_come_first_and_those_of_one_code_together():
    found = [note("b", "", "1"), warning("c", "", "2"), error("z", "", "3").of("s2"), error("z", "", "3").of("s1")]
    assert [(one.severity, one.case) for one in ranked(found)] == [
        ("error", "s1"), ("error", "s2"), ("warning", ""), ("note", "")
    ]  # fmt: skip
    assert [worst(found), worst(found[:2]), worst(found[:1]), worst([])] == [*SEVERITIES, None]
    assert found[2].as_note().severity == "note"


def test_control_characters_are_escaped():
    assert str(error("a", "x\x1b[2Jy", "m\nn", "r\x07")) == "error a: x\\x1b[2Jy: m\\nn. r\\x07"


def test_text_of_strangers_is_shown_without_what_moves_the_cursor():
    assert printable("a\x1b[2Jb\n\u202ec\u200d") == "a\\x1b[2Jb\\n\\u202ec\\u200d"
    assert printable("Leber, größer") == "Leber, größer"
    assert printable("x" * 300, 10) == "x" * 10 + "..."
