"""Bundles: the only place that reads configs. Configs name these functions, so each is public here."""

from medseg.bundle.bundle import Bundle, find_bundle
from medseg.bundle.evaluation_context import bundle_root
from medseg.bundle.handlers import default_handlers
from medseg.bundle.outputs import Outputs
from medseg.bundle.predict import Prediction, Predictor, SavePredictions
from medseg.bundle.run import check_config, resume_run, run_bundle, start_run
from medseg.bundle.segmenting import Segmentation, Segmented
from medseg.bundle.slices import SaveSlices, SliceSegmentation, SliceWriter
from medseg.runs.find import runs_dir

__all__ = [
    "Bundle",
    "Outputs",
    "Prediction",
    "Predictor",
    "SavePredictions",
    "SaveSlices",
    "Segmentation",
    "Segmented",
    "SliceSegmentation",
    "SliceWriter",
    "bundle_root",
    "check_config",
    "default_handlers",
    "find_bundle",
    "resume_run",
    "run_bundle",
    "runs_dir",
    "start_run",
]
