"""A run on disk: read its folder, find it, watch it, stop it, resume it, compare it; without torch and without a daemon.

This is the only place that reads or writes the files of a run; `medseg.training` writes them through it.
"""

from medseg.runs.find import find_run, find_runs
from medseg.runs.run import Best, Run

__all__ = ["Best", "Run", "find_run", "find_runs"]
