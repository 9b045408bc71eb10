"""Pictures and pages for people. Nothing here imports torch."""

from medseg.report.dataset_page import save_dataset_page
from medseg.report.evaluation_page import save_evaluation_page
from medseg.report.preview import overlay_with_legend, panels, picture_overlay, picture_panels
from medseg.report.render import overlay, save_overview
from medseg.report.run_data import RunData, read_run
from medseg.report.run_page import save_run_page
from medseg.report.run_settings import find_recipe
from medseg.report.series import save_series
from medseg.report.statistics import StructureStatistics, save_statistics, structure_statistics

__all__ = [
    "RunData",
    "StructureStatistics",
    "find_recipe",
    "overlay",
    "overlay_with_legend",
    "panels",
    "picture_overlay",
    "picture_panels",
    "read_run",
    "save_dataset_page",
    "save_evaluation_page",
    "save_overview",
    "save_run_page",
    "save_series",
    "save_statistics",
    "structure_statistics",
]
