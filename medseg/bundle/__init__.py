"""Bundles: the only room that reads configs. Configs name these functions, so each is public here."""

from medseg.bundle.batch_predict import BatchPredictor, ScanResult
from medseg.bundle.bundle import Bundle
from medseg.bundle.evaluation_context import bundle_root
from medseg.bundle.handlers import default_handlers
from medseg.bundle.predict import Predictor, SavePredictions
from medseg.bundle.prediction import Prediction, SlicePrediction
from medseg.bundle.run import check_config, resume_run, run_bundle, start_run
from medseg.bundle.slice_writer import SaveSlices, SliceWriter
from medseg.bundle.volume_writer import Outputs, VolumeWriter
from medseg.runs.find import require_run_name, runs_dir

__all__ = [
    "BatchPredictor",
    "Bundle",
    "Outputs",
    "Prediction",
    "Predictor",
    "SavePredictions",
    "SaveSlices",
    "ScanResult",
    "SlicePrediction",
    "SliceWriter",
    "VolumeWriter",
    "bundle_root",
    "check_config",
    "default_handlers",
    "require_run_name",
    "resume_run",
    "run_bundle",
    "runs_dir",
    "start_run",
]
