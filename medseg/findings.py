"""What a check found: how bad it is, of which kind, where, and what to do about it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from medseg.errors import MedsegError

SEVERITIES = ("error", "warning", "note")


def printable(text: str, most: int = 200) -> str:
    r"""Text of others as it may be printed: nothing that moves a terminal's cursor, colours it, or turns text around.

    >>> shown("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    cut = text if len(text) <= most else f"{text[:most]}..."
    return "".join(
        one if one == " " or (one.isprintable() and unicodedata.category(one) != "Cf") else ascii(one)[1:-1]
        for one in cut
    )


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Args:
        severity: `error` (cannot be used, or would teach something wrong), `warning` (look at it) or `note`.
        code: the kind of finding, a stable name in kebab case such as `mask-shape`.
        case: the id of the case it belongs to; empty where it belongs to the whole.
        location: the file or the part that is meant.
        message: what is so, in one sentence without its end.
        remedy: what to do about it.

    Raises:
        MedsegError: a severity that does not exist, or a code in another form.

    >>> print(Finding("error", "file-empty", "s0001", "liver.nii.gz", "it holds no byte", "Copy it again."))
    error file-empty: s0001, liver.nii.gz: it holds no byte. Copy it again.
    """

    severity: str
    code: str
    case: str
    location: str
    message: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise MedsegError("A finding's severity", f"must be one of {', '.join(SEVERITIES)}", f"'{self.severity}'")
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.code):
            raise MedsegError("A finding's code", "must be in kebab case, like mask-shape", f"'{self.code}'")

    def __str__(self) -> str:
        """One line with everything; what others wrote into it moves no cursor."""
        where = ", ".join(part for part in (self.case, self.location) if part)
        head = f"{self.severity} {self.code}: " + (f"{where}: " if where else "")
        line = f"{head}{self.message}. {self.fix}".strip()
        return printable(line, len(line))

    def of(self, case: str) -> Finding:
        """The same finding, as one of that case."""
        return replace(self, case=case)

    def as_note(self) -> Finding:
        """The same finding, only noted."""
        return replace(self, severity="note")

    def to_dict(self) -> dict[str, str]:
        """The form it has in JSON."""
        return asdict(self)


def error(code: str, location: object, message: str, fix: str = "") -> Finding:
    """A finding of severity `error` that belongs to no case yet."""
    return Finding("error", code, "", str(location), message, fix)


def warning(code: str, location: object, message: str, fix: str = "") -> Finding:
    """A finding of severity `warning` that belongs to no case yet."""
    return Finding("warning", code, "", str(location), message, fix)


def note(code: str, location: object, message: str, fix: str = "") -> Finding:
    """A finding of severity `note` that belongs to no case yet."""
    return Finding("note", code, "", str(location), message, fix)


def worst(findings: Iterable[Finding]) -> str | None:
    """The highest severity among the findings; None where there are none.

    >>> worst([note("cut", "liver", "it ends at the border"), warning("islands", "liver", "it has 40 parts")])
    'warning'
    """
    seen = {finding.severity for finding in findings}
    return next((severity for severity in SEVERITIES if severity in seen), None)


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, errors first, those of one code together, each by case and place."""
    return sorted(findings, key=lambda it: (SEVERITIES.index(it.severity), it.code, it.case, it.location, it.message))
