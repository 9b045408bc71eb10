"""The files that a bundle is made of: MONAI's specification, and what its zoo asks for besides."""

from __future__ import annotations

from collections.abc import Iterator

from medseg.bundle.verify.opened import METADATA, Opened
from medseg.findings import Finding, error, warning

WEIGHTS = ("models/model.pt", "models/model.safetensors")
_LARGE = ("large_files.yml", "large_files.yaml", "large_files.json")


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on files that are not there."""
    root = bundle.root
    if not (root / "configs" / f"{METADATA}.json").is_file():
        yield error("file-missing", bundle.location(METADATA), "there is no such file", "MONAI knows a bundle by it.")
    if not any((root / "configs" / f"{name}.json").is_file() for name in ("train", "inference")):
        yield error(
            "file-missing", "configs", "there is neither train.json nor inference.json", "Nothing of it can be run."
        )
    elif not (root / "configs" / "inference.json").is_file():
        yield warning("file-missing", bundle.location("inference"), "there is no such file", "Others predict with it.")
    if not any((root / name).is_file() for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "docs/license.txt")):
        yield warning("file-missing", "LICENSE", "there is no such file", "Without one nobody may use it.")
    if not (root / "docs" / "README.md").is_file():
        yield warning("file-missing", "docs/README.md", "there is no such file", "Say there what it is and can do.")
    if any((root / name).is_file() for name in WEIGHTS):
        return
    elsewhere = next((name for name in _LARGE if (root / name).is_file()), None)
    if elsewhere is not None:
        yield warning(
            "weights-elsewhere", elsewhere, "the weights are named there and are not here", "Download them first."
        )
    elif not bundle.is_recipe:
        yield error(
            "weights-missing", WEIGHTS[0], "there are no weights", "Train to the end, or copy them from where it was."
        )
