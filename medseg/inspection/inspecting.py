"""Looking into a bundle without running anything of it: what it is, what it would run, and what is unsafe about it."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.findings import Finding, error, ranked, warning
from medseg.inspection import logging_conf, run_folder, surroundings, weights
from medseg.inspection.configs import Part, is_config, judge, strings
from medseg.inspection.contents import METADATA, Contents, contents
from medseg.inspection.expressions import UNSAFE_KEY
from medseg.inspection.names import printable
from medseg.inspection.universe import NoObjectError, UnreadableError, parse

COMMAND = "run.json, command"  # where recorded overrides stand
_LARGEST = 8 * 2**20  # a config
_LARGEST_SETTINGS = 2**16  # what other programs read as settings
_HEAD = 2**14  # of an image
_CODE = (".py", ".pyc", ".pyo", ".pyw", ".pyd", ".pyx", ".so", ".dll", ".dylib", ".egg", ".pyi", ".pth.py")
_SCRIPTS = (".sh", ".bash", ".bat", ".cmd", ".ps1", ".exe", ".com", ".msi", ".jar", ".js", ".vbs", ".ipynb", ".desktop")
_SETTINGS = (".conf", ".ini", ".cfg")
_TRUST = "Read it; if you trust who made the bundle, give --trust."
_LICENCES = {
    "Apache License": "Apache-2.0", "MIT License": "MIT", "Permission is hereby granted, free of charge": "MIT",
    "BSD 3-Clause": "BSD-3-Clause", "Attribution 4.0": "CC-BY-4.0", "GNU GENERAL PUBLIC": "GPL",
}  # fmt: skip


@dataclass(frozen=True)
class Inspection:
    """What a bundle is.

    Args:
        path: the folder or the zip.
        name: from its metadata, or the path's.
        version: from its metadata.
        kind: `folder` or `zip`.
        description: from its metadata.
        licence: the licence's short name where it is known, else its first line.
        classes: the names of the output's channels, by number.
        metrics: what is said of its results: the run's best Dice, or what the metadata says.
        files: bytes of each file.
        parts: every `_target_` and every expression of its configs.
        findings: what is unsafe or damaged, errors first.
    """

    path: Path
    name: str
    version: str
    kind: str
    description: str
    licence: str
    classes: dict[str, str]
    metrics: dict[str, Any]
    files: dict[str, int]
    parts: list[Part] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def trusted(self) -> bool:
        """Whether nothing was found that could do harm: no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The form it has in JSON."""
        parts = [
            {key: getattr(part, key) for key in ("kind", "text", "location", "known", "why")} for part in self.parts
        ]
        return {
            **{key: getattr(self, key) for key in ("name", "version", "kind", "description", "licence")},
            "path": str(self.path),
            "trusted": self.trusted,
            "classes": self.classes,
            "metrics": self.metrics,
            "files": self.files,
            "parts": parts,
            "findings": [finding.to_dict() for finding in self.findings],
        }


def inspect_bundle(
    path: str | Path, overlays: Iterable[str | Path] = (), overrides: Mapping[str, Any] | None = None
) -> Inspection:
    """Look into a bundle; nothing of it is executed, imported or unpacked.

    Args:
        path: its folder, or a zip of it.
        overlays: JSON files that are to be laid over its configs; looked into along with it.
        overrides: keys of its configs and what a recorded command sets them to; the same.

    Raises:
        BundleError: there is no folder and no zip.
    """
    path = Path(path)
    return _Inspector(contents(path), [Path(one) for one in overlays], overrides or {}).inspect()


class _Inspector:
    def __init__(self, files: Contents, overlays: Sequence[Path], overrides: Mapping[str, Any]) -> None:
        self.files, self.findings, self.overlays = files, list(files.findings), overlays
        self.overrides = dict(overrides)

    def inspect(self) -> Inspection:
        files = self.files
        configs: dict[str, dict[str, Any]] = {}
        others: dict[str, dict[str, Any]] = {}
        for name in files.sizes:
            self.findings += self._file(name)
            content = self._json(name) if name.lower().endswith(".json") else None
            if content is not None:
                (configs if name.lower().startswith("configs/") else others)[name] = content
        for overlay in self.overlays:
            try:
                configs[str(overlay.absolute())] = parse(overlay.read_bytes())
            except (OSError, UnreadableError) as problem:
                self.findings.append(error("config-unreadable", printable(str(overlay)), printable(str(problem))))
        if self.overrides:
            configs[COMMAND] = self.overrides
        parts: list[Part] = []
        for group in (configs, *({name: one} for name, one in others.items() if is_config(one))):
            try:
                found = judge(group, METADATA)
            except UnreadableError as problem:
                self.findings.append(error("config-unreadable", printable(next(iter(group))), printable(str(problem))))
                continue
            parts += found.parts
            self.findings += found.findings
        for name, content in others.items():
            self.findings += run_folder.check(name, content)
            if UNSAFE_KEY in strings(content):
                said = f"'{UNSAFE_KEY}' moves what MONAI saves to another place"
                self.findings.append(error("argument-unsafe", printable(name), said, _TRUST))
        self.findings += _labels(configs.get(METADATA, {}), others.get("label_map.json"))
        if not files.findings and METADATA not in files.sizes:
            self.findings.append(error("metadata-missing", METADATA, "it is not there, so this is no bundle"))
        return self._describe(configs.get(METADATA, {}), others, parts)

    def _describe(self, metadata: Mapping[str, Any], others: Mapping[str, Any], parts: list[Part]) -> Inspection:
        files = self.files
        return Inspection(
            path=files.path,
            name=_text(metadata.get("name")) or files.path.resolve().name.removesuffix(".zip"),
            version=_text(metadata.get("version")),
            kind=files.kind,
            description=_text(metadata.get("description") or metadata.get("task")),
            licence=self._licence(metadata),
            classes=_classes(metadata, others.get("label_map.json")),
            metrics=run_folder.metrics(metadata, others.get("run.json")),
            files=dict(files.sizes),
            parts=parts,
            findings=ranked(self.findings),
        )

    def _file(self, name: str) -> Iterator[Finding]:
        lower, where = name.lower(), printable(name)
        last = lower.rpartition("/")[2]
        if lower.endswith(_CODE) or re.search(r"\.(so|dylib)\.\d|\.(dist|egg)-info/", lower):
            yield error("code-in-bundle", where, "it is code that an import could run instead of what is meant", _TRUST)
        elif lower.endswith(_SCRIPTS):
            yield warning("script-in-bundle", where, "it is a program; medseg never runs it", "Read it before you do.")
        elif lower.endswith(".whl"):
            yield warning(
                "wheel-in-bundle",
                where,
                "installing it runs what is in it",
                "Take it from one whom you trust, or from PyPI.",
            )
        elif lower.startswith("configs/") and lower.endswith((".yaml", ".yml")):
            fix = "Write it as JSON, or give --trust if you trust who made the bundle."
            yield error("config-yaml", where, "configs are checked as JSON alone", fix)
        elif lower.startswith("configs/") and lower.endswith(_SETTINGS):
            if self.files.sizes[name] > _LARGEST_SETTINGS:
                yield error("logging-unsafe", where, f"it has more than {_LARGEST_SETTINGS >> 10} KiB", _TRUST)
            yield from logging_conf.check(self._settings(name), where)
        elif surroundings.is_meant(lower, self.files.sizes):
            if self.files.sizes[name] > _LARGEST_SETTINGS:
                yield error("code-in-bundle", where, f"settings of more than {_LARGEST_SETTINGS >> 10} KiB", _TRUST)
            yield from surroundings.check(self._settings(name), lower, where)
        elif re.fullmatch(r"requirements[\w.-]*", last):
            yield from _requirements(self._read(name).decode("utf-8", "replace"), where)
        elif not lower.endswith(".json"):
            yield from self._weights(name)

    def _weights(self, name: str) -> Iterator[Finding]:
        try:
            with self.files.opened(name) as file:
                if UNSAFE_KEY.encode() in file.read(_HEAD):
                    said = f"its head names '{UNSAFE_KEY}', which moves what MONAI saves to another place"
                    yield error("argument-unsafe", printable(name), said, _TRUST)
                file.seek(0)
                yield from weights.check(file, name, self.files.sizes[name])
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as problem:
            yield error("unreadable", printable(name), f"it cannot be read: {printable(str(problem))}")

    def _read(self, name: str) -> bytes:
        try:
            return self.files.read(name, _LARGEST)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as problem:
            self.findings.append(error("unreadable", printable(name), f"it cannot be read: {printable(str(problem))}"))
            return b""

    def _settings(self, name: str) -> str:
        return self._read(name)[:_LARGEST_SETTINGS].decode("utf-8", "replace")

    def _json(self, name: str) -> dict[str, Any] | None:
        if self.files.sizes[name] > _LARGEST:
            self.findings.append(error("config-unreadable", printable(name), "it is larger than any config"))
            return None
        try:
            return parse(self._read(name))
        except UnreadableError as problem:
            if name.lower().startswith("configs/") or not isinstance(problem, NoObjectError):
                self.findings.append(error("config-unreadable", printable(name), printable(str(problem))))
            return None

    def _licence(self, metadata: Mapping[str, Any]) -> str:
        for name in ("LICENSE", "LICENCE", "LICENSE.txt", "LICENSE.md", "docs/license.txt"):
            if name in self.files.sizes:
                text = self._read(name)[:2000].decode("utf-8", "replace")
                lines = [line.strip() for line in text.splitlines() if line.strip()]
                return next(
                    (short for words, short in _LICENCES.items() if words in text),
                    printable((lines or [""])[0], 80),
                )
        return _text(metadata.get("license"))


def _text(value: Any) -> str:
    return printable(value, 400) if isinstance(value, str) else ""


def _channels(metadata: Mapping[str, Any]) -> Any:
    found: Any = metadata
    for key in ("network_data_format", "outputs", "pred", "channel_def"):
        found = found.get(key, {}) if isinstance(found, Mapping) else {}
    return found


def _classes(metadata: Mapping[str, Any], label_map: Any) -> dict[str, str]:
    found = _channels(metadata)
    if not found and isinstance(label_map, Mapping):
        found = label_map
    names = found if isinstance(found, Mapping) else {}
    return {printable(str(key), 20): printable(str(name), 80) for key, name in names.items()}


def _labels(metadata: Mapping[str, Any], label_map: Any) -> Iterator[Finding]:
    """Names of structures become names of files."""
    for location, names in ((METADATA, _channels(metadata)), ("label_map.json", label_map)):
        for name in names.values() if isinstance(names, Mapping) else ():
            if isinstance(name, str) and (re.search(r"[/\\\\\x00-\x1f]", name) or name.startswith(".")):
                said = f"'{printable(name)}' is no name of a structure, and files are called by it"
                yield error("label-name", location, said, "Rename it.")


def _requirements(text: str, location: str) -> Iterator[Finding]:
    """Lines that would make pip take a package from somewhere else than its index, or run something."""
    for line in text.splitlines():
        plain = line.split("#")[0].strip().removesuffix("\\").strip()
        name = re.match(r"[A-Za-z0-9._-]+(\[[\w,.-]+\])?", plain)
        rest = plain[name.end() :].split(" --hash=")[0] if name and not plain.startswith("-") else plain
        wanted = (
            all(re.fullmatch(r"\s*(===?|[<>!~]=|[<>])\s*[\w.*+!-]+\s*", one) for one in rest.split(","))
            if rest
            else True
        )
        if not wanted and not re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", plain):
            said = f"'{printable(plain, 100)}' would bring a package from elsewhere"
            yield warning("requirements-elsewhere", location, said, "Install what it names by hand.")
