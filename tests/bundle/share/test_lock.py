"""Packages and what they need in turn, as they are installed here."""

from importlib import metadata

import pytest

from medseg.bundle.share import lock


class Fake:
    def __init__(self, version, *requires):
        self.version, self.requires = version, list(requires)


@pytest.fixture
def installed(monkeypatch):
    packages = {
        "medseg": Fake("0.1.0", "torch>=2.6", "onnx; extra == 'onnx'", "ruff; extra == 'dev'", "nowhere"),
        "torch": Fake("2.13.0+cpu", "Sym_Py>=1", "win; sys_platform == 'nothing'"),
        "Sym_Py": Fake("1.14"),
        "onnx": Fake("1.23.2", "torch"),
        "ruff": Fake("1"),
        "win": Fake("1"),
    }
    names = {name.lower().replace("_", "-"): one for name, one in packages.items()}

    def distribution(name):
        if name.lower().replace("_", "-") not in names:
            raise metadata.PackageNotFoundError(name)
        return names[name.lower().replace("_", "-")]

    monkeypatch.setattr(lock.metadata, "distribution", distribution)
    monkeypatch.setattr(lock.metadata, "requires", lambda name: distribution(name).requires)


def test_what_is_needed_is_followed_and_what_belongs_to_other_systems_is_not(installed):
    assert lock.locked(["medseg"]) == {"medseg": "0.1.0", "sym-py": "1.14", "torch": "2.13.0"}
    assert lock.locked(["medseg[onnx]"])["onnx"] == "1.23.2"
    assert lock.locked(["nowhere"]) == {}


def test_what_the_metadata_names_brings_its_extra(installed):
    text = lock.lock_text({"required_packages_version": {"onnx": "1.0"}, "optional_packages_version": {"nowhere": "1"}})
    lines = text.splitlines()
    assert lines[0].startswith("# What this bundle was packed with (Python 3.")
    assert [line for line in lines if not line.startswith("#")] == ["onnx==1.23.2", "sym-py==1.14", "torch==2.13.0"]


def test_of_this_environment_every_version_is_the_installed_one():
    found = lock.locked(["monai"])
    assert found["monai"] == metadata.version("monai")
    assert found["torch"] == metadata.version("torch").partition("+")[0]
    assert "sympy" in found
