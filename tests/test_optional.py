import sys

import pytest

from medseg.errors import MissingExtraError
from medseg.optional import require


def test_a_missing_package_names_the_extra_that_brings_it():
    with pytest.raises(MissingExtraError, match=r"pip install 'medseg\[web\]'"):
        require("no_such_package_anywhere", extra="web")


def test_a_submodule_of_a_missing_package_does_so_too():
    with pytest.raises(MissingExtraError, match="optional package"):
        require("no_such_package_anywhere.part", extra="web")


def test_a_package_that_is_there_but_lacks_something_itself_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_broken.py").write_text("import no_such_dependency_of_it\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("half_broken", None)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency_of_it"):
        require("half_broken", extra="web")
