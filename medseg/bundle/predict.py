"""A trained bundle on new scans: one object in memory from which everything is written."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine, Events

from medseg.bundle.bundle import Bundle
from medseg.data import read_grid, read_volume, scan_name, write_label_map
from medseg.data.nifti import write_volume
from medseg.errors import ConfigError, DataError, GeometryError, MedsegError, WeightsError
from medseg.grid import Grid
from medseg.inference import InferenceOptions, StreamingInferer
from medseg.labels import LabelMap
from medseg.training import prepare, try_network

logger = logging.getLogger(__name__)

_SHEAR = 1e-3  # degrees; below, affines are rounded
VOLUME = "volume_"  # before the keys for volumes, in the config of a bundle that takes pictures


@dataclass(frozen=True)
class Prediction:
    """What a network says of one scan, on the scan's own grid.

    Args:
        label: class indices, `(I, J, K)`, in the voxel order of the file.
        grid: where it lies; the scan's.
        labels: what the indices mean.
        source: the scan.
        seconds: how long it took.
        only: the structures that were looked for, where it was not all.
        confidence: the mean probability of each structure over the voxels that got it, where that was asked for.

    Raises:
        GeometryError: the label map does not have the grid's shape.
    """

    label: npt.NDArray[np.unsignedinteger[Any]]
    grid: Grid
    labels: LabelMap
    source: Path
    seconds: float = 0.0
    only: tuple[str, ...] | None = None
    confidence: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.label.shape != self.grid.shape:
            raise GeometryError(
                f"prediction for {self.source}", f"must have the shape {self.grid.shape}", f"{self.label.shape}"
            )

    def save(self, path: str | Path) -> Path:
        """Write the label map with exactly the scan's shape and affine; whole or not at all.

        Raises:
            GeometryError, OutputError: see `medseg.data.write_label_map`.
        """
        return write_label_map(path, self.label, self.location, self.labels, self.only)

    @property
    def location(self) -> Path | Grid:
        """What says where it lies to those who write: the scan, or its grid where the scan is no NIfTI file."""
        return self.grid if self.source.is_dir() else self.source


@dataclass(frozen=True)
class LoadedScan:
    """A scan as the network takes it.

    Args:
        source: the scan.
        grid: where it lies.
        item: what preprocessing made of it.
        hu: its voxels, `(I, J, K)`, where they were to be kept.
        seconds: how long it took to read it.
        straight: where the network is told that it lies; another than `grid` only for a sheared scan.
    """

    source: Path
    grid: Grid
    item: dict[str, Any]
    hu: npt.NDArray[Any] | None
    seconds: float
    straight: Grid


def _to_prediction(
    pred: torch.Tensor,
    source: Path,
    grid: Grid,
    labels: LabelMap,
    only: tuple[str, ...] | None = None,
    seconds: float = 0.0,
) -> Prediction:
    """From what postprocessing leaves, `(1, I, J, K)` on the source's grid, to a label map."""
    affine = getattr(pred, "affine", None)
    values = np.asarray(torch.as_tensor(pred).detach().cpu().numpy())
    if values.ndim != 4 or len(values) != 1:
        raise GeometryError(
            f"prediction for {source}",
            "must be one label map (1, I, J, K)",
            f"shape {values.shape}",
            "A multilabel network's inferer needs decode='labels' to flatten its channels into one.",
        )
    if affine is not None:
        grid.require(Grid(values.shape[1:], np.asarray(affine)), f"prediction for {source}", source)
    label = values[0].astype(np.uint8 if len(labels) <= 256 else np.uint16)
    if only is not None:
        wanted = np.zeros(len(labels), label.dtype)
        chosen = [labels.index(name) for name in only]
        wanted[chosen] = chosen
        label = wanted[label]
    return Prediction(label, grid, labels, source, seconds, only, _confidence(pred, labels))


def _confidence(pred: torch.Tensor, labels: LabelMap) -> dict[str, float] | None:
    """How sure the network was, by structure, where the inferer says so; absent structures are left out."""
    found = getattr(pred, "meta", {}).get("confidence")
    if not found:
        return None
    means = found[0] if isinstance(found[0], list) else found  # as a batch has it, or one of a batch
    return {name: means[labels.index(name)] for name in labels.structures if np.isfinite(means[labels.index(name)])}


class Predictor:
    """A bundle with its weights loaded, for any number of scans.

    Args:
        bundle: a trained bundle, or the folder of a run.
        overrides: values by key of its inference.json (`device`, `inferer#overlap`, ...).
        only: structures or groups that may come out; all others become background.
        coarse_first: with `only`, run the network only where a first, coarse pass finds one of them.
        allow_shear: take a scan whose axes are not perpendicular by its voxel axes, as if they were.
        pictures: whether it is for 2D slices in pictures (`medseg.bundle.slices`) and not for volumes.

    Raises:
        ConfigError: a key that means nothing; pictures for a bundle that takes none; a network that gives other
            channels than the config says.
        WeightsError: weights that do not fit; DeviceError: no such device;
        LabelError: a structure or group that the bundle does not know.
    """

    def __init__(
        self,
        bundle: Bundle,
        overrides: Mapping[str, Any] | None = None,
        only: Sequence[str] | None = None,
        coarse_first: bool = False,
        allow_shear: bool = False,
        pictures: bool = False,
    ) -> None:
        parser, self.root = bundle.resolve("inference", overrides), bundle.root
        if pictures and VOLUME + "preprocessing" not in parser:
            raise ConfigError(
                f"bundle '{bundle.name}'", "must take 2D slices to segment pictures", "a bundle for volumes alone"
            )
        weights = Path(str(parser.get_parsed_content("ckpt_path")))
        if not weights.is_file():
            raise WeightsError(
                weights,
                "must hold the trained weights",
                "no such file",
                "Train the bundle first, or give a run's folder.",
            )
        self.device = prepare(parser.get_parsed_content("device"), seed=0)
        self.labels: LabelMap = parser.get_parsed_content("labels")
        self.only = self.labels.select(only) if only else None
        self.allow_shear = allow_shear
        self.network: torch.nn.Module = parser.get_parsed_content("network").eval()
        volumes = VOLUME if VOLUME + "preprocessing" in parser and not pictures else ""
        self.preprocessing = parser.get_parsed_content(f"{volumes}preprocessing")
        self.inferer = parser.get_parsed_content(f"{volumes}inferer")
        self.postprocessing = parser.get_parsed_content("postprocessing")
        self.amp = bool(parser.get_parsed_content("amp", default=False))
        self.spacing: Sequence[float] | None = parser.get_parsed_content("spacing", default=None)
        self.classes = int(parser.get_parsed_content("out_channels", default=len(self.labels)))
        self.channels = int(parser.get_parsed_content("in_channels", default=1))
        structures = None if self.only is None else [self.labels.index(name) for name in self.only]
        self.options = InferenceOptions(self.device, structures=structures, coarse_first=coarse_first)
        if isinstance(self.inferer, StreamingInferer) and self.inferer.slices:
            # One slice through the network shows at once what does not fit.
            image = torch.zeros(1, self.channels, *self.inferer.roi[1:], device=self.device)
            try_network(self.network, image, self.classes, self.device, self.amp)

    def predict_case(self, path: str | Path) -> Prediction:
        """Segment one scan.

        Args:
            path: a NIfTI file with a CT, or a folder with one CT series in DICOM.

        Raises:
            DataError: it cannot be read, or is no 3D volume.
            GeometryError: what came out does not lie where the scan lies.
        """
        return self.segment(self.load(path))

    def load(self, path: str | Path, keep_hu: bool = False) -> LoadedScan:
        """Read a scan and do all that comes before the network; may run in another thread than the network.

        Args:
            path: see `predict_case`.
            keep_hu: whether the scan's voxels are wanted afterwards.

        Raises:
            DataError, GeometryError: it cannot be read, or is no 3D volume.
        """
        path, began = Path(path), time.perf_counter()
        hu, grid = read_volume(path)  # gives the clear error for a damaged file, before anything else touches it
        straight = grid.upright() if self.allow_shear and grid.shear > _SHEAR else grid
        if straight is not grid:
            logger.warning("%s is sheared by %.1f degrees: segmented by its voxel axes", path, grid.shear)
        with tempfile.TemporaryDirectory(prefix="medseg-", ignore_cleanup_errors=True) as folder:
            copied = path.is_dir() or straight is not grid
            file = write_volume(Path(folder) / "series.nii", hu, straight) if copied else path
            if not keep_hu:
                del hu
            try:
                item = self.preprocessing({"image": str(file)})
            except RuntimeError as error:
                raise cause(error, path) from error
            item["image"].meta["filename_or_obj"] = str(path)  # what errors name
        return LoadedScan(path, grid, item, hu if keep_hu else None, time.perf_counter() - began, straight)

    def segment(self, scan: LoadedScan, options: InferenceOptions | None = None) -> Prediction:
        """Run the network over a scan that was loaded. Only ever from one thread at a time.

        Args:
            scan: from `load`.
            options: instead of `self.options`.

        Raises:
            DataError: values that no network takes; GeometryError: see `predict_case`.
        """
        began, item = time.perf_counter(), dict(scan.item)
        item["pred"] = self.infer(item["image"][None], options)[0]
        item = self.postprocessing(item)
        seconds = scan.seconds + time.perf_counter() - began
        found = _to_prediction(item["pred"], scan.source, scan.straight, self.labels, self.only, seconds)
        return replace(found, grid=scan.grid)

    def infer(self, image: torch.Tensor, options: InferenceOptions | None = None) -> torch.Tensor:
        """Run the inferer over a preprocessed image `(1, C, *spatial)`. Only ever from one thread at a time."""
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=self.amp and self.device.type == "cuda"):
            if isinstance(self.inferer, StreamingInferer):  # it moves windows to the device itself, batch by batch
                return self.inferer(image, self.network, options=options or self.options)
            return torch.as_tensor(self.inferer(image.to(self.device), self.network))


def cause(error: BaseException, path: Path) -> MedsegError:
    """The first error below MONAI's wrapping, as one of ours."""
    found: BaseException = error
    while found.__cause__ is not None:
        found = found.__cause__
    if isinstance(found, MedsegError):
        return found
    return DataError(path, "must be a scan that the bundle's preprocessing takes", f"{type(found).__name__}: {found}")


class SavePredictions:
    """Write the label map of every scan an evaluator ran, named after the scan.

    Not MONAI's `SaveImaged`: that one writes what it is given wherever that lies; this one refuses a label
    map that does not lie exactly where its scan lies.

    Args:
        folder: where the files go.
        labels: what the classes mean.
    """

    def __init__(self, folder: str | Path, labels: LabelMap) -> None:
        self.folder, self.labels = Path(folder), labels

    def attach(self, engine: Engine) -> None:
        """Write after each scan."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the scans of this batch."""
        outputs: Any = engine.state.output
        for output in outputs:
            source = Path(output["image"].meta["filename_or_obj"])
            prediction = _to_prediction(output["pred"], source, read_grid(source), self.labels)
            path = prediction.save(self.folder / f"{scan_name(source)}.nii.gz")
            logger.info("%s -> %s", source, path)
