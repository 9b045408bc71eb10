"""Style, types and floors; needs an environment with the extra `dev` (scripts/test.py makes one)."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WALL = 400
CHECKS = {
    "ruff": [sys.executable, "-m", "ruff", "check", "."],
    "ruff format": [sys.executable, "-m", "ruff", "format", "--check", "--quiet", "."],
    "mypy": [sys.executable, "-m", "mypy"],
    "import-linter": [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
}


def long_modules() -> list[str]:
    """Modules that stand above the wall."""
    found = []
    for path in sorted([*ROOT.glob("medseg/**/*.py"), *ROOT.glob("scripts/**/*.py")]):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > WALL:
            found.append(f"{path.relative_to(ROOT)} has {lines} lines, {WALL} is the wall")
    return found


if __name__ == "__main__":
    failed = []
    for name, command in CHECKS.items():
        print(f"--- {name}", flush=True)
        if subprocess.call(command, cwd=ROOT):
            failed.append(name)
    walls = long_modules()
    print("\n".join(walls) or f"No module over {WALL} lines", flush=True)
    if failed or walls:
        sys.exit(f"Failed: {', '.join(failed + walls)}")
