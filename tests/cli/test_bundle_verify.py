"""`medseg bundle verify`: what is printed, and the exit code."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from medseg.cli.bundle_verify import command
from tests.bundle.verify.broken import BROKEN, plain


def run(*arguments):
    return CliRunner().invoke(command, [str(one) for one in arguments], standalone_mode=False)


def test_nothing_found_is_said_and_ends_with_0(tmp_path):
    done = run(plain(tmp_path / "plain"))
    assert (done.return_value, done.output) == (0, f"{tmp_path / 'plain'}: nothing found\n")


@pytest.mark.parametrize(("fault", "code"), [("no licence", 0), ("no weights", 1)])
def test_errors_end_with_1_and_warnings_with_0(tmp_path, fault, code):
    root = plain(tmp_path / "plain")
    BROKEN[fault][0](root)
    done = run(root)
    assert done.return_value == code
    assert BROKEN[fault][1] in done.output
    assert done.output.splitlines()[-1].startswith(f"{root}: {code} error")


def test_json_holds_every_finding(tmp_path):
    root = plain(tmp_path / "plain")
    BROKEN["smoothed in training alone"][0](root)
    done = run(root, "--json")
    content = json.loads(done.output)
    assert content["counts"] == {"error": 2, "warning": 0, "note": 0}
    assert {one["code"] for one in content["findings"]} == {"preprocessing-drift"}
    assert set(content["findings"][0]) == {"severity", "code", "case", "place", "message", "remedy"}


def test_a_name_is_looked_for_among_the_bundles_that_are_known():
    assert run("unet2d").return_value == 0


def test_no_bundle_is_an_error(tmp_path):
    done = run(tmp_path / "nothing")
    assert "must be a bundle or the folder of a run" in str(done.exception)
