"""Check a bundle's files: MONAI's specification, what its zoo asks for besides, and the manifest of a packed one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from medseg.bundle.verify.bundle_files import METADATA, BundleFiles
from medseg.bundle.verify.manifest import MANIFEST, compare
from medseg.errors import DataError
from medseg.findings import Finding, error, warning

WEIGHTS = ("models/model.pt", "models/model.safetensors")
_LICENSES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "docs/license.txt")
_LARGE_FILES = ("large_files.yml", "large_files.yaml", "large_files.json")
_OF_THE_BUNDLE = ("configs/", "models/", "docs/", "scripts/")


def check_files(bundle: BundleFiles) -> Iterator[Finding]:
    """Find files that are missing."""
    root, missing = bundle.root, "the file is missing"
    if not (root / "configs" / f"{METADATA}.json").is_file():
        yield error("file-missing", bundle.location(METADATA), missing, "MONAI recognizes a bundle by it.")
    if not any((root / "configs" / f"{name}.json").is_file() for name in ("train", "inference")):
        message = "train.json and inference.json are both missing"
        yield error("file-missing", "configs", message, "The bundle can run nothing: add one of them.")
    elif not (root / "configs" / "inference.json").is_file():
        yield warning("file-missing", bundle.location("inference"), missing, "Predicting needs it.")
    if not any((root / name).is_file() for name in _LICENSES):
        yield warning("file-missing", "LICENSE", missing, "Without a license others may not use the bundle.")
    if not (root / "docs" / "README.md").is_file():
        yield warning("file-missing", "docs/README.md", missing, "Say there what the bundle does.")
    if any((root / name).is_file() for name in WEIGHTS):
        return
    listed = next((name for name in _LARGE_FILES if (root / name).is_file()), None)
    if listed is not None:
        message = "the weights are listed here and are not in the bundle"
        yield warning("weights-elsewhere", listed, message, "Download them first.")
    elif not bundle.is_recipe:
        fix = "Finish the training, or copy them from where it ran."
        yield error("weights-missing", WEIGHTS[0], "the bundle has no weights", fix)


def check_manifest(bundle: BundleFiles) -> Iterator[Finding]:
    """Find files of a packed bundle that were changed, lost or added after packing."""
    if not (bundle.root / MANIFEST).is_file():
        return
    try:
        findings = compare(bundle.root)
    except DataError as problem:
        yield error("manifest", MANIFEST, problem.reason, problem.fix)
        return
    for finding in findings:
        # evaluating and predicting write into the folder too: what they leave is only noted
        is_output = finding.code == "file-not-listed" and not finding.location.startswith(_OF_THE_BUNDLE)
        yield replace(finding, severity="note") if is_output else finding
