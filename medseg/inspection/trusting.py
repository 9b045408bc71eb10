"""The gate: a bundle that could do more than what is known is not run, unless somebody says that it is trusted."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from medseg.errors import UntrustedError
from medseg.findings import Finding, error
from medseg.inspection.inspecting import inspect_bundle
from medseg.inspection.run_folder import of_run
from medseg.places import homes

logger = logging.getLogger(__name__)

TRAINING = "train"
_SHOWN = 3
_OF_TRAINING = ("configs/train.json", "monitor/", "run.json")  # what nothing but training and resuming reads


def require_trust(root: str | Path, trust: bool, use: str = TRAINING, overlays: Iterable[str | Path] = ()) -> None:
    """Let a bundle pass that does nothing but what is known, or that somebody trusts.

    Args:
        root: its folder.
        trust: whether somebody said that it is trusted; then what was found is only logged.
        use: what it is wanted for. Where a training would send things matters to `train` alone.
        overlays: JSON files that are to be laid over its configs.

    Raises:
        UntrustedError: something was found that could do harm; names it.
        BundleError: there is no bundle.
    """
    found = [one for one in inspect_bundle(root, overlays).findings if one.severity == "error" and _matters(one, use)]
    _pass(f"bundle {root}", found, trust, f"See all of it with: medseg bundle inspect {root}. ")


def require_trusted_command(folder: Path, arguments: Sequence[str], here: Path, trust: bool) -> None:
    """Let a run be gone on with whose record says nothing but what is known, or that somebody trusts.

    `medseg train`, which goes on with it, looks into the bundle itself; MONAI's own command looks into nothing, so the
    bundles of its configs are looked into here.

    Args:
        folder: the run's.
        arguments: what Python is called with to go on.
        here: the working directory of that.
        trust: see `require_trust`.

    Raises:
        UntrustedError: see `require_trust`.
    """
    _pass(f"run {folder}", of_run(folder), trust, "")
    if list(arguments[:2]) != ["-m", "monai.bundle"]:
        return
    for path in _config_files(arguments[3:], here):
        root = path.parent.parent
        ours = any(path.parent == (home / "configs").resolve() for home in homes()[1:])
        if not ours and path.parent.name == "configs" and path.suffix in (".json", ".conf"):
            require_trust(root, trust)
        elif not ours:
            found = [error("command-unsafe", str(path), "it lies in no bundle, so nobody has looked into it")]
            _pass(f"run {folder}", found, trust, "")


def _config_files(words: Sequence[str], here: Path) -> Iterator[Path]:
    """The files that MONAI's command would read settings from, of lists of them, too."""
    names = ("config_file", "meta_file", "logging_file", "tracking", "args_file", "properties_path")
    before = ""
    for word in words:
        value = word.partition("=")[2] if word.startswith("--") else word
        for piece in re.split(r"[,\[\]'\" ]+", value) if value else ():
            path = (here / piece).resolve()
            named = before.lstrip("-") in names or word.lstrip("-").partition("=")[0] in names
            if (
                piece
                and path.is_file()
                and (named or path.suffix.lower() in (".json", ".yaml", ".yml", ".conf", ".py"))
            ):
                yield path
        before = word


def _pass(thing: str, found: Sequence[Finding], trust: bool, remedy: str) -> None:
    if not found:
        return
    if trust:
        logger.warning("%s: %s, trusted all the same (--trust)", thing, _count(found))
        return
    said = [f"{one.code} in {one.place}: {one.message}" if one.place else f"{one.code}: {one.message}" for one in found]
    more = f"; and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
    raise UntrustedError(
        thing,
        "must do nothing but what is known to be harmless, or be trusted",
        f"{_count(found)}: {'; '.join(said[:_SHOWN])}{more}",
        f"{remedy}If you trust who made it, give --trust.",
    )


def _matters(finding: Finding, use: str) -> bool:
    return finding.code != "sends-elsewhere" or use == TRAINING or not finding.place.startswith(_OF_TRAINING)


def _count(found: Sequence[Finding]) -> str:
    return f"{len(found)} unsafe {'thing' if len(found) == 1 else 'things'}"
