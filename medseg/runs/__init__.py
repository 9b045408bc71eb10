"""A run on disk: read its folder, find, watch, stop, resume and compare runs; without torch and without a daemon.

This is the only place that reads or writes the files of a run; `medseg.training` writes them through it.
"""

from medseg.runs.find import find_run, find_runs
from medseg.runs.run import Best, Run

__all__ = ["Best", "Run", "find_run", "find_runs"]
