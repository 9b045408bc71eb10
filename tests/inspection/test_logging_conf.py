"""Settings of logging that do no more than print."""

import logging.config
from pathlib import Path

import pytest

from medseg.inspection.logging_conf import check

OWN = (Path(__file__).parents[2] / "bundles/unet2d/configs/logging.conf").read_text()


def test_settings_that_print_to_the_screen_are_known():
    assert list(check(OWN, "x")) == []
    assert list(check(OWN.replace("StreamHandler", "logging.NullHandler").replace("(sys.stderr,)", "()"), "x")) == []
    assert list(check(OWN + "style=%\nclass=logging.Formatter\n", "x")) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("class=StreamHandler", "class=FileHandler"),
        ("class=StreamHandler", "class=logging.handlers.SMTPHandler"),
        ("args=(sys.stderr,)", "args=(open('x'),)"),
        ("args=(sys.stderr,)", "args=(sys.stderr,)\nkwargs={'a': 1}"),
        ("level=INFO", "level=%(evil)s"),
        ("[formatters]", "[something]\nelse=1\n[formatters]"),
        ("[loggers]", "[DEFAULT]\nx=1\n[loggers]"),
        ("[loggers]", "nonsense"),
    ],
)
def test_what_is_not(one, other):
    assert one in OWN
    found = list(check(OWN.replace(one, other, 1), "x.conf"))
    assert {(finding.code, finding.location, finding.severity) for finding in found} == {
        ("logging-unsafe", "x.conf", "error")
    }


def test_python_does_evaluate_them(tmp_path, monkeypatch):
    """So that the refusal has a reason in this version of Python."""
    monkeypatch.chdir(tmp_path)
    evil = OWN.replace("args=(sys.stderr,)", "args=(open('canary', 'w'),)")
    (tmp_path / "x.conf").write_text(evil)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logging.config.fileConfig(tmp_path / "x.conf", disable_existing_loggers=False)
    finally:
        for handler in root.handlers:
            if handler not in before[0] and isinstance(handler, logging.StreamHandler):
                handler.stream.close()
        root.handlers[:], root.level = before
    assert (tmp_path / "canary").exists()
