import ast
import os
import pickle
import re
import shlex
import subprocess
from itertools import pairwise

import pytest

from medseg import errors
from medseg.errors import DataError, MedsegError, command_line, did_you_mean, nearest, quoted


def test_an_error_prints_thing_problem_came_and_fix_in_that_order():
    error = MedsegError("ct.nii.gz", "a scan must have 3 dimensions", "got 4", "Split it.")
    assert str(error) == "ct.nii.gz: a scan must have 3 dimensions (got 4). Split it."


def test_an_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(DataError("ct.nii.gz", "a scan must have 3 dimensions", "got 4", "Split it.")))
    assert isinstance(error, DataError)
    assert (error.thing, error.fix) == ("ct.nii.gz", "Split it.")


def test_an_error_of_one_text_reads_as_that_text():
    assert str(MedsegError("Caught something in a worker")) == "Caught something in a worker"


def test_every_error_is_in_the_tree_of_the_docstring():
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(classes) > 8
    for kind in classes:
        assert issubclass(kind, MedsegError)
        assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(("word", "found"), [("livr", ["liver"]), ("xyzzy", [])])
def test_nearest(word, found):
    assert nearest(word, ["spleen", "liver"]) == found


def test_did_you_mean_falls_back_if_nothing_is_similar():
    assert did_you_mean("xyzzy", ["liver"], "Look it up.") == "Look it up."


@pytest.mark.parametrize(
    "word", ["a.zip", "/tmp/my runs/a.zip", "it's", "a&b", "$HOME", "unet2d", "a;b", "Leber Ü.zip", "*", "(1).zip", ""]
)
def test_a_printed_command_is_what_a_shell_takes(word):
    line = command_line("bundle", "install", word, tail="-o X")
    assert shlex.split(line) == ["medseg", "bundle", "install", word, "-o", "X"]
    if os.name == "posix":
        shell = subprocess.run(["sh", "-c", f"printf %s {quoted(word)}"], capture_output=True, text=True, check=True)
        assert shell.stdout == word


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (r"C:\data\a.zip", r"C:\data\a.zip"),
        (r"C:\my data\a.zip", r'"C:\my data\a.zip"'),
        (r"C:\a&b", r'"C:\a&b"'),
        ("s3://bucket/a.zip", "s3://bucket/a.zip"),
        ("medseg[onnx]", '"medseg[onnx]"'),
        ("", '""'),
    ],
)
def test_windows_knows_only_double_quotes(word, text):
    assert quoted(word, windows=True) == text


@pytest.mark.parametrize(
    ("came", "words"),
    [
        ("[Errno 2] No such file or directory: 'a/b.json'", "No such file or directory"),
        ('[Errno 13] Permission denied: "it\'s.json"', "Permission denied"),
        (
            "[WinError 3] The system cannot find the path specified: 'C:\\\\x'",
            "The system cannot find the path specified",
        ),
        ("[Errno 28] No space left on device", "No space left on device"),
        ("'utf-8' codec can't decode byte 0xff in position 12: invalid start byte", "no text in UTF-8 from byte 12 on"),
        ("Expecting value: line 1 column 1 (char 0)", "it does not begin as JSON does"),
        ("got 4", "got 4"),
    ],
)
def test_what_python_says_of_files_is_put_in_plain_words(came, words):
    assert str(DataError("x", "it cannot be read", came)) == f"x: it cannot be read ({words})."


def test_every_printed_command_is_made_by_the_function_that_quotes(repository):
    verbs = "bundle|data|demo|evaluate|info|list|predict|report|runs|train"
    command = re.compile(rf"medseg ({verbs})( --?[\w-]+| \w+)* $")
    unquoted = []
    for path in sorted((repository / "medseg").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for text, value in pairwise(node.values) if isinstance(node, ast.JoinedStr) else ():
                before = str(text.value) if isinstance(text, ast.Constant) else ""
                if isinstance(value, ast.FormattedValue) and command.search(before):
                    unquoted.append(f"{path.name}: {before[-30:]}")
    assert unquoted == []
