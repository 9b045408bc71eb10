"""What a run measured and how its predictions look: recorded in its folder, and shown live.

The handlers import torch and the tracker's process does not, so everything here is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.monitoring.gradients import Histograms
    from medseg.monitoring.history import History
    from medseg.monitoring.monitor import Monitor, Tracking
    from medseg.monitoring.previews import Previews
    from medseg.monitoring.scores import SaveScores
    from medseg.monitoring.settings import check_settings, default_backend
    from medseg.monitoring.system import System

_MODULES = {
    "Histograms": "gradients",
    "History": "history",
    "Monitor": "monitor",
    "Previews": "previews",
    "SaveScores": "scores",
    "System": "system",
    "Tracking": "monitor",
    "check_settings": "settings",
    "default_backend": "settings",
}

__all__ = [
    "Histograms",
    "History",
    "Monitor",
    "Previews",
    "SaveScores",
    "System",
    "Tracking",
    "check_settings",
    "default_backend",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"medseg.monitoring.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'medseg.monitoring' has no attribute '{name}'")
