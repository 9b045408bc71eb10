"""From a fresh clone to two segmented volumes: python scripts/demo.py [options of `medseg demo`]."""

import sys

import environment

if __name__ == "__main__":
    sys.exit(environment.call(environment.ensure("monitor,share"), "-m", "medseg", "demo", *sys.argv[1:]))
