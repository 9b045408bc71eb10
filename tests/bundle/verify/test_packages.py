"""Versions are compared as versions, not as text."""

from __future__ import annotations

import importlib.metadata

import pytest
from packaging.version import Version

from medseg.bundle.verify import packages
from medseg.bundle.verify.opened import Opened
from tests.bundle.verify.broken import change


def check(plain, wanted, key="required_packages_version"):
    change(plain, "metadata", **{key: wanted})
    return [(one.severity, one.code) for one in packages.check(Opened(plain))]


@pytest.mark.parametrize(
    ("installed", "wanted", "severity"),
    [("10.1.0", "9.5.0", None), ("1.10.0", "1.9.0", None), ("2.13.0+cpu", "2.13.0", None), ("1.6.1", "1.6.1", None),
     ("1.6.1", "1.6.2", "warning"), ("1.6.1", "1.7.0", "error"), ("1.9.0", "1.10.0", "error"),
     ("2.0rc1", "2.0", "warning")],
)  # fmt: skip
def test_older_is_told_from_newer(plain, monkeypatch, installed, wanted, severity):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: installed if name == "nibabel" else real(name))
    assert check(plain, {"nibabel": wanted}) == ([(severity, "package-old")] if severity else [])


def test_what_is_optional_is_a_note_and_never_an_error(plain):
    found = check(plain, {"nosuch": "1.0", "nibabel": "99.0"}, "optional_packages_version")
    assert found == [("note", "package-missing"), ("warning", "package-old")]


@pytest.mark.parametrize(
    ("name", "distribution"), [("pytorch", "torch"), ("PIL", "pillow"), ("ignite", "pytorch-ignite")]
)
def test_a_package_goes_by_either_of_its_names(name, distribution):
    assert packages.installed(name) == Version(importlib.metadata.version(distribution))


def test_the_extra_that_brings_a_package_is_named(plain, monkeypatch):
    monkeypatch.setattr(packages, "installed", lambda name: None if name == "transformers" else Version("99"))
    change(plain, "metadata", required_packages_version={"transformers": "5.12.0"})
    (one,) = packages.check(Opened(plain))
    assert one.fix == "pip install 'medseg[segformer]'"
