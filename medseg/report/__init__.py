"""Pictures for people. Nothing here imports torch."""

from medseg.report.render import overlay, panels, save_overview

__all__ = ["overlay", "panels", "save_overview"]
