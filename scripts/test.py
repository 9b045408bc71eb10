"""Everything that must hold: python scripts/test.py [arguments for pytest]."""

import sys

import environment

if __name__ == "__main__":
    python = environment.ensure("dev")
    checks = environment.call(python, "scripts/check.py")
    tests = environment.call(python, "-m", "pytest", *sys.argv[1:])
    if checks:
        print("scripts/check.py found something, see above the tests.", flush=True)
    sys.exit(checks or tests)
