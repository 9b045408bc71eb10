"""Pictures and pages for people. Nothing here imports torch."""

from medseg.report.dataset_page import save_dataset_page
from medseg.report.evaluation_page import save_evaluation_page
from medseg.report.preview import overlay_with_legend, panels
from medseg.report.render import overlay, save_overview
from medseg.report.statistics import StructureStatistics, save_statistics, structure_statistics

__all__ = [
    "StructureStatistics",
    "overlay",
    "overlay_with_legend",
    "panels",
    "save_dataset_page",
    "save_evaluation_page",
    "save_overview",
    "save_statistics",
    "structure_statistics",
]
