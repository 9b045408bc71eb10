"""Install a packed bundle from others as one that runs here, checked before anything of it is executed."""

from __future__ import annotations

import contextlib
import functools
import glob
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medseg.atomic import atomic_folder, move
from medseg.bundle.bundle import Bundle
from medseg.bundle.evaluation_context import METADATA
from medseg.bundle.share.archive import folder_name
from medseg.bundle.share.guards import errors_name, refuse, require_clean, sigterm_as_interrupt, spares_masks
from medseg.bundle.share.self_test import SelfTest, kind_of, run_self_test
from medseg.bundle.share.transfer import fetch
from medseg.bundle.verify.bundle_files import bundle_folder
from medseg.bundle.verify.manifest import compare, read_manifest
from medseg.errors import BundleError, DataError, OutputError, UntrustedError, command_line
from medseg.inspection import check_archive, require_safe, unpack
from medseg.inspection.contents import open_contents
from medseg.runs.origin import remember_bundle
from medseg.search_path import search_path

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
        trust: True installs a bundle that holds something unsafe, and lets its self-test run what its configs name.
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
            require_safe(path, trust)
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
        remember_bundle(target, is_own=False)  # before it is there, so that it never counts as the user's own
        with _new_parents(target), atomic_folder(target) as partial, errors_name(partial, path.name):
            _unpack_bundle(path, partial)
            require_clean(partial, trust, path.name, functools.partial(spares_masks, is_ours=manifest is not None))
            bundle = Bundle(partial, trust)
            test = run_self_test(bundle, device) if self_test else None
            if test is not None and not test.close:
                problem = "its self-test gives another mask here than the one that came with it"
                raise DataError(path.name, problem, str(test), "--no-self-test installs it without this check.")
            name, version = bundle.name, str(bundle.metadata.get("version", ""))
            kind = kind_of(bundle)
    return InstalledBundle(target.resolve(), name, version, manifest is not None, test, _hidden_bundle(target), kind)


def _checked_manifest(path: Path) -> dict[str, object] | None:
    """Check a zip's tables, and its files against its manifest; return the manifest."""
    refuse(path.name, "the zip is damaged or not safe to unpack", check_archive(path), "Fetch it again.")
    if f"configs/{METADATA}" not in open_contents(path).sizes:
        raise BundleError(path.name, f"it has no configs/{METADATA}, so it is not a bundle", "", "Give another zip.")
    refuse(path.name, "its files are not those of its manifest", compare(path), "Fetch it again.")
    return read_manifest(path)


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
    aside = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        move(bundle_folder(unpack(path, aside)), folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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
