"""Everything that must hold: python scripts/test.py [arguments for pytest]."""

import os
import sys

import environment

if __name__ == "__main__":
    # libgomp's threads would spin while they wait for each other: beside other work a test takes many times as long
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    python = environment.ensure("dev")
    checks = environment.call(python, "scripts/check.py")
    tests = environment.call(python, "-m", "pytest", *sys.argv[1:])
    if checks:
        print("scripts/check.py found something, see above the tests.", flush=True)
    sys.exit(checks or tests)
