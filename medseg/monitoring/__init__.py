"""What a run measured and how its predictions look, kept in its folder."""

from medseg.monitoring.history import History
from medseg.monitoring.previews import Previews
from medseg.monitoring.scores import SaveScores

__all__ = ["History", "Previews", "SaveScores"]
