"""The rules for scans and label maps: what each property is called, how bad it is, and what every command does with it.

One table for all formats. What `data check` reports as an error, every command that reads refuses before anything is
computed or written, unless the user accepts that code by name (`accept`) and the rule says how it is then read.
A warning is logged by every command with the name of the file. `docs/reference/inputs.md` is made from this table.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from medseg.errors import DataError, GeometryError, InputError, did_you_mean
from medseg.findings import Finding

logger = logging.getLogger(__name__)

COMMANDS = ("data check", "data prepare", "train", "predict", "evaluate")
_COPY = "Download or copy it again."
_RECONVERT = "Convert it again from its source."
_HU = "Convert it again from its source, as HU."
_RESCALE = "Apply the rescale intercept of its DICOM files (usually -1024)."


@dataclass(frozen=True)
class Rule:
    """One property of a scan or a label map.

    Args:
        code: of its finding, and what `accept` names.
        meaning: the property, for the table.
        severity: of the finding in `data check`: `error`, `warning` or `note`.
        fix: what the user can do, in whole sentences.
        accepted: how a file with this error is read where the user accepts it; empty where none can.
        reading: what the commands that read do: `refuse`, `warn`, or `pass`; by default what the severity implies.
        formats: those that can have it.
    """

    code: str
    meaning: str
    severity: str = "error"
    fix: str = ""
    accepted: str = ""
    reading: str = ""
    formats: str = "all"

    @property
    def action(self) -> str:
        """What a command that reads does: `refuse`, `warn` or `pass`."""
        return self.reading or {"error": "refuse", "warning": "warn"}.get(self.severity, "pass")

    @property
    def geometry(self) -> bool:
        """Whether it concerns where the voxels lie."""
        return self.code.startswith(_GEOMETRY)

    def cell(self, command: str) -> str:
        """Return what a command does, for the table."""
        if self.code in _OF_PREDICTION and command != "predict":
            return "-"
        if command == "data check":
            return self.severity
        if self.code in _OF_SCANS and command == "evaluate":
            return "-"
        words = {"refuse": "refused", "warn": "warning", "pass": "read"}[self.action]
        return f"{words}, or accept" if self.accepted else words


_TABLE = (
    # The bytes of a file.
    Rule("file-missing", "a file that is named does not exist", fix="Fetch it, or remove what names it."),
    Rule("file-empty", "the file is empty", fix=_COPY),
    Rule("file-pointer", "a Git LFS pointer instead of the file", fix="Fetch the file itself: git lfs pull."),
    Rule("file-unreadable", "the system does not let it be read", fix="Correct its permissions."),
    Rule("file-truncated", "the file ends early: within its compressed content, or before its last voxel", fix=_COPY),
    Rule("file-crc", "the content does not match its checksum", fix=_COPY),
    Rule("file-damaged", "the compressed bytes are invalid", fix=_COPY),
    Rule("file-name", "compressed, and the name does not end in `.gz`, or the reverse", formats="NIfTI"),
    Rule("file-not-image", "text, a 2D image, an Analyze file, anything but a volume", fix="Remove or replace it."),
    Rule("file-pair", "the voxels lie in another file than the header (`.hdr` and `.img`)",
         fix="Save it as one file, .nii.gz, from its source.", formats="NIfTI"),
    Rule("file-header", "the header cannot be read, or contradicts itself", fix=_RECONVERT),
    Rule("vox-offset", "`vox_offset` is 0: the voxels begin behind the header, where ITK reads them too", "warning",
         "Write it again; other software takes the header for voxels.", formats="NIfTI"),
    # What the voxels are.
    Rule("not-3d", "two, four or more dimensions; further axes of length 1 do no harm", fix="Save one volume a file."),
    Rule("rgb", "colors", fix="Give the CT itself, not an image of it."),
    Rule("complex", "complex numbers", fix="Take the magnitude."),
    Rule("intent", "the header says that the values are statistics, labels or vectors", "warning",
         "Check that this is the scan.", formats="NIfTI"),
    Rule("nan", "voxels that are NaN or infinite", fix="Replace them, for example by air (-1024)."),
    # Where the voxels lie.
    Rule("no-geometry", "neither sform nor qform is set, so that left and right are unknown",
         fix="Convert the original images again, with a tool that writes the orientation.",
         accepted="with the first axis toward the left and the second toward the front, though it may be mirrored, "
         "as nibabel reads it",
         formats="NIfTI"),
    Rule("affine-impossible", "an affine that is not finite, not invertible, or no rotation", fix=_RECONVERT),
    Rule("pixdim-zero", "a spacing in `pixdim` that is 0 or not finite", fix=_RECONVERT, formats="NIfTI"),
    Rule("pixdim-negative", "a spacing in `pixdim` that is negative: nibabel drops the sign, ITK mirrors the scan",
         fix=_RECONVERT, accepted="without the sign, as nibabel reads it; the mask keeps the scan's header",
         formats="NIfTI"),
    Rule("sform-qform", "sform and qform put a voxel more than half a voxel apart, or mirror each other",
         fix="Find out which is right, and write it into both.", accepted="by its sform", formats="NIfTI"),
    Rule("sform-qform-close",
         "sform and qform differ by more than 0.05 mm and at most half a voxel: read by the sform", "warning",
         "Write the right one into both; software takes one or the other.", formats="NIfTI"),
    Rule("shear", "axes more than half a degree from perpendicular",
         fix="Resample it onto a grid with perpendicular axes, masks together with it.",
         accepted="by its voxel axes: the network gets the nearest upright grid"),
    Rule("axes-not-orthonormal",
         "axes less than half a degree from perpendicular, and more than ITK reads (0.0001)", "warning",
         "Write it again with the nearest rotation."),
    Rule("axes-left-handed", "axes such as LAS; software that ignores the affine shows it mirrored", "note"),
    Rule("axes-oblique", "axes more than a degree off those of the body", "note"),
    Rule("spacing-beyond-body", "voxels below 0.05 mm or above 20 mm",
         fix="Compare with the source; a spacing in cm or m, or one that was lost, looks like this.",
         accepted="as it stands"),
    Rule("origin-beyond-body", "a corner more than 10 m from the origin",
         fix="Compare with the source; an origin in microns looks like this.", accepted="as it stands"),
    Rule("spacing-suspicious", "voxels below 0.1 mm, or a volume no longer than 30 mm or longer than 2.5 m",
         "warning", "Compare with the source; a spacing in cm or m, or one that was lost, looks like this."),
    Rule("spacing-contradicts", "the affine and `pixdim` give two spacings: read by the affine", "warning",
         "Write it again from its source; software takes one or the other.", formats="NIfTI"),
    Rule("spacing-unit", "lengths in meters or microns: converted to mm", "warning",
         "Write it again in mm; some software takes the numbers for mm."),
    Rule("unit-unknown", "a unit of length that the format does not know: taken for mm", "warning",
         "Write it again in mm.", formats="NIfTI"),
    # A folder of DICOM files.
    Rule("no-slices",
         "objects without a slice: structure sets, segmentations, reports, doses, captures, localizers",
         fix="Give the folder of the CT series.", formats="DICOM"),
    Rule("dicom-objects", "such objects beside a CT: left out", "note", reading="warn", formats="DICOM"),
    Rule("several-series", "slices of several series, studies, patients or frames of reference",
         fix="Give each series a folder of its own.", formats="DICOM"),
    Rule("not-ct", "another modality than CT, or none", fix="Give a CT series.", formats="DICOM"),
    Rule("multi-frame", "several frames in a file (enhanced DICOM)",
         fix="Convert the series to NIfTI, for example with dcm2niix.", formats="DICOM"),
    Rule("slices-uneven",
         "slices that are missing, double, tilted, unevenly spaced, or differ in size or orientation",
         fix="Copy the series again, or give each volume a folder of its own.", formats="DICOM"),
    Rule("dicom-not-hu", "8 bits, colors, a perfusion or material map, a Modality LUT, a RescaleType other than HU",
         fix="Give the CT itself, in HU.", formats="DICOM"),
    Rule("rescale-unknown", "slices without RescaleSlope or RescaleIntercept, some or all of them unsigned",
         fix="Export the series again; HU cannot be guessed.", formats="DICOM"),
    Rule("rescale-absent", "no slice has them, and the stored values are signed: taken as HU", "warning",
         "Check that air is at -1000 and water at 0.", formats="DICOM"),
    Rule("hu-changed", "virtual images whose HU the scanner changed (ImageType, RescaleType)", "warning",
         "Take the original series if there is one.", formats="DICOM"),
    Rule("slices-differ", "slices of several kinds (ImageType)", "warning", "Check that they are one scan.",
         formats="DICOM"),
    Rule("padding-dense", "a PixelPaddingValue that is denser than air: taken for tissue", "warning",
         "Fill what lies outside the field of view with air (-1024).", formats="DICOM"),
    # Whether the values are the HU of a CT: doubtful for a scan, never a reason to refuse it.
    Rule("not-hu", "normalized, 8 bits, nothing below water, hardly any fat or soft tissue", fix=_HU, reading="warn"),
    Rule("rescale-missing", "stored values, never scaled to HU", fix=_RESCALE, reading="warn"),
    Rule("constant", "one value everywhere", fix=_RECONVERT, reading="warn"),
    Rule("hu-range", "values far outside those of a CT", "warning", "Look at it, and check how it was converted."),
    Rule("saturated", "many voxels at the lowest or highest value: a window was applied", "warning", _HU),
    Rule("no-air", "nothing below -500 HU", "warning", "Check that these are HU."),
    Rule("unlike-training", "values of another range than those of the images that the network was trained on",
         "warning", "Check that this is the same kind of scan, in the same units."),
    Rule("trained-on-phantoms", "a patient's scan, and a network that was trained on synthetic bodies", "warning",
         "Its masks of patients mean nothing: train it on scans of patients."),
    Rule("padding", "many voxels of one value that is no HU of tissue", "note", "Clip to air (-1024)."),
)  # fmt: skip
_GEOMETRY = ("not-3d", "no-geo", "affine", "pixdim", "sform", "shear", "axes", "spacing", "origin", "unit", "slices")
RULES = {rule.code: rule for rule in _TABLE}
ACCEPTABLE = tuple(rule.code for rule in _TABLE if rule.accepted)
_OF_SCANS = ("intent", "not-hu", "rescale-missing", "constant", "hu-range", "saturated", "no-air", "padding")
_OF_PREDICTION = ("unlike-training", "trained-on-phantoms")


def finding(code: str, location: object, message: str, fix: str = "") -> Finding:
    """Return a finding of a rule, with the rule's severity and, by default, its fix."""
    rule = RULES[code]
    return Finding(rule.severity, code, "", str(location), message, fix or rule.fix)


def refusal(problem: Finding) -> DataError:
    """Return a finding as the error of a command that reads; its `code` is the finding's."""
    rule = RULES[problem.code]
    fix = problem.fix
    if rule.accepted:
        fix += f" Or give --accept {rule.code} (in a config accept=[{rule.code}]) to read it {rule.accepted}."
    error = (GeometryError if rule.geometry else DataError)(problem.location, problem.message, "", fix)
    error.code = rule.code
    return error


def as_finding(error: DataError) -> Finding:
    """Return the error of a reader as a finding of `data check`."""
    rule = RULES[error.code or "file-unreadable"]
    message = error.reason
    return Finding("error", rule.code, "", error.thing, message, error.fix if not rule.accepted else rule.fix)


def admit(problems: Iterable[Finding], accept: Sequence[str] = ()) -> tuple[Finding, ...]:
    """Return what is to be said of a file that is read; errors that were accepted are warnings then.

    Args:
        problems: the findings on it.
        accept: codes of errors that the user accepts.

    Raises:
        DataError, GeometryError: an error that is not accepted, or cannot be.
    """
    admitted, refused = [], []
    for problem in problems:
        rule = RULES[problem.code]
        if rule.action == "refuse" and problem.severity == "error":
            if not rule.accepted or rule.code not in accept:
                refused.append(problem)
                continue
            message = f"{problem.message}; it is read {rule.accepted}, as accepted"
            problem = replace(problem, severity="warning", message=message)
        if problem.severity != "note" or rule.reading == "warn":
            admitted.append(replace(problem, severity="warning"))
    if refused:
        error = refusal(refused[0])
        codes = dict.fromkeys(problem.code for problem in refused[1:] if problem.code != refused[0].code)
        error.fix += f" It also breaks {', '.join(codes)}." if codes else ""
        raise error
    return tuple(admitted)


def log_warnings(problems: Iterable[Finding]) -> None:
    """Log what `admit` returned, a line each, with the name of the file."""
    for problem in problems:
        logger.warning("%s: %s. %s", problem.location, problem.message, problem.fix)


def require_codes(accept: Sequence[str]) -> tuple[str, ...]:
    """Check codes that a user accepts.

    Raises:
        InputError: one that no rule has, or that cannot be accepted.
    """
    for code in accept:
        if code not in ACCEPTABLE:
            problem = "it cannot be accepted" if code in RULES else "no property of a scan is named so"
            fix = did_you_mean(code, ACCEPTABLE, f"Those that can be: {', '.join(ACCEPTABLE)}.")
            raise InputError(f"accept '{code}'", problem, fix=fix)
    return tuple(accept)


def table() -> str:
    """Return the rules as a Markdown table: one row a property, one column a command."""
    rows = [("property", "code", "formats", *(f"`{command}`" for command in COMMANDS), "accepted, it is read")]
    rows.append(("---",) * len(rows[0]))
    for rule in _TABLE:
        cells = (rule.cell(command) for command in COMMANDS)
        rows.append((rule.meaning, f"`{rule.code}`", rule.formats, *cells, rule.accepted))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
