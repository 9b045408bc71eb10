"""Check and test everything: python scripts/test.py [--quick] [--coverage] [arguments for pytest]."""

import os
import sys

import environment

# What daily work runs: no process of its own, no training, no pack and install. Under two minutes on two cores.
QUICK = ["-m", "not long and not slow"]
COVERAGE = ["--cov=medseg", "--cov-report=term:skip-covered"]

if __name__ == "__main__":
    # libgomp's threads would spin while they wait for each other: beside other work a test takes many times as long
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    arguments = sys.argv[1:]
    python = environment.ensure("dev")
    checks = environment.call(python, "scripts/check.py")
    for option, meaning in (("--quick", QUICK), ("--coverage", COVERAGE)):
        if option in arguments:
            arguments.remove(option)
            arguments = [*meaning, *arguments]
    if not any(argument.startswith(("-n", "--numprocesses")) for argument in arguments):
        arguments = ["-n", str(min(4, os.cpu_count() or 1)), "--dist", "worksteal", *arguments]
    tests = environment.call(python, "-m", "pytest", *arguments)
    if checks:
        print("scripts/check.py found a problem, see above the tests.", flush=True)
    sys.exit(checks or tests)
