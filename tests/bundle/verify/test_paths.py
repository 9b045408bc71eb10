"""Paths that hold on one machine alone."""

from __future__ import annotations

import pytest

from medseg.bundle.verify import paths
from medseg.bundle.verify.opened import Opened
from tests.bundle.verify.broken import change, edit

PLACE = "configs/inference.json, output_dir"


@pytest.mark.parametrize(
    "text",
    ["/home/me/eval", "C:\\data\\eval", "D:/data", "~/eval", "\\\\server\\share", "$'/mnt/x'", "$open('/etc/passwd')",
     "$f'/srv/{@device}/x'"],
)  # fmt: skip
def test_absolute(found, text):
    assert found(paths, edit("inference", output_dir=text)) == [("path-absolute", PLACE)]


@pytest.mark.parametrize("text", ["../eval", "a/../../b", "$@bundle_root + '/../x'", "$@bundle_root + '\\\\..\\\\x'"])
def test_out_of_the_bundle(found, text):
    assert found(paths, edit("inference", output_dir=text)) == [("path-leaves", PLACE)]


@pytest.mark.parametrize(
    "text",
    ["eval", "$@bundle_root + '/eval'", "$f'{@bundle_root}/eval'", "https://x.org/a", "s3://bucket/a", "a/b.c", "/",
     "text with / and .. in it", "@device", "*", "...", "$'a' + '/b'", "//x"],
)  # fmt: skip
def test_neither(found, text):
    assert found(paths, edit("inference", output_dir=text)) == []


def test_a_place_of_data_is_a_warning_and_a_runs_own_is_none(plain):
    change(plain, "train", dataset_dir="/data/set")
    (one,) = paths.check(Opened(plain))
    assert one.severity == "warning"
    (plain / "run.json").write_text("{}")
    assert list(paths.check(Opened(plain))) == []
