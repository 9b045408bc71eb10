"""A trained bundle in memory, for any number of scans or slices."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import LoadImaged

from medseg.bundle.bundle import Bundle
from medseg.bundle.config_errors import explained
from medseg.bundle.mask_parts import BuiltParts
from medseg.bundle.prediction import Prediction, SlicePrediction, slice_prediction, volume_prediction
from medseg.config.paths import at
from medseg.data import read_grid, scan_name
from medseg.data.intensity_reference import KEY, compare_intensities
from medseg.data.scan_rules import ACCEPTABLE, log_warnings, require_codes
from medseg.data.volume_reader import InMemoryReader
from medseg.data.volumes import Scan, check_array, read_scan
from medseg.errors import ConfigError, DataError, InputError, MedsegError, WeightsError
from medseg.findings import Finding
from medseg.grid import Grid
from medseg.image_io_2d import Image2D, intensities
from medseg.inference import InferenceOptions, StreamingInferer
from medseg.labels import LabelMap
from medseg.runs.record import RECORD
from medseg.training import prepare, try_network
from medseg.transforms import LoadSlice2Dd

logger = logging.getLogger(__name__)

_USED = ("network", "labels", "device", "amp", "ckpt_path", "spacing", "out_channels", "in_channels", "postprocessing")
_NEEDED = ("labels", "network", "ckpt_path", "device", "preprocessing", "inferer", "postprocessing")
_VOLUME = "volume_"  # prefix of the keys for volumes, in the config of a bundle that takes 2D slices


@dataclass(frozen=True)
class LoadedScan:
    """A scan or a slice as the network takes it.

    Args:
        source: its file or folder, or a name for one that was in memory.
        item: what preprocessing made of it.
        grid: where it lies; None for a slice.
        size: rows and columns of a slice that was in memory.
        image: the voxels in HU, `(I, J, K)`, if they were kept.
        warnings: what makes the result doubtful.
        seconds: how long reading took.
    """

    source: Path | str
    item: dict[str, Any]
    grid: Grid | None = None
    size: tuple[int, int] | None = None
    image: npt.NDArray[Any] | None = None
    warnings: tuple[Finding, ...] = ()
    seconds: float = 0.0


class Predictor:
    """A bundle with its weights loaded: `load` a scan in any thread, `segment` it in one.

    Args:
        bundle: a trained bundle, or the folder of a run.
        overrides: values by key of its inference.json (`device`, `inferer#overlap`, ...).
        only: structures or groups that may come out; all others become background.
        coarse_first: with `only`, run the network only where a first, coarse pass finds one of them.
        accept: takes scans that break a rule, by its code (`no-geometry`, `shear`, ...), see `medseg.data.scan_rules`.
        slices: whether it is for 2D slices (PNG and the like) and not for volumes.
        parser: its inference config, if that was resolved already.

    Attributes:
        network: the trained network, in evaluation mode on `device`.
        labels: what the label values mean.

    Raises:
        UntrustedError: what a mask needs of a bundle from elsewhere does not run without trust, see `Bundle.resolve`.
        ConfigError: a key that means nothing; `slices` for a bundle of volumes; a network that gives other channels
            than the config says.
        WeightsError: weights that do not fit.
        DeviceError: the device does not exist.
        LabelError: a structure or group that the bundle does not know.

    Example:
        >>> predictor = medseg.load("runs/unet2d/20261122-120000-demo")  # doctest: +SKIP
        >>> predictor.predict_case("scan.nii.gz").mask("liver").sum()  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: Bundle,
        overrides: Mapping[str, Any] | None = None,
        only: Sequence[str] | None = None,
        coarse_first: bool = False,
        accept: Sequence[str] = (),
        slices: bool = False,
        parser: ConfigParser | None = None,
    ) -> None:
        parser = parser or bundle.resolve("inference", overrides)
        if not isinstance(parser, BuiltParts):  # which has its own word for each
            bundle.require_keys("inference", parser, _NEEDED)
        self.root, self.source, self.config = bundle.root, parser.source, parser.content
        path = "network_data_format#inputs#image"
        kinds = [str(at(bundle.metadata, f"{path}#{key}")).lower() for key in ("format", "modality")]
        self.hounsfield = kinds[0] == "hounsfield" or kinds[1] == "ct"
        self.training_images = bundle.metadata.get(KEY)
        takes_slices = f"{_VOLUME}preprocessing" in parser
        if takes_slices:
            _require_used(bundle.content("inference"), overrides or {}, slices)
        if slices and not takes_slices:
            raise ConfigError(f"bundle '{bundle.name}'", "this bundle takes volumes only, not 2D slices")
        weights = Path(str(parser.get_parsed_content("ckpt_path")))
        if not (weights.is_file() or weights.with_suffix(".safetensors").is_file()):
            fix = "Train the bundle first, or give a run's folder."
            if (bundle.root / RECORD).is_file():
                fix = "A run writes them at its first validation: wait for it, or resume the run."
            raise WeightsError(weights, "the trained weights are missing", fix=fix)
        self.slices = slices
        with explained(self.source, self.config, "device"):
            self.device = prepare(parser.get_parsed_content("device"), seed=0)
        self.labels = parser.part("labels", LabelMap).with_colors(self.root / "classes.json")
        self.only = self.labels.select(only) if only else None
        self.accept = require_codes((*accept, *parser.get_parsed_content("accept", default=())))
        self.network = parser.part("network", torch.nn.Module).eval()
        prefix = _VOLUME if takes_slices and not slices else ""
        self.preprocessing: Any = parser.part(f"{prefix}preprocessing", Callable)
        self._inferer_key = f"{prefix}inferer"
        self.inferer: Any = parser.part(self._inferer_key, Callable)
        self.postprocessing: Any = parser.part("postprocessing", Callable)
        self.amp = bool(parser.get_parsed_content("amp", default=False))
        self.spacing: Sequence[float] | None = parser.get_parsed_content("spacing", default=None)
        self.classes = parser.part("out_channels", int, len(self.labels))
        self.channels = parser.part("in_channels", int, 1)
        structures = None if self.only is None else [self.labels.index(name) for name in self.only]
        self.options = InferenceOptions(self.device, structures=structures, coarse_first=coarse_first)
        if isinstance(self.inferer, StreamingInferer) and self.inferer.slices:
            # One slice through the network shows at once what does not fit.
            image = torch.zeros(1, self.channels, *self.inferer.roi[1:], device=self.device)
            with explained(self.source, self.config, "network"):
                try_network(self.network, image, self.classes, self.device, self.amp)

    def __repr__(self) -> str:
        return f"Predictor({str(self.root)!r}, device={str(self.device)!r}, {self.labels})"

    @property
    def multilabel(self) -> bool:
        """Whether structures may overlap."""
        return bool(getattr(self.inferer, "multilabel", False))

    def predict_case(self, path: str | Path) -> Prediction:
        """Segment one scan.

        Args:
            path: a NIfTI, NRRD or MetaImage file, or a folder with one CT series in DICOM.

        Raises:
            DataError: it cannot be read, or is no 3D volume.
            GeometryError: the label map does not lie where the scan lies.
        """
        prediction = self.segment(self.load(path, keep_image=True))
        log_warnings(getattr(prediction, "warnings", ()))
        if not isinstance(prediction, Prediction):
            raise InputError(path, "this predictor is for 2D slices", fix="Load the bundle without slices=True.")
        return prediction

    def load(self, source: str | Path | Mapping[str, Any], keep_image: bool = False) -> LoadedScan:
        """Read a scan once, and run the preprocessing; may run in another thread than the network.

        Args:
            source: see `predict_case`; of a predictor for slices, an item of `medseg.data.slice_items`.
            keep_image: whether the scan's voxels are needed afterwards, for statistics or a preview.

        Raises:
            DataError, GeometryError: it cannot be read, or is no 3D volume.
        """
        start = time.perf_counter()
        if isinstance(source, Mapping):
            path = str(source["image"])
            return LoadedScan(path, self._preprocessed(dict(source), path), seconds=time.perf_counter() - start)
        scan = self._preprocessed_volume(read_scan(source, self.accept), Path(source), keep_image)
        return replace(scan, seconds=time.perf_counter() - start)

    def load_array(
        self,
        voxels: npt.NDArray[Any],
        grid: Grid,
        source: Path | str = "image",
        keep_image: bool = False,
        problems: Sequence[Finding] = (),
    ) -> LoadedScan:
        """Run the preprocessing over a volume that is in memory.

        Args:
            voxels: `(I, J, K)`, HU for a CT.
            grid: where they lie (RAS, mm).
            source: names it in errors.
            keep_image: see `load`.
            problems: the rules for scans that its header breaks.

        Raises:
            DataError: voxels that are NaN or infinite, or that the preprocessing does not take.
            GeometryError: axes or spacings that break a rule which is not accepted.
        """
        start = time.perf_counter()
        scan = self._preprocessed_volume(check_array(voxels, grid, source, self.accept, problems), source, keep_image)
        return replace(scan, seconds=time.perf_counter() - start)

    def _preprocessed_volume(self, scan: Scan, source: Path | str, keep_image: bool) -> LoadedScan:
        doubts = compare_intensities(scan.voxels, source, self.hounsfield, self.training_images)
        warnings = (*scan.warnings, *doubts)
        transforms = list(getattr(self.preprocessing, "transforms", ()))
        index = next((k for k, transform in enumerate(transforms) if isinstance(transform, LoadImaged)), None)
        if index is None:
            raise ConfigError(self.root, "the preprocessing for volumes must be a Compose with a LoadImaged")
        item = {"image": str(source)}
        # The voxels are in memory: LoadImaged gets them from a reader of this call, and no file is read twice.
        with _naming(source):
            item = self.preprocessing(item, end=index) if index else item
            item = transforms[index](item, reader=InMemoryReader(scan.voxels, scan.grid))
            item = self.preprocessing(item, start=index + 1)
        image = scan.voxels if keep_image else None
        return LoadedScan(source, item, scan.grid, warnings=warnings, image=image)

    def load_slice_array(self, values: npt.NDArray[Any], source: str = "image") -> LoadedScan:
        """Run the preprocessing over a 2D image that is in memory, for a predictor of slices.

        Args:
            values: `(rows, columns)` or `(rows, columns, 3)`; uint8 is scaled by 255, other types by their own range.
            source: names it in errors.

        Raises:
            ConfigError: the preprocessing does not begin with `LoadSlice2Dd`.
        """
        loader = next(iter(getattr(self.preprocessing, "transforms", ())), None)
        if not isinstance(loader, LoadSlice2Dd):
            raise ConfigError(self.root, "the preprocessing for slices must begin with LoadSlice2Dd")
        image = Image2D(values, 255 if values.dtype == np.uint8 else None)
        context = int(getattr(loader, "context", 0))
        array = np.repeat(intensities(image), 2 * context + 1, 0) if context else intensities(image, loader.channels)
        meta = {"filename_or_obj": source, "original_affine": np.eye(4), "spatial_shape": np.array(array.shape[1:])}
        loaded = MetaTensor(torch.from_numpy(array), affine=torch.eye(4, dtype=torch.float64), meta=meta)
        loaded.meta["original_channel_dim"] = 0
        item = self.preprocessing({"image": loaded}, start=1)
        return LoadedScan(source, {**item, "case": source}, size=(values.shape[0], values.shape[1]))

    def _preprocessed(self, item: dict[str, Any], source: str) -> dict[str, Any]:
        with _naming(source):
            return {**item, **self.preprocessing(dict(item)), "source": item}

    def segment(self, scan: LoadedScan, options: InferenceOptions | None = None) -> Prediction | SlicePrediction:
        """Run the network over a scan that was loaded; from one thread at a time.

        Args:
            scan: from `load`.
            options: of this call; by default `self.options`.

        Raises:
            DataError: values that no network takes.
            GeometryError: see `predict_case`.
        """
        start = time.perf_counter()
        item = dict(scan.item)
        item["pred"] = self.infer(item["image"][None], options)[0]
        if scan.grid is None:
            described = {**item.get("source", item), "image": str(scan.source)}
            mask = slice_prediction(item["pred"], described, self.labels, self.multilabel, self.only, scan.size)
            return replace(mask, seconds=scan.seconds + time.perf_counter() - start)
        with explained(self.source, self.config, "postprocessing"):
            item = self.postprocessing(item)
        prediction = volume_prediction(item["pred"], scan.source, scan.grid, self.labels, self.only)
        seconds = scan.seconds + time.perf_counter() - start
        return replace(prediction, seconds=seconds, image=scan.image, warnings=scan.warnings)

    def infer(self, image: torch.Tensor, options: InferenceOptions | None = None) -> torch.Tensor:
        """Run the inferer over a preprocessed image `(1, C, *spatial)`; from one thread at a time."""
        autocast = torch.autocast(self.device.type, enabled=self.amp and self.device.type == "cuda")
        with torch.inference_mode(), autocast, explained(self.source, self.config, self._inferer_key):
            if isinstance(self.inferer, StreamingInferer):  # it moves windows to the device itself, batch by batch
                return self.inferer(image, self.network, options=options or self.options)
            return torch.as_tensor(self.inferer(image.to(self.device), self.network))


def _require_used(content: Mapping[str, Any], overrides: Mapping[str, Any], slices: bool) -> None:
    """Refuse keys that only the other kind of input uses: `window` for images, `inferer` for volumes.

    Raises:
        ConfigError: there is one.
    """
    volumes = {name for name in content if name.startswith(_VOLUME)}
    images = {name.removeprefix(_VOLUME) for name in volumes}
    used, others = (images, volumes) if slices else (volumes, images)
    reached = _reachable(content, [name for name in content if name not in images | volumes and name in _USED])
    reached |= _reachable(content, used)
    for key in overrides:
        root = key.partition("#")[0]
        if root in _reachable(content, others) - reached:
            kind, other = ("2D images", "volumes") if slices else ("volumes", "2D images")
            fix = f"Set {_VOLUME}{key}." if f"{_VOLUME}{root}" in content else "Leave it out."
            raise ConfigError(key, f"this key is for {other}, and means nothing for {kind}", "", fix)


def _reachable(content: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    """Return the keys of a config that some of them refer to, themselves included."""
    reached: set[str] = set()
    remaining = list(names)
    while remaining:
        name = remaining.pop()
        if name in content and name not in reached:
            reached.add(name)
            remaining += re.findall(r"@(\w+)", json.dumps(content[name]))
    return reached


@contextlib.contextmanager
def _naming(source: object) -> Iterator[None]:
    """Raise what the preprocessing raises as the first of our errors in it, or as one that names the scan."""
    try:
        yield
    except MedsegError:
        raise
    except Exception as error:  # MONAI wraps what a transform raises in a RuntimeError, but not all of it
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, MedsegError):
            cause = cause.__cause__
        if isinstance(cause, MedsegError):
            raise cause from cause.__cause__
        problem = "the bundle's preprocessing does not take it"
        raise DataError(source, problem, f"{type(cause).__name__}: {cause}") from error


class SavePredictions:
    """Write the label map of every scan that an evaluator runs, named after the scan.

    Not MONAI's `SaveImaged`, which writes its input wherever that lies: this one refuses a label map that does not
    lie exactly where its scan lies.

    Args:
        folder: gets the files.
        labels: what the classes mean.
    """

    def __init__(self, folder: str | Path, labels: LabelMap) -> None:
        self.folder = Path(folder)
        self.labels = labels

    def attach(self, engine: Engine) -> None:
        """Write after each scan."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the scans of this batch."""
        outputs: Any = engine.state.output
        for output in outputs:
            source = Path(output["image"].meta["filename_or_obj"])
            prediction = volume_prediction(output["pred"], source, read_grid(source, ACCEPTABLE), self.labels)
            path = prediction.save(self.folder / f"{scan_name(source)}.nii.gz")
            logger.info("%s -> %s", source, path)
