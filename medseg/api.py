"""The front door: segment a scan, load a bundle, train one, in one call each.

import medseg

prediction = medseg.segment("scan.nii.gz", "runs/unet2d/20261122-120000-demo")
prediction.mask("liver").sum() * prediction.grid.voxel_ml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medseg.bundle import Bundle, Prediction, Predictor, SlicePrediction, run_bundle
from medseg.bundle.predict import LoadedScan
from medseg.data import slice_items
from medseg.data.dicom import LPS_TO_RAS
from medseg.data.nifti import place_image
from medseg.data.scan_files import holds_images_2d
from medseg.data.scan_rules import log_warnings
from medseg.errors import GeometryError, InputError, RunError
from medseg.findings import Finding
from medseg.grid import Grid
from medseg.runs import Run

_PASS_AFFINE = "Pass affine=, the 4x4 matrix from voxel index to mm in RAS, as nibabel has it."


def load(
    bundle: str | Path | Bundle,
    only: str | Sequence[str] | None = None,
    *,
    coarse_first: bool = False,
    accept: Sequence[str] = (),
    slices: bool = False,
    trust: bool = False,
    **overrides: Any,
) -> Predictor:
    """Load a trained bundle once, for many scans; its `network` is the trained torch module.

    Args:
        bundle: its folder or name, or the folder of a run.
        only: a structure or group, or several, that may come out; all others become background.
        coarse_first: with `only`, run the network only where a first, coarse pass finds one of them.
        accept: takes scans that break a rule, by its code (`no-geometry`, `shear`, ...), see `medseg.data.scan_rules`.
        slices: whether it is for 2D slices (PNG and the like) and not for volumes.
        trust: whether to run a bundle that could do more than what is known to be harmless.
        **overrides: keys of its inference.json, such as `device="cuda:0"`.

    Raises:
        ConfigError, UntrustedError, WeightsError, DeviceError, LabelError: see `Predictor`.

    Example:
        >>> predictor = medseg.load("runs/unet2d/20261122-120000-demo", device="cpu")  # doctest: +SKIP
        >>> predictor.network.eval()  # doctest: +SKIP
        >>> masks = [medseg.segment(scan, predictor) for scan in ("a.nii.gz", "b.nrrd")]  # doctest: +SKIP
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle, trust)
    structures = [only] if isinstance(only, str) else only
    return Predictor(opened, overrides, structures, coarse_first, accept, slices)


def segment(
    image: Any,
    bundle: str | Path | Bundle | Predictor,
    *,
    affine: npt.ArrayLike | None = None,
    confidence: bool = False,
    **options: Any,
) -> Prediction | SlicePrediction:
    """Segment one scan.

    Args:
        image: a path (NIfTI, NRRD, MetaImage, a folder with one DICOM series, PNG), a nibabel, ITK or SimpleITK image,
            a MetaTensor, or an array `(I, J, K)` with `affine`. An array `(rows, columns)` is a 2D slice.
        bundle: the folder or name of a trained bundle or run, or a `Predictor` that `load` returned.
        affine: only for an array `(I, J, K)`: 4x4, from voxel index to mm in RAS.
        confidence: whether the prediction holds the mean probability of each structure.
        **options: the arguments of `load` and keys of inference.json, if `bundle` is not a `Predictor`.

    Raises:
        InputError: a 3D array without an affine, a 2D image for a network of volumes or the reverse, or options
            together with a `Predictor`; it is also a ValueError.
        DataError, GeometryError: the scan cannot be read, or its voxels are not evenly spaced.

    Example:
        >>> prediction = medseg.segment("scan.nii.gz", "runs/unet2d/20261122-120000-demo")  # doctest: +SKIP
        >>> prediction.save("masks/scan.nii.gz")  # doctest: +SKIP
    """
    image = Path(image).expanduser() if isinstance(image, (str, Path)) else image
    volume = _as_volume(image, affine)
    is_slice = holds_images_2d(image) if isinstance(image, (str, Path)) else volume[0].ndim == 2
    if not isinstance(bundle, Predictor):
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle, bool(options.pop("trust", False)))
        bundle = load(opened, **{"slices": is_slice and opened.takes_slices, **options})
    elif options:
        fix = "Give them to medseg.load, or give the bundle instead of the predictor."
        raise InputError("segment", "a loaded Predictor takes no options", ", ".join(options), fix)
    scan = _loaded(image, volume, is_slice, bundle)
    log_warnings(scan.warnings)
    return bundle.segment(scan, replace(bundle.options, confidence=confidence))


def train(
    bundle: str | Path | Bundle,
    data: str | Path | None,
    overlays: Sequence[str | Path] = (),
    *,
    trust: bool = False,
    **overrides: Any,
) -> Run:
    """Train a bundle as `medseg train` does, and return its run, which lands in `./runs` of the working directory.

    Args:
        bundle: see `load`.
        data: the data set; None for the phantom that comes with medseg.
        overlays: files or names of overlays, later ones overrule earlier ones.
        trust: see `load`.
        **overrides: keys of its train.json, such as `init_weights=run`; `**{"train#trainer#amp": True}` for those below
            others.

    Raises:
        ConfigError: a key that means nothing.
        DataError: a data set that does not exist or cannot be used.
        UntrustedError: see `load`.

    Example:
        >>> run = medseg.train("unet2d", "Totalsegmentator_dataset", ["poly"], max_epochs=20)  # doctest: +SKIP
        >>> run.best.dice  # doctest: +SKIP
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle, trust)
    if data is not None:
        overrides["dataset_dir"] = str(Path(data).expanduser())
    run = run_bundle(opened, "training", "train", overlays, overrides)
    if run is None:
        raise RunError(opened.root, "its train.json starts no run", fix="Its `run` key must call start_run.")
    return run


def _loaded(
    image: Any, volume: tuple[npt.NDArray[Any], Grid | None], is_slice: bool, predictor: Predictor
) -> LoadedScan:
    """Preprocess what was given, and refuse a slice for a network of volumes and the reverse."""
    voxels, grid = volume
    shown = str(image) if isinstance(image, (str, Path)) else f"shape {voxels.shape}"
    if is_slice and not predictor.slices:
        fix = "Pass an array (I, J, K) with affine=, or the path of a volume; "
        fix += "load a network of 2D slices with slices=True."
        raise InputError("image", "this is a 2D slice, and the predictor takes volumes", shown, fix)
    if not is_slice and predictor.slices:
        fix = "Pass an array (rows, columns) or the path of a PNG, or load the bundle without slices=True."
        raise InputError("image", "this is a volume, and the predictor takes 2D slices", shown, fix)
    if isinstance(image, (str, Path)):
        if not is_slice:
            return predictor.load(image, keep_image=True)
        items = slice_items(image, structures=predictor.labels.structures)
        if len(items) != 1:
            fix = "Pass the path of one of them, or use medseg.bundle.BatchPredictor."
            raise InputError("image", "segment takes one image, and this is a folder of several", shown, fix)
        return predictor.load(items[0])
    if grid is None:
        return predictor.load_slice_array(voxels)
    source, problems = _source_of(image), list[Finding]()
    if _is_nibabel(image):
        grid, problems = place_image(image, source)
    return predictor.load_array(voxels, grid, source, True, problems)


def _as_volume(image: Any, affine: npt.ArrayLike | None) -> tuple[npt.NDArray[Any], Grid | None]:
    """Return the voxels of anything but a path, and where they lie; without a grid they are a 2D slice."""
    if isinstance(image, (str, Path)):
        _require_no_affine(affine, "a file says itself where it lies")
        return np.empty(0), None
    voxels: npt.NDArray[Any]
    own_affine: Any = None
    if hasattr(image, "GetDirection") and hasattr(image, "GetSpacing"):
        _require_no_affine(affine, "an ITK image says itself where it lies")
        voxels, own_affine = _from_itk(image)
    elif _is_nibabel(image):
        _require_no_affine(affine, "a nibabel image says itself where it lies")
        voxels, own_affine = np.asanyarray(image.dataobj), image.affine
        if voxels.ndim > 3 and max(voxels.shape[3:]) == 1:
            voxels = voxels.reshape(voxels.shape[:3])
    elif isinstance(image, torch.Tensor):
        own_affine = getattr(image, "affine", None)
        if own_affine is not None:
            _require_no_affine(affine, "a MetaTensor says itself where it lies")
            own_affine = np.asarray(own_affine, dtype=np.float64)
        voxels = np.asarray(torch.Tensor.numpy(torch.as_tensor(image).detach().cpu().as_subclass(torch.Tensor)))
        voxels = voxels[0] if own_affine is not None and voxels.ndim == 4 and len(voxels) == 1 else voxels
    else:
        voxels = np.asarray(image)
    if voxels.dtype.kind not in "iufb":
        came = f"got {type(image).__name__}, dtype {voxels.dtype}"
        raise InputError("image", "the voxels must be real numbers", came, "Pass the path of one scan, or an array.")
    if voxels.ndim == 2 or (voxels.ndim == 3 and voxels.shape[2] == 3 and voxels.dtype == np.uint8 and affine is None):
        return voxels, None
    if voxels.ndim != 3:
        fix = "Pass one volume of shape (I, J, K), with HU as voxels."
        raise InputError("image", "a scan must have 3 dimensions", f"shape {voxels.shape}", fix)
    return voxels, _grid(voxels, own_affine if own_affine is not None else affine)


def _grid(voxels: npt.NDArray[Any], affine: npt.ArrayLike | None) -> Grid:
    if affine is None:
        raise InputError(
            "image", "an array does not say where its voxels lie, nor which side is left", "", _PASS_AFFINE
        )
    try:
        matrix = np.asarray(affine, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("affine", "it must be 4x4 numbers", f"got {affine!r}", _PASS_AFFINE) from error
    try:
        return Grid(voxels.shape, matrix)
    except GeometryError as error:
        raise InputError("affine", error.problem, f"shape {matrix.shape}: {matrix.tolist()}", _PASS_AFFINE) from error


def _require_no_affine(affine: npt.ArrayLike | None, reason: str) -> None:
    if affine is not None:
        raise InputError("affine", f"it goes with an array only: {reason}", fix="Leave it out.")


def _from_itk(image: Any) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Return the voxels `(I, J, K)` and the affine in RAS of an ITK or SimpleITK image, whose world is LPS."""
    package = sys.modules[type(image).__module__.partition(".")[0]]
    array = (
        package.GetArrayFromImage(image) if hasattr(package, "GetArrayFromImage") else package.array_from_image(image)
    )
    voxels = np.asarray(array).T
    if voxels.ndim != 3:
        return voxels, np.eye(4)
    matrix = image.GetDirection()
    if hasattr(package, "array_from_matrix"):
        matrix = package.array_from_matrix(matrix)
    direction = np.array(matrix, dtype=np.float64).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.GetSpacing(), dtype=np.float64)
    affine[:3, 3] = np.array(image.GetOrigin(), dtype=np.float64)
    return voxels, LPS_TO_RAS @ affine


def _is_nibabel(image: Any) -> bool:
    return hasattr(image, "dataobj") and hasattr(image, "affine")


def _source_of(image: Any) -> str:
    """Name a scan that is in memory by the file it came from, if it says so."""
    name = image.get_filename() if hasattr(image, "get_filename") else getattr(image, "meta", {}).get("filename_or_obj")
    return f"image of {name}" if name else "image"
