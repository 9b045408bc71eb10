"""Install a packed bundle from others as one that runs here, checked before anything of it is executed."""

from __future__ import annotations

import contextlib
import glob
import re
import shutil
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from packaging.version import InvalidVersion, Version

import medseg
from medseg.atomic import atomic_folder, move
from medseg.bundle.bundle import Bundle, require_trust
from medseg.bundle.evaluation_context import METADATA
from medseg.bundle.share.archive import folder_name
from medseg.bundle.share.guards import errors_name, refuse, require_clean, sigterm_as_interrupt
from medseg.bundle.share.self_test import SelfTest, kind_of, run_self_test
from medseg.bundle.share.transfer import fetch
from medseg.bundle.verify.manifest import compare, read_manifest
from medseg.errors import BundleError, DataError, OutputError, UntrustedError, command_line
from medseg.inspection import check_archive, unpack
from medseg.search_path import search_path

_METADATA_IN_ZIP = re.compile(rf"([^/]+/)?configs/{re.escape(METADATA)}")
_STALE = 3600.0  # seconds after which a folder that an install left behind belongs to no running one


@dataclass(frozen=True)
class InstalledBundle:
    """A bundle that was installed.

    Args:
        root: its folder.
        name: its name in its metadata.
        version: its version.
        has_manifest: True if a manifest lists its files.
        test: its masks here compared with those that came with it; None where no self-test came or was run.
        hides: name of a bundle of medseg's own that this one is found instead of, in this folder.
        kind: what it takes: `volume`, `slices`, or None where it cannot be told.
    """

    root: Path
    name: str
    version: str
    has_manifest: bool
    test: SelfTest | None
    hides: str | None = None
    kind: str | None = None


def install_bundle(
    source: str | Path,
    folder: str | Path | None = None,
    *,
    trust: bool = False,
    sha256: str | None = None,
    self_test: bool = True,
    device: str | None = None,
) -> InstalledBundle:
    """Fetch, check and unpack a packed bundle, and check that it does here what it did where it was packed.

    In this order: fetch it and check its SHA-256; check the zip itself, and every file against the manifest; inspect
    it, which runs nothing of it; unpack and verify it; run its self-test. An error at any step leaves nothing behind.

    Args:
        source: a zip, or where to fetch it, see `medseg.bundle.share.transfer.fetch`.
        folder: becomes the bundle's folder; by default `bundles/<name>` in the working directory, where it is found
            by its name.
        trust: True installs a bundle that would run code not known to be safe.
        sha256: what the SHA-256 of the zip must be.
        self_test: False skips the self-test; else a bundle whose mask differs here is refused (`SelfTest.close`).
        device: for the self-test; by default what the bundle chooses.

    Raises:
        DataError: it cannot be fetched, is damaged or tampered with, or gives another mask.
        BundleError: it is not safe, not complete, or made by a newer medseg or MONAI.
        OutputError: the folder has files already, or cannot be written.
        MissingExtraError: the extra `share` is not installed.

    Example:
        >>> installed = install_bundle("liver.zip", "bundles/liver")  # doctest: +SKIP
        >>> installed.test.differing  # doctest: +SKIP
        0
    """
    with sigterm_as_interrupt(), tempfile.TemporaryDirectory(prefix="medseg-install-") as location:
        path = fetch(source, Path(location), sha256)
        manifest = _checked_manifest(path)
        try:
            require_trust(path, trust, "install")
        except UntrustedError as error:
            if not path.is_relative_to(location):
                raise
            pull, inspect = command_line("bundle", "pull", source), command_line("bundle", "inspect", path.name)
            look = f"See all of it with: {pull}, then {inspect}."
            fix = f"{look} If you trust who made it, give --trust."
            raise UntrustedError(source, error.problem, error.came, fix) from error
        name = str((manifest or {}).get("bundle") or path.stem)
        target = _require_free(Path(folder) if folder is not None else Path("bundles", folder_name(name)))
        _clear_stale(target)
        with _new_parents(target), atomic_folder(target) as partial, errors_name(partial, path.name):
            _unpack_bundle(path, partial)
            require_clean(partial, trust, path.name)
            bundle = Bundle(partial, trust)
            test = run_self_test(bundle, device) if self_test else None
            if test is not None and not test.close:
                problem = "its self-test gives another mask here than the one that came with it"
                raise DataError(path.name, problem, str(test), "--no-self-test installs it without this check.")
            name, version = bundle.name, str(bundle.metadata.get("version", ""))
            kind = kind_of(bundle)
    return InstalledBundle(target.resolve(), name, version, manifest is not None, test, _hidden_bundle(target), kind)


def _checked_manifest(path: Path) -> dict[str, object] | None:
    """Check a zip's tables, its files against its manifest, and the versions it needs; return the manifest."""
    refuse(path.name, "the zip is damaged or not safe to unpack", check_archive(path), "Fetch it again.")
    with zipfile.ZipFile(path) as archive:
        if not any(_METADATA_IN_ZIP.fullmatch(name) for name in archive.namelist()):
            raise BundleError(
                path.name, f"it has no configs/{METADATA}, so it is not a bundle", "", "Give another zip."
            )
        manifest = read_manifest(archive)
        refuse(path.name, "its files are not those of its manifest", compare(archive), "Fetch it again.")
    if manifest is not None:
        _require_versions(path, manifest.get("made_with"))
    return manifest


def _clear_stale(target: Path) -> None:
    """Remove what an earlier install to the same folder left behind when it was killed."""
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 8}.partial*"):
        with contextlib.suppress(OSError):
            newest = max((path.stat().st_mtime for path in (leftover, *leftover.rglob("*"))), default=0.0)
            if time.time() - newest > _STALE:
                shutil.rmtree(leftover, ignore_errors=True)


def _hidden_bundle(target: Path) -> str | None:
    """Return the name of medseg's own bundle that is no longer found by its name, because this one is."""
    here, *others = search_path()
    if target.parent.resolve() != (here / "bundles").resolve():
        return None
    for home in others:
        bundle = home / "bundles" / target.name
        if (bundle / "configs" / METADATA).is_file() and bundle.resolve() != target.resolve():
            return target.name
    return None


@contextlib.contextmanager
def _new_parents(target: Path) -> Iterator[None]:
    """After an error, remove the folders above a folder that were made for it."""
    created = [folder for folder in target.absolute().parents if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in created:
            with contextlib.suppress(OSError):  # it has the files of others by now
                folder.rmdir()
        raise


def _unpack_bundle(path: Path, folder: Path) -> None:
    """Unpack a zip so that the bundle is `folder` itself, in whatever folder it is in the zip."""
    unpack(path, folder)
    candidates = [folder, *sorted(inner for inner in folder.iterdir() if inner.is_dir())]
    root = next(candidate for candidate in candidates if (candidate / "configs" / METADATA).is_file())
    if root != folder:
        aside = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}")
        try:
            move(root, aside)
            shutil.rmtree(folder)
            move(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _require_versions(path: Path, made_with: object) -> None:
    """Require medseg and MONAI not to be older than those it was packed with, by their first two numbers."""
    if not isinstance(made_with, dict):
        return
    for package, version in (("medseg", medseg.__version__), ("monai", _installed("monai"))):
        needed = made_with.get(package)
        try:
            is_newer = bool(needed) and Version(str(needed)).release[:2] > Version(version).release[:2]
        except InvalidVersion:
            continue
        if is_newer:
            problem, fix = f"it needs {package} {needed} or later", f"pip install --upgrade {package}"
            raise BundleError(path.name, problem, f"{version} is installed", fix)


def _installed(package: str) -> str:
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return "0"


def _require_free(target: Path) -> Path:
    """Return a folder as an absolute path.

    Raises:
        OutputError: it is not free for a bundle.
    """
    target = target.resolve()
    if Path.cwd().is_relative_to(target):
        problem = "a bundle cannot be installed in the working directory or one above it"
        raise OutputError(target, problem, "", "Name a new folder.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(target, "the folder has files already", "", "Choose another one with -o.")
    return target
