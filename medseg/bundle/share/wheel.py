"""medseg's own wheel, as it is running here: from its source, or put together again from an installed one."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath

import medseg
from medseg.bundle.share.archiving import write_archive
from medseg.errors import ConfigError

_SOURCE = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "medseg", "bundles", "configs")
_DROPPED = ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD.jws", "RECORD.p7s", "RECORD")  # pip writes its own
_OF_1980 = "315532800"


def make_wheel(folder: Path) -> Path:
    """Write the wheel of this medseg into a folder; the same source gives the same bytes.

    Raises:
        ConfigError: it can neither be built here nor put together from what is installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(medseg.__file__).resolve().parents[1]
    recipe = source / "setup.cfg"
    own = recipe.is_file() and "name = medseg" in recipe.read_text(encoding="utf-8", errors="replace")
    wheel = _built(source, folder) if own else _gathered(folder)
    _settle(wheel)
    return wheel


def _settle(wheel: Path) -> None:
    """Give a wheel fixed times, permissions and order, in its own list of files as well; what it holds stays."""
    with tempfile.TemporaryDirectory(prefix="medseg-wheel-") as location:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(location)
        for record in Path(location).glob("*.dist-info/RECORD"):
            lines = record.read_text(encoding="utf-8").splitlines()
            record.write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8", newline="\n")
        write_archive(Path(location), wheel)


def _built(source: Path, folder: Path) -> Path:
    """Built from a copy of the source: setuptools leaves files beside what it builds."""
    with tempfile.TemporaryDirectory(prefix="medseg-wheel-") as location:
        copy, made = Path(location, "source"), Path(location, "made")
        copy.mkdir()
        made.mkdir()
        skip = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".*", "*.pt", "*.safetensors")
        for name in _SOURCE:
            if (source / name).is_dir():
                shutil.copytree(source / name, copy / name, ignore=skip)
            elif (source / name).is_file():
                shutil.copyfile(source / name, copy / name)
        code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(made)!r}))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=copy,
            env={**os.environ, "SOURCE_DATE_EPOCH": _OF_1980},
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = list(made.glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise ConfigError(
                "medseg's wheel", "needs setuptools 77 or later to be built", said, "pip install 'setuptools>=77'"
            )
        return Path(shutil.copyfile(wheels[0], folder / wheels[0].name))


def _gathered(folder: Path) -> Path:
    """Put together from the files that pip noted when it installed medseg."""
    try:
        installed = metadata.distribution("medseg")
    except metadata.PackageNotFoundError as error:
        raise ConfigError("medseg's wheel", "needs medseg to be installed", "no such package") from error
    site = Path(str(installed.locate_file(""))).resolve()
    prefix = Path(sys.prefix).resolve()
    name = f"medseg-{installed.version}"
    wheel = folder / f"{name}-py3-none-any.whl"
    held: dict[str, Path] = {}
    for entry in installed.files or ():
        path = Path(str(installed.locate_file(entry))).resolve()
        parts = PurePosixPath(entry.as_posix()).parts
        if "__pycache__" in parts or path.name in _DROPPED or not path.is_file():
            continue
        if path.is_relative_to(site):
            held[path.relative_to(site).as_posix()] = path
        elif path.is_relative_to(prefix / "share"):
            held[f"{name}.data/data/{path.relative_to(prefix).as_posix()}"] = path
    if not any(entry.endswith("/METADATA") for entry in held):
        raise ConfigError("medseg's wheel", "needs the files that medseg was installed from", "no list of them")
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for inside, file in held.items():
            archive.writestr(inside, file.read_bytes())
        archive.writestr(f"{name}.dist-info/RECORD", _record(held, name))
    return wheel


def _record(held: dict[str, Path], name: str) -> str:
    """The list of files that a wheel carries, with their hashes."""
    lines = []
    for entry, path in sorted(held.items()):
        content = path.read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{entry},sha256={digest},{len(content)}")
    return "\n".join([*lines, f"{name}.dist-info/RECORD,,"]) + "\n"
