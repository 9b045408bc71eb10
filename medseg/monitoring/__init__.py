"""What a run measured and how its predictions look, kept in its folder, and shown live.

Handlers import torch, the tracker's own process does not: so everything here is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.monitoring.histograms import Histograms
    from medseg.monitoring.history import History
    from medseg.monitoring.monitor import Monitor
    from medseg.monitoring.previews import Previews
    from medseg.monitoring.scores import SaveScores
    from medseg.monitoring.settings import check_settings, default_backend
    from medseg.monitoring.system import System
    from medseg.monitoring.tracking import Tracking

_DOOR = {
    "Histograms": "histograms",
    "History": "history",
    "Monitor": "monitor",
    "Previews": "previews",
    "SaveScores": "scores",
    "System": "system",
    "Tracking": "tracking",
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
    if name in _DOOR:
        return getattr(importlib.import_module(f"medseg.monitoring.{_DOOR[name]}"), name)
    raise AttributeError(f"module 'medseg.monitoring' has no attribute '{name}'")
