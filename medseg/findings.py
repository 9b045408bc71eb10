"""Report the findings of a check: severity, kind, location, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from medseg.errors import MedsegError, printable

SEVERITIES = ("error", "warning", "note")


def names_of(names: Sequence[str], limit: int = 6) -> str:
    """Join names to a list that stays short.

    Example:
        >>> names_of(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    count = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {count} more" if count > 0 else "")


@dataclass(frozen=True)
class Finding:
    """Hold one result of a check.

    Args:
        severity: `error` (cannot be used, or would teach something wrong), `warning` (look at it) or `note`.
        code: the kind of finding, a stable name in kebab case such as `mask-shape`.
        case: the id of the case it belongs to; empty if it belongs to the whole.
        location: the file or the part.
        message: the problem, one sentence without its full stop.
        fix: whole sentences that say what to do.

    Raises:
        MedsegError: the severity does not exist, or the code is not in kebab case.

    Example:
        >>> print(Finding("error", "file-empty", "s0001", "liver.nii.gz", "the file is empty", "Copy it again."))
        error file-empty: s0001, liver.nii.gz: the file is empty. Copy it again.
    """

    severity: str
    code: str
    case: str
    location: str
    message: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise MedsegError("severity", f"it must be one of {', '.join(SEVERITIES)}", f"got '{self.severity}'")
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.code):
            raise MedsegError("code", "it must be in kebab case, like mask-shape", f"got '{self.code}'")

    def __str__(self) -> str:
        """Return everything in one line, with control characters escaped."""
        subject = ", ".join(part for part in (self.case, self.location) if part)
        head = f"{self.severity} {self.code}: " + (f"{subject}: " if subject else "")
        line = f"{head}{self.message}. {self.fix}".strip()
        return printable(line, len(line))

    def of(self, case: str) -> Finding:
        """Return the same finding for that case."""
        return replace(self, case=case)

    def as_note(self) -> Finding:
        """Return the same finding as a note."""
        return replace(self, severity="note")

    def to_dict(self) -> dict[str, str]:
        """Return the form it has in JSON."""
        return asdict(self)


def error(code: str, location: object, message: str, fix: str = "") -> Finding:
    """Make a finding of severity `error` that belongs to no case yet."""
    return Finding("error", code, "", str(location), message, fix)


def warning(code: str, location: object, message: str, fix: str = "") -> Finding:
    """Make a finding of severity `warning` that belongs to no case yet."""
    return Finding("warning", code, "", str(location), message, fix)


def note(code: str, location: object, message: str, fix: str = "") -> Finding:
    """Make a finding of severity `note` that belongs to no case yet."""
    return Finding("note", code, "", str(location), message, fix)


def worst(findings: Iterable[Finding]) -> str | None:
    """Return the highest severity among the findings; None if there are none.

    Example:
        >>> worst([note("cut", "liver", "it ends at the border"), warning("islands", "liver", "it has 40 parts")])
        'warning'
    """
    severities = {finding.severity for finding in findings}
    return next((severity for severity in SEVERITIES if severity in severities), None)


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings: errors first, then by code, case and place."""

    def rank(finding: Finding) -> tuple[int, str, str, str, str]:
        severity = SEVERITIES.index(finding.severity)
        return severity, finding.code, finding.case, finding.location, finding.message

    return sorted(findings, key=rank)
