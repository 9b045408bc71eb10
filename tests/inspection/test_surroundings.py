"""Settings that programs find in the folder they are started in."""

import shutil
import subprocess
import sys

import pytest

from medseg.inspection.surroundings import check, is_meant

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
    ("name", "meant"),
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
def test_which_files_are_meant(name, meant):
    assert is_meant(name, {".git/HEAD", "docs/x/HEAD"}) is meant


def test_a_plain_repository_gives_none():
    assert list(check(PLAIN, ".git/config", ".git/config")) == []


@pytest.mark.parametrize(
    "more",
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
def test_what_git_would_run_is_found(more):
    assert {one.code for one in check(PLAIN + more, ".git/config", ".git/config")} == {"code-in-bundle"}


def test_other_files():
    assert [one.code for one in check("", "wandb/settings", "x")] == ["sends-elsewhere"]
    assert [one.code for one in check("gitdir: docs/x", ".git", "x")] == ["code-in-bundle"]


@pytest.mark.skipif(shutil.which("git") is None or sys.platform == "win32", reason="needs git and a shell")
def test_git_does_run_it(tmp_path):
    """So that the refusal has a reason."""
    for arguments in (["init", "-q"], ["config", "core.fsmonitor", f"touch {tmp_path}/canary; false"]):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True)
    (tmp_path / "x").write_text("x")
    subprocess.run(["git", "-C", tmp_path, "add", "x"], check=False, capture_output=True)
    assert (tmp_path / "canary").exists()
