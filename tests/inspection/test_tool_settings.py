"""Settings that other programs read from a bundle's folder: logging, git, W&B, pip."""

import logging.config
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medseg.inspection.tool_settings import check_logging, check_requirements, check_tool_settings, is_tool_settings

LOGGING = (Path(__file__).parents[2] / "bundles/unet2d/configs/logging.conf").read_text()


def test_logging_to_the_screen_is_allowed():
    assert list(check_logging(LOGGING, "x")) == []
    assert (
        list(check_logging(LOGGING.replace("StreamHandler", "logging.NullHandler").replace("(sys.stderr,)", "()"), "x"))
        == []
    )
    assert list(check_logging(LOGGING + "style=%\nclass=logging.Formatter\n", "x")) == []


@pytest.mark.parametrize(
    ("old", "new"),
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
def test_logging_that_could_do_more_is_found(old, new):
    assert old in LOGGING
    findings = list(check_logging(LOGGING.replace(old, new, 1), "x.conf"))
    assert {(finding.code, finding.location, finding.severity) for finding in findings} == {
        ("logging-unsafe", "x.conf", "error")
    }


def test_python_does_evaluate_logging_settings(tmp_path, monkeypatch):
    """So that the refusal has a reason in this version of Python."""
    monkeypatch.chdir(tmp_path)
    evil = LOGGING.replace("args=(sys.stderr,)", "args=(open('canary', 'w'),)")
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


PLAIN = """[core]
\trepositoryformatversion = 0
\tfilemode = true
# a note
[remote "origin"]
\turl = https://example.org/x.git
\tfetch = +refs/heads/*:refs/remotes/origin/*
[branch "main"]
\tremote = origin
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".git/config", True),
        ("docs/x/config", True),
        ("docs/config", False),
        (".git", True),
        (".git/hooks/pre-commit", True),
        (".git/hooks/pre-commit.sample", False),
        ("wandb/settings", True),
        ("configs/train.json", False),
    ],
)
def test_settings_of_git_and_wandb_are_recognized(name, expected):
    assert is_tool_settings(name, {".git/HEAD", "docs/x/HEAD"}) is expected


def test_a_plain_repository_gives_no_finding():
    assert list(check_tool_settings(PLAIN, ".git/config", ".git/config")) == []


@pytest.mark.parametrize(
    "settings",
    [
        "[core]\n\tfsmonitor = touch canary",
        "[core] fsmonitor = touch canary",
        '[filter "x"]\n\tclean = touch canary',
        "[include]\n\tpath = /tmp/x",
        "[core]\n\tsshCommand = touch canary",
        '[remote "origin"]\n\turl = ext::sh -c touch',
        "[user]\n\tname = a \\\nfsmonitor = x",
    ],
)
def test_a_setting_by_which_git_runs_something_is_found(settings):
    assert {finding.code for finding in check_tool_settings(PLAIN + settings, ".git/config", ".git/config")} == {
        "code-in-bundle"
    }


def test_a_server_for_wandb_and_a_pointer_to_a_repository_are_found():
    assert [finding.code for finding in check_tool_settings("", "wandb/settings", "x")] == ["sends-elsewhere"]
    assert [finding.code for finding in check_tool_settings("gitdir: docs/x", ".git", "x")] == ["code-in-bundle"]


@pytest.mark.skipif(shutil.which("git") is None or sys.platform == "win32", reason="needs git and a shell")
def test_git_does_run_what_its_settings_name(tmp_path):
    """So that the refusal has a reason."""
    for arguments in (["init", "-q"], ["config", "core.fsmonitor", f"touch {tmp_path}/canary; false"]):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True)
    (tmp_path / "x").write_text("x")
    subprocess.run(["git", "-C", tmp_path, "add", "x"], check=False, capture_output=True)
    assert (tmp_path / "canary").exists()


def test_requirements_from_elsewhere_are_warnings():
    text = "torch==2.10.0\nmonai>=1.6,<2\n--index-url http://example.org\nx @ file:///tmp/x\n-e .\n"
    assert [finding.message for finding in check_requirements(text, "requirements.txt")] == [
        "'--index-url http://example.org' would bring a package from elsewhere",
        "'x @ file:///tmp/x' would bring a package from elsewhere",
        "'-e .' would bring a package from elsewhere",
    ]
