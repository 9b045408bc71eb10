"""Look into a bundle without running anything of it: what it is, what it holds, and what it would need."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.config.merge import LARGEST_CONFIG, parse_config
from medseg.errors import ConfigError, UntrustedError, command_line, printable
from medseg.findings import Finding, error, ranked, warning
from medseg.inspection import weights
from medseg.inspection.archive import READ_ERRORS
from medseg.inspection.contents import METADATA, Contents, open_contents
from medseg.inspection.mask_parts import MaskParts, mask_problem
from medseg.inspection.pickles import PickleReader
from medseg.inspection.plain import LABEL_MAP, TRUST_FIX

logger = logging.getLogger(__name__)

RECORD, INFERENCE = "run.json", "configs/inference.json"
_LISTED = 3
_CODE = (".py", ".pyc", ".pyo", ".pyw", ".pyd", ".pyx", ".so", ".dll", ".dylib", ".egg", ".pyi", ".pth.py")
_CODE_PATH = re.compile(r"\.(so|dylib)\.\d|\.(dist|egg)-info/")
_SCRIPTS = (
    *(".sh", ".bash", ".bat", ".cmd", ".ps1", ".exe", ".com", ".msi", ".jar", ".js", ".vbs", ".ipynb", ".desktop"),
    ".whl",
)
_LICENSE_FILES = ("LICENSE", "LICENCE", "LICENSE.txt", "LICENSE.md", "docs/license.txt")
_LICENSES = {
    "Apache License": "Apache-2.0", "MIT License": "MIT", "Permission is hereby granted, free of charge": "MIT",
    "BSD 3-Clause": "BSD-3-Clause", "Attribution 4.0": "CC-BY-4.0", "GNU GENERAL PUBLIC": "GPL",
}  # fmt: skip


@dataclass(frozen=True)
class Inspection:
    """The result of an inspection.

    Args:
        path: the folder or the zip.
        name: from its metadata, or the path's.
        version: from its metadata.
        kind: `folder` or `zip`.
        description: from its metadata.
        license: the license's short name where that is known, else its first line.
        classes: the names of the output's channels, by number.
        metrics: its results: the run's best Dice, or what the metadata says.
        files: bytes of each file.
        needs_trust: what does not run without trust, and why, by what it is: `predict`, `train`, `evaluate`.
        findings: what is unsafe or damaged, errors first.
    """

    path: Path
    name: str
    version: str
    kind: str
    description: str
    license: str
    classes: dict[str, str]
    metrics: dict[str, Any]
    files: dict[str, int]
    needs_trust: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_safe(self) -> bool:
        """True if nothing was found that is unsafe to handle: no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the form that `medseg bundle inspect --json` prints."""
        content = {key: getattr(self, key) for key in vars(self)}
        findings = [finding.to_dict() for finding in self.findings]
        return {**content, "path": str(self.path), "is_safe": self.is_safe, "findings": findings}


def inspect_bundle(path: str | Path) -> Inspection:
    """Look into a bundle; nothing of it is executed, imported or unpacked.

    Args:
        path: its folder, or a zip of it.

    Raises:
        BundleError: there is no folder and no zip.

    Example:
        >>> inspection = inspect_bundle("bundles/unet2d")  # doctest: +SKIP
        >>> inspection.is_safe, inspection.findings  # doctest: +SKIP
        (True, [])
    """
    return _Inspector(open_contents(path)).inspect()


def require_safe(path: str | Path, trust: bool) -> None:
    """Refuse a bundle with files that are unsafe to handle, unless it is trusted.

    Args:
        path: its folder, or a zip of it.
        trust: True if the user trusts it; then the findings are only logged.

    Raises:
        UntrustedError: a finding is an error; names it.
        BundleError: there is no bundle.
    """
    findings = [finding for finding in inspect_bundle(path).findings if finding.severity == "error"]
    if not findings:
        return
    count = f"{len(findings)} unsafe {'thing' if len(findings) == 1 else 'things'}"
    if trust:
        logger.warning("bundle %s: %s found, and trusted all the same (--trust)", path, count)
        return
    listed = [
        f"{finding.code} in {finding.location}: {finding.message}"
        if finding.location
        else f"{finding.code}: {finding.message}"
        for finding in findings[:_LISTED]
    ]
    more = f"; and {len(findings) - _LISTED} more" if len(findings) > _LISTED else ""
    raise UntrustedError(
        f"bundle {path}",
        f"it could do harm, with {count}: {'; '.join(listed)}{more}",
        fix=f"See all of it with: {command_line('bundle', 'inspect', path)}. {TRUST_FIX}",
    )


class _Inspector:
    def __init__(self, files: Contents) -> None:
        self.files = files
        self.findings = list(files.findings)
        self.pickles = PickleReader()

    def inspect(self) -> Inspection:
        documents: dict[str, dict[str, Any]] = {}
        for name in self.files.sizes:
            self.findings += self._file(name)
            if (name.startswith("configs/") and name.endswith(".json")) or name in (LABEL_MAP, RECORD):
                content = self._json(name)
                if content is not None:
                    documents[name] = content
        metadata = documents.get(METADATA, {})
        self.findings += _labels(metadata, documents.get(LABEL_MAP))
        if not self.files.findings and METADATA not in self.files.sizes:
            self._error("metadata-missing", METADATA, "it is not there, so this is no bundle")
        return Inspection(
            path=self.files.path,
            name=_text(metadata.get("name")) or self.files.path.resolve().name.removesuffix(".zip"),
            version=_text(metadata.get("version")),
            kind=self.files.kind,
            description=_text(metadata.get("description") or metadata.get("task")),
            license=self._license(metadata),
            classes=_classes(metadata, documents.get(LABEL_MAP)),
            metrics=_metrics(metadata, documents.get(RECORD, {})),
            files=dict(self.files.sizes),
            needs_trust=self._needs_trust(documents, metadata),
            findings=ranked(self.findings),
        )

    def _needs_trust(self, documents: Mapping[str, dict[str, Any]], metadata: Mapping[str, Any]) -> dict[str, str]:
        """Return what does not run without trust in a bundle that is not the user's own."""
        reasons: dict[str, str] = {}
        if INFERENCE in documents:
            values = {"bundle_root": ".", "device": "cpu"}
            make = lambda component, arguments: component  # noqa: E731 - nothing is made
            name, label_map = printable(str(self.files.path)), documents.get(LABEL_MAP)
            problem = mask_problem(MaskParts(documents[INFERENCE], name, make, values, metadata, label_map))
            reasons |= {} if problem is None else {"predict": problem}
        if "configs/train.json" in documents:
            reasons["train"] = "its train.json runs whatever it holds"
        return reasons

    def _error(self, code: str, location: str, message: str, fix: str = "") -> None:
        self.findings.append(error(code, printable(location), printable(message), fix))

    def _file(self, name: str) -> Iterator[Finding]:
        lower, location = name.lower(), printable(name)
        if lower.endswith(_CODE) or _CODE_PATH.search(lower):
            message = "it is code; medseg imports it only with trust"
            yield warning("code-in-bundle", location, message, "Read it before you give --trust.")
        elif lower.endswith(_SCRIPTS):
            message = "it is a program; medseg never runs it"
            yield warning("script-in-bundle", location, message, "Read it before you run it.")
        elif not lower.endswith(".json"):
            try:
                with self.files.open(name) as file:
                    yield from weights.check_file(file, name, self.files.sizes[name], self.pickles)
            except READ_ERRORS as problem:
                yield error("unreadable", location, printable(f"it cannot be read: {problem}"))

    def _read(self, name: str) -> bytes:
        try:
            return self.files.read(name, LARGEST_CONFIG + 1)
        except READ_ERRORS as problem:
            self._error("unreadable", name, f"it cannot be read: {problem}")
            return b""

    def _json(self, name: str) -> dict[str, Any] | None:
        try:
            return parse_config(self._read(name), name)
        except ConfigError as problem:
            came = f" ({problem.came})" if problem.came else ""
            self._error("config-unreadable", name, f"{problem.problem}{came}")
            return None

    def _license(self, metadata: Mapping[str, Any]) -> str:
        name = next((name for name in _LICENSE_FILES if name in self.files.sizes), None)
        if name is None:
            return _text(metadata.get("license"))
        text = self._read(name)[:2000].decode("utf-8", "replace")
        first = next((line.strip() for line in text.splitlines() if line.strip()), "")
        return next((short for words, short in _LICENSES.items() if words in text), printable(first, 80))


def _text(value: Any) -> str:
    return printable(value, 400) if isinstance(value, str) else ""


def _channels(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    content: Any = metadata
    for key in ("network_data_format", "outputs", "pred", "channel_def"):
        content = content.get(key) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else {}


def _classes(metadata: Mapping[str, Any], label_map: Any) -> dict[str, str]:
    names = _channels(metadata) or (label_map if isinstance(label_map, Mapping) else {})
    return {printable(str(key), 20): printable(str(name), 80) for key, name in names.items()}


def _labels(metadata: Mapping[str, Any], label_map: Any) -> Iterator[Finding]:
    """Find names of structures that would be unsafe as names of files."""
    for location, names in ((METADATA, _channels(metadata)), (LABEL_MAP, label_map)):
        for name in names.values() if isinstance(names, Mapping) else ():
            if isinstance(name, str) and (re.search(r"[/\\\x00-\x1f]", name) or name.startswith(".")):
                message = f"'{printable(name)}' is no name of a structure, and files are named by it"
                yield error("label-name", location, message, "Rename it.")


def _metrics(metadata: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a bundle's results: the metadata's `eval_metrics`, and the best score of a run."""
    declared = metadata.get("eval_metrics")
    metrics = (
        {printable(str(key), 80): value for key, value in declared.items()} if isinstance(declared, Mapping) else {}
    )
    metrics |= {key: record.get(key) for key in ("best_dice", "best_epoch")}
    return {key: value for key, value in metrics.items() if isinstance(value, (int, float, str))}
