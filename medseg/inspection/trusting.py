"""The gate: a bundle that could do more than what is known is not run, unless somebody says that it is trusted."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from medseg.errors import UntrustedError
from medseg.findings import Finding, error
from medseg.inspection.commands import named
from medseg.inspection.inspecting import COMMAND, inspect_bundle
from medseg.inspection.names import printable
from medseg.inspection.run_folder import of_run
from medseg.runs.resume import was_started_here

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
    if was_started_here(root):  # with this very config, so its addresses are the user's own
        found = [one for one in found if one.code != "sends-elsewhere" or not one.location.startswith(_OF_TRAINING)]
    _pass(f"bundle {root}", found, trust, f"See all of it with: medseg bundle inspect {root}. ")


def require_trusted_command(
    folder: Path, arguments: Sequence[str], here: Path, trust: bool, typed: Collection[str] = ()
) -> None:
    """Let a run be gone on with whose record says nothing but what is known, or that somebody trusts.

    The bundles that it names are looked into with the overlays and the overrides that it lays over them.

    Args:
        folder: the run's.
        arguments: what Python is called with to go on.
        here: the working directory of that.
        trust: see `require_trust`.
        typed: keys that are set by who goes on with it, not by the record.

    Raises:
        UntrustedError: see `require_trust`.
    """
    thing = f"run {folder}"
    _pass(thing, of_run(folder), trust, "")
    found = named(arguments, here, typed)
    _pass(thing, [error("command-unsafe", COMMAND, printable(one, 400)) for one in found.faults], trust, "")
    for root in dict.fromkeys(found.roots):
        findings = inspect_bundle(root, found.overlays, found.overrides).findings
        _pass(f"bundle {root}, as {thing} has it", [one for one in findings if one.severity == "error"], trust, "")


def _pass(thing: str, found: Sequence[Finding], trust: bool, fix: str) -> None:
    if not found:
        return
    if trust:
        logger.warning("%s: %s, trusted all the same (--trust)", thing, _count(found))
        return
    said = [
        f"{one.code} in {one.location}: {one.message}" if one.location else f"{one.code}: {one.message}"
        for one in found
    ]
    more = f"; and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
    raise UntrustedError(
        thing,
        "must do nothing but what is known to be harmless, or be trusted",
        f"{_count(found)}: {'; '.join(said[:_SHOWN])}{more}",
        f"{fix}If you trust who made it, give --trust.",
    )


def _matters(finding: Finding, use: str) -> bool:
    return finding.code != "sends-elsewhere" or use == TRAINING or not finding.location.startswith(_OF_TRAINING)


def _count(found: Sequence[Finding]) -> str:
    return f"{len(found)} unsafe {'thing' if len(found) == 1 else 'things'}"
