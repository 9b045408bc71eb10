"""The commit of a repository, read without git and compared with what git says."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from medseg.training.git_state import git_state

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def git(tmp_path, monkeypatch):
    def run(*arguments, cwd=None):
        settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
        done = subprocess.run(
            ["git", *settings, *arguments], cwd=cwd or tmp_path / "repo", check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    (tmp_path / "repo").mkdir()
    monkeypatch.chdir(tmp_path / "repo")
    run("init", "-q", "-b", "main")
    (tmp_path / "repo/folder").mkdir()
    (tmp_path / "repo/file").write_text("one\n")
    (tmp_path / "repo/folder/b").write_text("two\n")
    run("add", ".")
    run("commit", "-q", "-m", "first")
    return run


def described(git) -> dict:
    """Return what git says of the same folder."""
    text = git("describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*")
    return {"commit": text.removesuffix("-dirty"), "dirty": text.endswith("-dirty")}


def commit_more(git, tmp_path):
    (tmp_path / "repo/file").write_text("second\n")
    git("commit", "-q", "-am", "second")


def change(git, tmp_path):
    (tmp_path / "repo/folder/b").write_text("twx\n")


def change_and_stage(git, tmp_path):
    change(git, tmp_path)
    git("add", ".")


def reset_softly(git, tmp_path):
    commit_more(git, tmp_path)
    git("reset", "-q", "--soft", "HEAD~")


STATES = {
    "clean": lambda git, tmp_path: None,
    "changed": change,
    "changed in the same second, to the same size": lambda git, tmp_path: (tmp_path / "repo/file").write_text("two\n"),
    "deleted": lambda git, tmp_path: (tmp_path / "repo/file").unlink(),
    "staged": change_and_stage,
    "committed": commit_more,
    "an untracked file": lambda git, tmp_path: (tmp_path / "repo/new").write_text("x"),
    "touched only": lambda git, tmp_path: os.utime(tmp_path / "repo/file", (1, 1)),
    "packed": lambda git, tmp_path: git("gc", "-q"),
    "packed and changed": lambda git, tmp_path: (git("gc", "-q"), change(git, tmp_path)),
    "a branch with a slash": lambda git, tmp_path: git("checkout", "-q", "-b", "topic/one"),
    "detached": lambda git, tmp_path: git("checkout", "-q", "--detach"),
    "index version 4": lambda git, tmp_path: git("update-index", "--index-version", "4"),
    "index version 4, changed": lambda git, tmp_path: (
        git("update-index", "--index-version", "4"),
        change(git, tmp_path),
    ),
    "to be added": lambda git, tmp_path: ((tmp_path / "repo/new").write_text("x"), git("add", "-N", "new")),
    "reset softly": reset_softly,
}


@pytest.mark.parametrize("state", STATES)
def test_commit_and_changes_equal_what_git_says(git, tmp_path, state):
    STATES[state](git, tmp_path)
    assert git_state() == described(git)


def test_a_second_work_tree_and_a_folder_below_are_read(git, tmp_path, monkeypatch):
    git("worktree", "add", "-q", "-b", "second", str(tmp_path / "second"))
    monkeypatch.chdir(tmp_path / "second/folder")
    assert git_state() == {"commit": git("rev-parse", "second"), "dirty": False}
    (tmp_path / "second/file").write_text("other")
    assert git_state()["dirty"] is True


def test_git_itself_is_never_run(git, monkeypatch):
    """A filter, a monitor or an alias in a folder's own config is a program of a stranger."""
    expected = described(git)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(subprocess, "Popen", None)
    assert git_state() == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("HEAD", "ref: refs/heads/../../../secret"),
        ("HEAD", "ref: ../secret"),
        ("HEAD", "\xff"),
        ("commondir", "//192.0.2.1/share"),
        ("index", "DIRC\0\0\0\2\xff\xff\xff\xff"),
        ("index", "DIRC\0\0\0\7\0\0\0\0"),
        ("index", ""),
    ],
)
def test_a_damaged_or_hostile_repository_has_no_state(git, tmp_path, monkeypatch, name, content):
    (tmp_path / "secret").write_text("0" * 40)
    (tmp_path / "repo/.git" / name).write_bytes(content.encode("latin-1"))
    damaged = git_state()
    monkeypatch.chdir(tmp_path)
    assert damaged == git_state()  # that of the package, if it lies in a repository


def test_a_pipe_in_place_of_a_file_does_not_stop_a_run(git, tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes here")
    (tmp_path / "repo/file").unlink()
    os.mkfifo(tmp_path / "repo/file")
    assert git_state()["dirty"] is True
    (tmp_path / "repo/.git/HEAD").unlink()
    os.mkfifo(tmp_path / "repo/.git/HEAD")
    git_state()
