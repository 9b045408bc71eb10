"""Write docs/reference/inputs.md from the rules for scans; with --check, say whether it is up to date."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from medseg.data import scan_rules  # noqa: E402

FILE = ROOT / "docs" / "reference" / "inputs.md"
HEAD = """# What each command does with a scan

A scan is a NIfTI, NRRD or MetaImage file, or a folder with one DICOM series. This table has a row for each property
that a scan or a label map can have. `predict` stands for `medseg.segment` and `medseg.load`, too.

- **error**: `medseg data check` reports it, and the case goes into the list of `--write-exclude`.
- **refused**: the command says why, before anything is computed or written.
- **accept**: `--accept CODE` reads the file as the last column says. It can be given several times. In a config it is
  `accept=[CODE]`, in Python `accept=("CODE",)`.
- **warning**: the command prints a line with the name of the file. The statistics of a prediction hold it, too.

The table is made from `medseg/data/scan_rules.py`, which is what the commands ask.

"""


def main() -> int:
    """Write the page, or compare it with the rules."""
    text = HEAD + scan_rules.table()
    if "--check" in sys.argv[1:]:
        return int(not FILE.is_file() or FILE.read_text(encoding="utf-8") != text)
    FILE.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
