"""An environment with medseg in it, for the scripts beside this one. Standard library only."""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("setup.cfg", "setup.py", "pyproject.toml", "constraints.txt")
OLDEST, NEWEST = (3, 11), (3, 13)


def ensure(extras: str = "") -> str:
    """Give the Python of an environment in which medseg and `extras` are installed; make and fill it if need be.

    That is the environment this script runs in, if it runs in one, else `.venv` in the repository.
    """
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        wanted = f"Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
        sys.exit(
            f"medseg needs {wanted}, this is {sys.version.split()[0]} ({sys.executable}). Start the script with it."
        )
    inside = sys.prefix != sys.base_prefix or bool(os.environ.get("CONDA_PREFIX"))
    home = Path(sys.prefix) if inside else ROOT / ".venv"
    python = sys.executable if inside else str(_python_of(home))
    if not inside and not Path(python).is_file():
        print(f"Making an environment in {home}", flush=True)
        venv.create(home, with_pip=True, clear=home.exists())
    stamp = home / ".medseg-installed"
    wanted = _fingerprint(extras)
    done = stamp.read_text().split() if stamp.is_file() else []
    if wanted not in done:
        _install(python, extras)
        stamp.write_text(" ".join([*(mark for mark in done if mark.split(":")[0] == wanted.split(":")[0]), wanted]))
    return python


def _python_of(home: Path) -> Path:
    return home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _fingerprint(extras: str) -> str:
    """Changes with the requirements and the place of the repository; what stands behind ':' are the extras."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in SOURCES:
        digest.update((ROOT / name).read_bytes())
    return f"{digest.hexdigest()[:16]}:{extras or 'core'}"


def _install(python: str, extras: str) -> None:
    constraints = str(ROOT / "constraints.txt")
    what = f"{ROOT}[{extras}]" if extras else str(ROOT)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "-c", constraints]
    print("Installing what medseg needs: some minutes the first time, nothing the next", flush=True)
    for arguments in (["torch==2.13.0"], ["-e", what]):
        code = subprocess.call([*pip, *arguments])
        if code:
            sys.exit(f"pip could not install {arguments[-1]} (exit code {code}). Its reason stands above.")


def call(python: str, *arguments: str) -> int:
    """Run Python with these arguments in the repository; gives the exit code."""
    try:
        return subprocess.call([python, *arguments], cwd=ROOT)
    except KeyboardInterrupt:
        return 130
