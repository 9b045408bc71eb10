import os
import subprocess
import sys

import pytest

from medseg import optional
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


NUMBA_CODE = """
import os
import subprocess
import sys
sys.path.insert(0, {folder!r})
{importing}
import small
print(small.double(2))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("importing", "ran"), [("import numba", True), ("", False)], ids=["plain numba", "medseg"])
def test_a_cache_of_compiled_code_in_the_working_directory_is_not_unpickled(tmp_path, importing, ran):
    """With plain numba the planted pickle runs: the attack is real."""
    pytest.importorskip("numba")
    pytest.importorskip("yaml")
    package, scans, mark = tmp_path / "package", tmp_path / "scans", tmp_path / "ran"
    package.mkdir()
    scans.mkdir()
    maker = "import numba" if importing else "from medseg.optional import require_numba; numba = require_numba()"
    (package / "small.py").write_text(f"{maker}\n@numba.njit(cache=True)\ndef double(x):\n    return 2 * x\n")
    (scans / ".numba_config.yaml").write_text("cache_dir: planted\n")
    code = NUMBA_CODE.format(folder=str(package), importing=importing)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}

    def run(**variables):
        command, variables = [sys.executable, "-c", code], {**environment, **variables}
        return subprocess.run(command, cwd=scans, env=variables, capture_output=True, text=True).stdout

    assert run(NUMBA_CACHE_DIR=str(scans / "planted")) == "4\n"
    index = list((scans / "planted").rglob("*.nbi"))
    assert index
    for path in index:
        path.write_bytes(planted(mark))
    assert (run(XDG_CACHE_HOME=str(tmp_path / "cache")) == "4\n") is not ran
    assert mark.exists() is ran
    if not ran and sys.platform == "linux":
        assert list((tmp_path / "cache/medseg/numba").rglob("*.nbi"))
        assert ((tmp_path / "cache/medseg/numba").stat().st_mode & 0o777) == 0o700


def planted(mark):
    """Return a pickle that makes a file when it is loaded."""
    return f"cposix\nmkdir\n(V{mark}\ntR.".encode() if os.name == "posix" else f"cnt\nmkdir\n(V{mark}\ntR.".encode()


def test_a_folder_that_others_can_write_to_is_not_the_cache(tmp_path, monkeypatch):
    if os.name != "posix":
        pytest.skip("permissions of POSIX")
    monkeypatch.setattr(optional.platformdirs, "user_cache_path", lambda *_, **__: tmp_path)
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba").chmod(0o777)
    assert optional._private_folder("numba") == ""
    (tmp_path / "numba").chmod(0o700)
    assert optional._private_folder("numba") == str(tmp_path / "numba")
    monkeypatch.setattr(optional.platformdirs, "user_cache_path", lambda *_, **__: tmp_path / "file")
    (tmp_path / "file").touch()
    assert optional._private_folder("numba") == ""
