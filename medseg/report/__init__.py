"""Images, tables and HTML pages for people. Nothing here imports torch."""

from medseg.report.dataset_page import save_dataset_page
from medseg.report.evaluation_page import save_evaluation_page
from medseg.report.figures import image_panels, image_preview, panels, save_overview, slice_image
from medseg.report.overlays import overlay
from medseg.report.run_page import save_run_page
from medseg.report.series import save_series
from medseg.report.statistics import StructureStatistics, save_statistics, structure_statistics

__all__ = [
    "StructureStatistics",
    "image_panels",
    "image_preview",
    "overlay",
    "panels",
    "save_dataset_page",
    "save_evaluation_page",
    "save_overview",
    "save_run_page",
    "save_series",
    "save_statistics",
    "slice_image",
    "structure_statistics",
]
