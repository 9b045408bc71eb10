"""Look into a bundle without running anything of it: what it is, what it would run, and what is unsafe about it."""

from __future__ import annotations

import ast
import json
import logging
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.config.references import is_plain, key_path
from medseg.errors import UntrustedError, command_line
from medseg.findings import Finding, error, note, printable, ranked, warning
from medseg.inspection import tool_settings, weights
from medseg.inspection.configs import TRUST_FIX, Part, is_config, judge_configs, strings
from medseg.inspection.contents import METADATA, Contents, open_contents
from medseg.inspection.expressions import UNSAFE_KEY
from medseg.inspection.merged_configs import NoObjectError, UnreadableError, parse_config
from medseg.inspection.rules import SERVER_MESSAGE

logger = logging.getLogger(__name__)

RECORD, TRACKER_SETTINGS, LABEL_MAP = "run.json", "monitor/settings.json", "label_map.json"
TRAIN_CONFIG = "configs/train.json"
TRAINING = "train"
_ONLY_TRAINING = (TRAIN_CONFIG, "monitor/", RECORD)  # only training reads these
_LISTED = 3
_MAX_CONFIG = 8 * 2**20
_MAX_SETTINGS = 2**16  # of other programs
_IMAGE_HEAD = 2**14
_CODE = (".py", ".pyc", ".pyo", ".pyw", ".pyd", ".pyx", ".so", ".dll", ".dylib", ".egg", ".pyi", ".pth.py")
_CODE_PATH = re.compile(r"\.(so|dylib)\.\d|\.(dist|egg)-info/")
_SCRIPTS = (".sh", ".bash", ".bat", ".cmd", ".ps1", ".exe", ".com", ".msi", ".jar", ".js", ".vbs", ".ipynb", ".desktop")
_LICENSE_FILES = ("LICENSE", "LICENCE", "LICENSE.txt", "LICENSE.md", "docs/license.txt")
_LICENSES = {
    "Apache License": "Apache-2.0", "MIT License": "MIT", "Permission is hereby granted, free of charge": "MIT",
    "BSD 3-Clause": "BSD-3-Clause", "Attribution 4.0": "CC-BY-4.0", "GNU GENERAL PUBLIC": "GPL",
}  # fmt: skip
_READ_ERRORS = (OSError, zipfile.BadZipFile, zlib.error, EOFError)
_UNSAFE_KEY = f"it names '{UNSAFE_KEY}', which moves what MONAI saves to another folder"


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
        parts: every `_target_` and every expression of its configs.
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
    parts: list[Part] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def trusted(self) -> bool:
        """True if nothing was found that could do harm: no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the form that `medseg bundle inspect --json` prints."""
        return {
            **{key: getattr(self, key) for key in ("name", "version", "kind", "description", "license")},
            "path": str(self.path),
            "trusted": self.trusted,
            "classes": self.classes,
            "metrics": self.metrics,
            "files": self.files,
            "parts": [dict(vars(part)) for part in self.parts],
            "findings": [finding.to_dict() for finding in self.findings],
        }


def inspect_bundle(path: str | Path, overlays: Iterable[str | Path] = ()) -> Inspection:
    """Look into a bundle; nothing of it is executed, imported or unpacked.

    Args:
        path: its folder, or a zip of it.
        overlays: JSON files that are to be laid over its configs; they are inspected along with it.

    Raises:
        BundleError: there is no folder and no zip.

    Example:
        >>> inspection = inspect_bundle("bundles/unet2d")  # doctest: +SKIP
        >>> inspection.trusted, inspection.findings  # doctest: +SKIP
        (True, [])
    """
    return _Inspector(open_contents(path), [Path(overlay) for overlay in overlays]).inspect()


def require_trust(
    root: str | Path,
    trust: bool,
    use: str = TRAINING,
    overlays: Iterable[str | Path] = (),
    started_here: bool = False,
) -> None:
    """Refuse a bundle that could do more than what is known to be harmless, unless it is trusted.

    Args:
        root: its folder.
        trust: True if the user trusts it; then the findings are only logged.
        use: what it is to be used for. Where a training would send things matters to `train` alone.
        overlays: JSON files that are to be laid over its configs.
        started_here: True for a run that this user started with the very training config that it holds, so that the
            addresses in that config are the user's own.

    Raises:
        UntrustedError: a finding could do harm; names it.
        BundleError: there is no bundle.
    """
    own_addresses = _addresses(Path(root) / TRAIN_CONFIG) if started_here else set()
    findings = [
        finding
        for finding in inspect_bundle(root, overlays).findings
        if finding.severity == "error" and _matters(finding, use, own_addresses)
    ]
    if not findings:
        return
    count = f"{len(findings)} unsafe {'thing' if len(findings) == 1 else 'things'}"
    if trust:
        logger.warning("bundle %s: %s found, and trusted all the same (--trust)", root, count)
        return
    listed = [
        f"{finding.code} in {finding.location}: {finding.message}"
        if finding.location
        else f"{finding.code}: {finding.message}"
        for finding in findings[:_LISTED]
    ]
    more = f"; and {len(findings) - _LISTED} more" if len(findings) > _LISTED else ""
    raise UntrustedError(
        f"bundle {root}",
        f"it could do harm, with {count}: {'; '.join(listed)}{more}",
        fix=f"See all of it with: {command_line('bundle', 'inspect', root)}. If you trust its maker, give --trust "
        "(trust=True in Python).",
    )


def _addresses(config: Path) -> set[str]:
    """Return the messages on the addresses that a config alone names; other files may name others for the same use."""
    try:
        findings = judge_configs({TRAIN_CONFIG: parse_config(config.read_bytes())}).findings
    except (OSError, UnreadableError):
        return set()
    return {finding.message for finding in findings if finding.code == "sends-elsewhere"}


def _matters(finding: Finding, use: str, own_addresses: set[str]) -> bool:
    """Return True for a finding that counts: where a training sends things is harmless if it is not to train."""
    if finding.code != "sends-elsewhere":
        return True
    if finding.message in own_addresses:
        return False
    return use == TRAINING or not finding.location.startswith(_ONLY_TRAINING)


class _Inspector:
    def __init__(self, files: Contents, overlays: Sequence[Path]) -> None:
        self.files = files
        self.findings = list(files.findings)
        self.overlays = overlays

    def inspect(self) -> Inspection:
        configs: dict[str, dict[str, Any]] = {}
        documents: dict[str, dict[str, Any]] = {}
        for name in self.files.sizes:
            self.findings += self._file(name)
            content = self._json(name) if name.lower().endswith(".json") else None
            if content is not None:
                (configs if name.lower().startswith("configs/") else documents)[name] = content
        for overlay in self.overlays:
            try:
                configs[str(overlay.absolute())] = parse_config(overlay.read_bytes())
            except (OSError, UnreadableError) as problem:
                self._error("config-unreadable", str(overlay), str(problem))
        parts = self._judge(configs)
        for name, content in documents.items():
            if is_config(content):
                parts += self._judge({name: content})
            if name == TRACKER_SETTINGS and content.get("base_url") not in (None, ""):
                self._error("sends-elsewhere", name, SERVER_MESSAGE.format(content["base_url"]), TRUST_FIX)
            if name == RECORD:
                self._command(content.get("command"))
            if UNSAFE_KEY in strings(content):
                self._error("argument-unsafe", name, _UNSAFE_KEY, TRUST_FIX)
        metadata = configs.get(METADATA, {})
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
            parts=parts,
            findings=ranked(self.findings),
        )

    def _error(self, code: str, location: str, message: str, fix: str = "") -> None:
        self.findings.append(error(code, printable(location), printable(message), fix))

    def _judge(self, configs: Mapping[str, Mapping[str, Any]]) -> list[Part]:
        """Judge configs that may be laid over each other, and return their parts."""
        try:
            judgement = judge_configs(configs, METADATA)
        except UnreadableError as problem:
            self._error("config-unreadable", next(iter(configs)), str(problem))
            return []
        self.findings += judgement.findings
        return judgement.parts

    def _command(self, words: Any) -> None:
        """Judge the settings of a recorded command. medseg does not give it again, but a user may, who finds it."""
        if words is None:
            return
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            self._error("command-unsafe", f"{RECORD}, command", "it is no list of words", TRUST_FIX)
            return
        settings: dict[str, Any] = {}
        for word, following in zip(words, [*words[1:], "--"], strict=True):
            key, equals, text = word.removeprefix("--").partition("=")
            if word.startswith("--") and not equals and not following.startswith("--"):
                text = following  # as MONAI's command line has it
            elif not equals:
                continue
            if is_plain(key_path(key)):
                settings[key] = _value(text)
        try:
            findings = judge_configs({f"{RECORD}, command": settings}).findings
        except UnreadableError as problem:
            self._error("command-unsafe", RECORD, str(problem), TRUST_FIX)
            return
        for finding in findings:
            self._error("command-unsafe", finding.location, finding.message, TRUST_FIX)
        for key, value in settings.items():
            if value and (key_path(key).rpartition("#")[2] == "base_url" or "base_url" in strings(value)):
                # The config of the run names the same server, and is judged for that.
                message = f"given again, it would tell a server of the run: {printable(key)}={printable(str(value))}"
                self.findings.append(note("sends-elsewhere", f"{RECORD}, command", message, TRUST_FIX))

    def _file(self, name: str) -> Iterator[Finding]:
        lower, location = name.lower(), printable(name)
        if lower.endswith(_CODE) or _CODE_PATH.search(lower):
            message = "it is code, which an import could run instead of the module that is meant"
            yield error("code-in-bundle", location, message, TRUST_FIX)
        elif lower.endswith(_SCRIPTS):
            message = "it is a program; medseg never runs it"
            yield warning("script-in-bundle", location, message, "Read it before you run it.")
        elif lower.endswith(".whl"):
            fix = "Take it from a source that you trust, or from PyPI."
            yield warning("wheel-in-bundle", location, "installing it runs what is in it", fix)
        elif lower.startswith("configs/") and lower.endswith((".yaml", ".yml")):
            fix = "Write it as JSON, or give --trust if you trust the bundle's maker."
            yield error("config-yaml", location, "only configs in JSON are checked", fix)
        elif lower.startswith("configs/") and lower.endswith((".conf", ".ini", ".cfg")):
            yield from tool_settings.check_logging(self._settings(name, "logging-unsafe"), location)
        elif tool_settings.is_tool_settings(lower, self.files.sizes):
            yield from tool_settings.check_tool_settings(self._settings(name, "code-in-bundle"), lower, location)
        elif re.fullmatch(r"requirements[\w.-]*", lower.rpartition("/")[2]):
            yield from tool_settings.check_requirements(self._read(name).decode("utf-8", "replace"), location)
        elif not lower.endswith(".json"):
            yield from self._weights(name)

    def _weights(self, name: str) -> Iterator[Finding]:
        try:
            with self.files.open(name) as file:
                if UNSAFE_KEY.encode() in file.read(_IMAGE_HEAD):
                    yield error("argument-unsafe", printable(name), _UNSAFE_KEY, TRUST_FIX)
                file.seek(0)
                yield from weights.check_file(file, name, self.files.sizes[name])
        except _READ_ERRORS as problem:
            self._error("unreadable", name, f"it cannot be read: {problem}")

    def _read(self, name: str) -> bytes:
        try:
            return self.files.read(name, _MAX_CONFIG)
        except _READ_ERRORS as problem:
            self._error("unreadable", name, f"it cannot be read: {problem}")
            return b""

    def _settings(self, name: str, code: str) -> str:
        """Return a file of settings; one that is too large is an error of that code, and is read in part."""
        if self.files.sizes[name] > _MAX_SETTINGS:
            self._error(code, name, f"it has more than {_MAX_SETTINGS >> 10} KiB", TRUST_FIX)
        return self._read(name)[:_MAX_SETTINGS].decode("utf-8", "replace")

    def _json(self, name: str) -> dict[str, Any] | None:
        if self.files.sizes[name] > _MAX_CONFIG:
            self._error("config-unreadable", name, f"it has more than {_MAX_CONFIG >> 20} MiB")
            return None
        try:
            return parse_config(self._read(name))
        except UnreadableError as problem:
            if name.lower().startswith("configs/") or not isinstance(problem, NoObjectError):
                self._error("config-unreadable", name, str(problem))
            return None

    def _license(self, metadata: Mapping[str, Any]) -> str:
        name = next((name for name in _LICENSE_FILES if name in self.files.sizes), None)
        if name is None:
            return _text(metadata.get("license"))
        text = self._read(name)[:2000].decode("utf-8", "replace")
        first = next((line.strip() for line in text.splitlines() if line.strip()), "")
        return next((short for words, short in _LICENSES.items() if words in text), printable(first, 80))


def _value(text: str) -> Any:
    """Return what the value of a setting in a command means: JSON, a literal of Python, or the text itself."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return text


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
