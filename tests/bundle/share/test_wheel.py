"""medseg's wheel: built from its source, and put together from an installed one."""

import subprocess
import sys
import venv
import zipfile

import pytest

import medseg
from medseg.bundle.share import wheel
from medseg.errors import ConfigError


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("setuptools", minversion="77", reason="needs setuptools 77")
    return wheel.make_wheel(tmp_path_factory.mktemp("wheel"))


def contents(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_it_holds_the_package_its_bundles_and_nothing_of_this_machine(built, repository):
    assert built.name == f"medseg-{medseg.__version__}-py3-none-any.whl"
    files = contents(built)
    modules = {path.relative_to(repository).as_posix() for path in (repository / "medseg").rglob("*.py")}
    assert modules <= set(files)
    shared = f"medseg-{medseg.__version__}.data/data/share/medseg/bundles/unet2d/configs/train.json"
    assert files[shared] == (repository / "bundles" / "unet2d" / "configs" / "train.json").read_bytes()
    assert not [name for name, content in files.items() if str(repository).encode() in content]
    assert not [name for name in files if "tests/" in name or name.endswith(".pyc")]


def test_the_same_source_gives_the_same_bytes_and_is_left_as_it_is(built, tmp_path, repository):
    before = {path: path.stat().st_mtime_ns for path in repository.glob("*")}
    assert wheel.make_wheel(tmp_path).read_bytes() == built.read_bytes()
    assert {path: path.stat().st_mtime_ns for path in repository.glob("*")} == before


def test_of_an_installed_medseg_the_same_wheel_is_made(built, tmp_path):
    """Installed into an environment of its own, without what it needs: none of that is imported here."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = next(path for path in (tmp_path / "env").glob("*/python*") if path.stem == "python")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run([*pip, str(built)], capture_output=True, text=True, check=False, cwd=tmp_path)
    if done.returncode and "No module named pip" in done.stderr:
        pytest.skip("needs pip")
    assert done.returncode == 0, done.stderr
    site = next((tmp_path / "env").glob("**/site-packages/medseg")).parent
    code = (
        "import sys, types, pathlib\n"
        "for name in ('medseg.bundle', 'medseg.bundle.share'):\n"
        f"    part = types.ModuleType(name); part.__path__ = [str(pathlib.Path({str(site)!r}, *name.split('.')))]\n"
        "    sys.modules[name] = part\n"
        "from medseg.bundle.share.wheel import make_wheel\n"
        f"print(make_wheel(pathlib.Path({str(tmp_path / 'again')!r})))\n"
    )
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (again,) = (tmp_path / "again").glob("*.whl")
    assert contents(again) == contents(built)
    assert again.read_bytes() == built.read_bytes()


def test_where_it_cannot_be_built_one_error_says_why(tmp_path):
    (tmp_path / "setup.cfg").write_text("[metadata]\nname = medseg\nversion = file: nowhere\n[metadata]\n")
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match=r"needs setuptools 77 or later to be built [(].*Error"):
        wheel._built(tmp_path, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
