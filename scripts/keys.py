"""Write docs/reference/keys.md from the table of keys; --check only says whether it is up to date."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "keys.md"
USES = {
    "train": "`KEY=VALUE` of `medseg train`, arguments of `medseg.train`, keys of overlays",
    "evaluate": "`--KEY VALUE` of MONAI's command with `evaluate.json`",
    "inference": "`--set KEY=VALUE` of `medseg predict`, arguments of `medseg.load`",
}
HEAD = """# Keys of the bundles

<!-- Written by scripts/keys.py; edit medseg/config/keys.json, or `keys` in a bundle's metadata.json. -->

What can be changed, and which values are taken. They are checked before anything starts: a wrong name or a wrong value
is one line, and no run begins. Each key stands under the config in which it first appears. `medseg list keys BUNDLE`
prints the same, with `--json` for programs; `medseg train BUNDLE --help` too. Arguments of components that are not
here, such as `loss#label_smoothing`, can be changed by their path as well.

A bundle of your own describes its keys under `keys` in its `metadata.json`, in the vocabulary of JSON Schema (`type`,
`minimum`, `maximum`, `enum`, `items`, `minItems`, ...), with a `description` and, if it has one, a `unit`. What the
tables say of the common keys holds for it as soon as its metadata has `keys`, even if that is empty;
`medseg bundle new` keeps it.
"""


def page(bundles: list[str]) -> str:
    """Return the page: one table for each bundle and config, without the keys of an earlier one."""
    from medseg.cli.list import key_rows

    lines = [HEAD]
    for bundle in bundles:
        lines += [f"## {bundle}", ""]
        earlier: set[str] = set()
        for use, where in USES.items():
            rows = [row for row in key_rows(ROOT / "bundles" / bundle, use) if row["key"] not in earlier]
            earlier |= {row["key"] for row in rows}
            if rows:
                lines += [f"{where}:", "", "| key | default | values | meaning |", "|---|---|---|---|"]
                lines += [
                    f"| `{row['key']}` | {cell(row['default'])} | {row['values']} | {row['meaning']} |" for row in rows
                ]
                lines.append("")
    return "\n".join(lines)


def cell(default: str) -> str:
    """Return a default as a cell of a table."""
    return default if default in ("computed", "...", "") else f"`{default}`"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    text = page(["unet2d", "segformer2d"])
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE} is out of date: python scripts/keys.py")
