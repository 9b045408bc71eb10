"""MONAI's way to read volumes through `medseg.data.volumes`; the only module of this room that loads MONAI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data.image_reader import ImageReader

from medseg.data.scan_rules import require_codes
from medseg.data.volumes import is_volume_file, read_volume
from medseg.grid import Grid

Files = str | Path | Sequence[str | Path]


class VolumeReader(ImageReader):
    """Read NIfTI, NRRD, MetaImage files and DICOM folders for `LoadImaged`, once and strictly.

    Not MONAI's `NibabelReader` or `ITKReader`, which disagree on sheared and contradictory affines, pass damaged
    files, and average the gaps of a DICOM series away.

    Several files become the channels of one image; they must lie on one grid. Axes that are not quite at right angles
    are given as the nearest that are: networks, and what resamples for them, take no shear.

    Args:
        accept: codes of the rules for scans that the user accepts.

    Example:
        >>> from monai.transforms import LoadImaged
        >>> load = LoadImaged("image", reader="medseg.data.VolumeReader")
        >>> image = load({"image": "scan.nrrd"})["image"]  # doctest: +SKIP
    """

    def __init__(self, accept: Sequence[str] = ()) -> None:
        super().__init__()
        self.accept = require_codes(accept)

    def verify_suffix(self, filename: Files) -> bool:
        """Return whether all of the files are named as volumes, or are folders."""
        return all(is_volume_file(path) or Path(path).is_dir() for path in _listed(filename))

    def read(self, data: Files, **kwargs: Any) -> list[Path]:
        """Return the paths; they are opened in `get_data`.

        `LoadImage` catches every error of this method, tries its other readers, and one of them may pass a damaged
        file. It does not catch those of `get_data`.
        """
        return [Path(path) for path in _listed(data)]

    def get_data(self, img: Sequence[Path]) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Return the voxels, `(I, J, K)`, or `(C, I, J, K)` of several files, and their metadata.

        Raises:
            DataError, GeometryError: see `medseg.data.read_volume`; or the files lie on different grids.
        """
        volumes = [self._volume(path) for path in img]
        voxels, grid = volumes[0]
        for path, (_, other_grid) in zip(img, volumes, strict=True):
            grid.require(other_grid, path, img[0])
        several = len(volumes) > 1
        affine = grid.for_network().affine
        meta = {
            "affine": affine.copy(),
            "original_affine": affine.copy(),
            "spatial_shape": np.array(grid.shape),
            "space": "RAS",
            "original_channel_dim": 0 if several else float("nan"),
        }
        return np.stack([channel for channel, _ in volumes]) if several else voxels, meta

    def _volume(self, path: Path) -> tuple[npt.NDArray[Any], Grid]:
        return read_volume(path, self.accept)


class InMemoryReader(VolumeReader):
    """Give `LoadImaged` a volume that is in memory already, whatever file it is asked for.

    Args:
        voxels: `(I, J, K)`.
        grid: where they lie.
    """

    def __init__(self, voxels: npt.NDArray[Any], grid: Grid) -> None:
        super().__init__()
        self.voxels = voxels
        self.grid = grid

    def _volume(self, path: Path) -> tuple[npt.NDArray[Any], Grid]:
        return self.voxels, self.grid


def _listed(files: Files) -> Sequence[str | Path]:
    return [files] if isinstance(files, (str, Path)) else files
