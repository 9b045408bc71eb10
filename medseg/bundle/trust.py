"""The trust gate: refuse a bundle that could do harm before anything of it is resolved."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medseg import inspection
from medseg.runs.resume import was_started_here


def require_trust(root: str | Path, trust: bool, use: str = "train", overlays: Iterable[str | Path] = ()) -> None:
    """Refuse a bundle that could do more than what is known to be harmless, unless it is trusted.

    Args:
        root: its folder, or a zip of it.
        trust: True if the user trusts it; then the findings are only logged.
        use: what it is to be used for. Where a training would send things matters to `train` alone, and not if this
            user started the run in the folder.
        overlays: JSON files that are to be laid over its configs.

    Raises:
        UntrustedError: a finding could do harm; names it.
        BundleError: there is no bundle.
    """
    inspection.require_trust(root, trust, use, overlays, was_started_here(root))
