"""Pictures and pages for people. Nothing here imports torch."""

from medseg.report.dataset_page import save_dataset_page
from medseg.report.render import overlay, panels, save_overview

__all__ = ["overlay", "panels", "save_dataset_page", "save_overview"]
