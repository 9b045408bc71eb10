"""Check style, types, floors, names and sizes; needs an environment with the extra `dev`, see scripts/test.py."""

import ast
import collections
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS = {
    "ruff": [sys.executable, "-m", "ruff", "check", "."],
    "ruff format": [sys.executable, "-m", "ruff", "format", "--check", "--quiet", "."],
    "mypy": [sys.executable, "-m", "mypy"],
    "import-linter": [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
}
# No module may have more lines.
WALL = 400
# What the library should come down to. Printed at each check, not enforced.
LINES, MODULES, MEDIAN = 34_000, 245, 130
FILLER_SHARE = 1.0
ING_MODULES = 8
# Names that do not say which kind of thing they hold.
FILLERS = {
    *("found", "one", "said", "held", "made", "place", "told", "seen", "given", "known", "kept"),
    *("whole", "wanted", "twice", "near", "rest", "other", "own", "most", "least", "middle"),
}


def parse(paths: list[Path]) -> dict[Path, ast.Module]:
    """Parse the files."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def assigned_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield each name that a module assigns or takes as an argument, or gives to a function, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name.strip("_"), node.lineno


def filler_names(trees: dict[Path, ast.Module]) -> tuple[float, list[str]]:
    """Return the share of filler names in percent, and a line for each file that has any."""
    total = fillers = 0
    rows = []
    for path, tree in trees.items():
        lines = collections.defaultdict(list)
        for name, line in assigned_names(tree):
            total += 1
            if name in FILLERS:
                fillers += 1
                lines[name].append(line)
        if lines:
            listed = "; ".join(f"{name} in line {', '.join(map(str, at))}" for name, at in sorted(lines.items()))
            rows.append(f"{path.relative_to(ROOT)}: {listed}")
    return 100 * fillers / max(total, 1), rows


def size_problems(paths: list[Path]) -> list[str]:
    """Print the size of the library beside what it should be, and return the modules above the limit."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    problems = [
        f"{path.relative_to(ROOT)} has {lines} lines, the limit is {WALL}"
        for path, lines in lengths.items()
        if lines > WALL
    ]
    library = [lines for path, lines in lengths.items() if path.is_relative_to(ROOT / "medseg")]
    total, median = sum(library), statistics.median(library)
    print(f"medseg: {total} lines in {len(library)} modules, the median module has {median:.0f}", end="")
    print(f" (the aim: {LINES}, {MODULES}, {MEDIAN})")
    return problems


def name_problems(paths: list[Path]) -> list[str]:
    """Print the shares of names that say nothing, and return what exceeds a limit."""
    problems = []
    share, rows = filler_names(parse(paths))
    print(f"filler names: {share:.2f} % of the names assigned, the limit is {FILLER_SHARE:g} %")
    if share > FILLER_SHARE:
        problems += [*rows, "Rename them: a name says which kind of thing it holds"]
    endings = sorted(str(path.relative_to(ROOT)) for path in paths if path.stem.endswith("ing"))
    print(f"modules in -ing: {len(endings)} ({', '.join(endings)}), the limit is {ING_MODULES}")
    if len(endings) > ING_MODULES:
        problems.append("Name modules by the thing, not by the activity")
    return problems


if __name__ == "__main__":
    failed = []
    for name, command in CHECKS.items():
        print(f"--- {name}", flush=True)
        if subprocess.call(command, cwd=ROOT):
            failed.append(name)
    print("--- names and sizes", flush=True)
    library = sorted(ROOT.glob("medseg/**/*.py"))
    problems = size_problems([*library, *sorted(ROOT.glob("scripts/**/*.py"))]) + name_problems(library)
    print("\n".join(problems), flush=True)
    if failed or problems:
        sys.exit(f"Failed: {', '.join([*failed, *(['names and sizes'] if problems else [])])}")
