"""From a zip that somebody sent to a bundle that runs here: looked at before anything of it is executed."""

from __future__ import annotations

import contextlib
import glob
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from packaging.version import InvalidVersion, Version

import medseg
from medseg.atomic import atomic_folder
from medseg.bundle.bundle import Bundle
from medseg.bundle.share.archiving import folder_name
from medseg.bundle.share.gates import refuse, renamed, require_clean
from medseg.bundle.share.self_test import SelfTest, run_self_test
from medseg.bundle.share.sources import fetch
from medseg.bundle.share.stopping import stoppable
from medseg.bundle.source import METADATA
from medseg.bundle.trust import require_trust
from medseg.bundle.verify.manifest import compare, read_manifest
from medseg.errors import BundleError, DataError, MedsegError, OutputError, UntrustedError
from medseg.inspection import check_archive, unpack
from medseg.search_path import search_path

_STALE = 3600.0  # seconds after which an install that left a folder behind is not going on any more


@dataclass(frozen=True)
class Installed:
    """A bundle that was installed.

    Args:
        root: its folder.
        name: what its metadata calls it.
        version: its version.
        listed: whether a manifest lists its files.
        test: how its masks here stand to those that came with it; None where no self-test came, or none was wanted.
        hides: the name of a bundle of medseg's own that this one is found instead of, in this folder.
    """

    root: Path
    name: str
    version: str
    listed: bool
    test: SelfTest | None
    hides: str | None = None


def install_bundle(
    source: str | Path,
    folder: str | Path | None = None,
    *,
    trust: bool = False,
    sha256: str | None = None,
    self_test: bool = True,
    device: str | None = None,
) -> Installed:
    """Unpack a packed bundle, having looked at it first, and see that it does here what it did where it was packed.

    In this order: fetched, its SHA-256; the zip itself, every file held against the manifest; inspected, nothing of it
    executed; unpacked; verified; its self-test run. An error at any of these leaves nothing behind.

    Args:
        source: a zip, or where to fetch it, see `medseg.bundle.share.sources.fetch`.
        folder: becomes the bundle's folder; by default `bundles/<name>` in the working directory, where it is found
            by its name.
        trust: go on though it would run what nobody knows to be safe.
        sha256: what the SHA-256 of the zip must be.
        self_test: whether to run it, and refuse a bundle whose mask is another one here (`SelfTest.close`).
        device: for the self-test; by default what the bundle chooses.

    Raises:
        DataError: it cannot be fetched, is damaged or tampered with, or gives another mask.
        BundleError: it is not safe, not whole, or made by a newer medseg or MONAI.
        OutputError: the folder holds other files, or cannot be written.
    """
    with stoppable(), tempfile.TemporaryDirectory(prefix="medseg-install-") as location:
        path = fetch(source, Path(location), sha256)
        unfit = check_archive(path)
        if unfit:
            refuse(path.name, "must be a whole zip that is safe to unpack", unfit, "Fetch it again.")
        manifest = read_manifest(path)
        wrong = [one for one in compare(path) if one.severity == "error"]
        if wrong:
            refuse(path.name, "must hold the files that its manifest lists", wrong, "Fetch it again.")
        if manifest is not None:
            _require_versions(path, manifest.get("made_with"))
        try:
            require_trust(path, trust, "install")
        except UntrustedError as error:
            if not path.is_relative_to(location):
                raise
            look = f"See all of it with: medseg bundle pull {source}, then medseg bundle inspect {path.name}."
            raise UntrustedError(
                source, error.problem, error.came, f"{look} If you trust who made it, give --trust."
            ) from error
        target = Path(folder) if folder is not None else Path("bundles", folder_name(_name(path, manifest)))
        target = _required_free(target)
        _clear_stale(target)
        with _new_parents(target), _placed(target) as partial:
            root = partial
            try:
                _unpacked(path, partial)
                require_clean(root, trust, path.name)
                bundle = Bundle(root)
                test = run_self_test(bundle, device) if self_test else None
            except MedsegError as error:
                raise renamed(error, partial, path.name) from error
            if test is not None and not test.close:
                rule = "must give the mask here that came with it"
                raise DataError(path.name, rule, str(test), "--no-self-test installs it all the same.")
            name, version = bundle.name, str(bundle.metadata.get("version", ""))
    return Installed(target.resolve(), name, version, manifest is not None, test, _hides(target))


@contextlib.contextmanager
def _placed(target: Path) -> Iterator[Path]:
    """A folder that becomes the bundle's; an error where somebody else made that one in the meantime."""
    try:
        with atomic_folder(target) as partial:
            yield partial
            if target.exists() and any(target.iterdir()):
                raise OutputError(
                    target, "must be free until the end", "that somebody installed a bundle there meanwhile"
                )
    except OutputError as error:
        if isinstance(error.__cause__, OSError) and target.is_dir() and any(target.iterdir()):
            said = "that somebody installed a bundle there meanwhile"
            raise OutputError(target, "must be free until the end", said) from error
        raise


def _clear_stale(target: Path) -> None:
    """Remove what an earlier install to the same place left behind when it was killed."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 8}.partial*"):
        with contextlib.suppress(OSError):
            newest = max((path.stat().st_mtime for path in (left, *left.rglob("*"))), default=0.0)
            if time.time() - newest > _STALE:
                shutil.rmtree(left, ignore_errors=True)


def _hides(target: Path) -> str | None:
    """The name of a bundle of medseg's own that is not found by its name any more, because this one is."""
    here, *others = search_path()
    if target.parent.resolve() != (here / "bundles").resolve():
        return None
    own = [home / "bundles" / target.name for home in others]
    hidden = [one for one in own if (one / "configs" / METADATA).is_file() and one.resolve() != target.resolve()]
    return target.name if hidden else None


@contextlib.contextmanager
def _new_parents(target: Path) -> Iterator[None]:
    """After an error, remove the folders above a folder that were made for it."""
    made = [folder for folder in target.absolute().parents if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # somebody else's files
                folder.rmdir()
        raise


def _unpacked(path: Path, partial: Path) -> Path:
    """The bundle's folder made of a zip, at that place itself whatever folder the zip has around it."""
    unpack(path, partial)
    places = [partial, *sorted(one for one in partial.iterdir() if one.is_dir())]
    found = [location for location in places if (location / "configs" / METADATA).is_file()]
    if not found:
        raise BundleError(path.name, f"must hold a bundle, with configs/{METADATA}", "none")
    if found[0] != partial:
        aside = partial.with_name(f"{partial.name}.{uuid.uuid4().hex[:8]}")
        try:
            found[0].rename(aside)
            shutil.rmtree(partial)
            aside.rename(partial)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return partial


def _require_versions(path: Path, made_with: object) -> None:
    """See that medseg and MONAI here are not older than those it was packed with, by their first two numbers."""
    if not isinstance(made_with, dict):
        return
    for package, here in (("medseg", medseg.__version__), ("monai", _installed("monai"))):
        said = made_with.get(package)
        try:
            newer = bool(said) and Version(str(said)).release[:2] > Version(here).release[:2]
        except InvalidVersion:
            continue
        if newer:
            wheel = " Its own may lie in the zip, in wheels/." if package == "medseg" else ""
            raise BundleError(
                path.name, f"needs {package} {said} or later", here, f"pip install --upgrade {package}.{wheel}"
            )


def _installed(package: str) -> str:
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return "0"


def _name(path: Path, manifest: dict[str, object] | None) -> str:
    said = (manifest or {}).get("bundle")
    return str(said) if said else path.stem


def _required_free(target: Path) -> Path:
    """The folder as an absolute path."""
    target = target.resolve()
    if Path.cwd().is_relative_to(target):
        raise OutputError(target, "must be a folder of its own", "the working directory or one above it", "Name one.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(target, "must be a new or an empty folder", "other files", "Choose another one with -o.")
    return target
