"""What is written of the predictions for 2D slices: masks of indices and of colors, overlays, a table of areas."""

from __future__ import annotations

import contextlib
import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from medseg.atomic import atomic_path, remove_partial, writable_folder, write_csv
from medseg.bundle.batch_predict import AnyPrediction, ScanResult
from medseg.bundle.predict import Predictor
from medseg.bundle.prediction import SlicePrediction, slice_prediction, spacing_of
from medseg.data.layouts import kaggle
from medseg.data.nifti_writer import label_dtype
from medseg.errors import DataError, InputError, LabelError
from medseg.image_io_2d import Image2D, intensities, on_screen, read_comment, read_image_2d, read_size, write_image_2d
from medseg.labels import LabelMap
from medseg.report import image_preview, overlay
from medseg.report.overlays import class_colors, from_screen

logger = logging.getLogger(__name__)

MASKS, COLORS, OVERLAYS, PREVIEWS, STRUCTURES = "masks", "colors", "overlays", "previews", "structures"
TABLE, LABELS = "pixels.csv", "label_map.json"
_COLUMNS = ("slice", "scan", "structure", "pixels", "area_mm2")


@dataclass
class SliceWriter:
    """Write predicted slices: `masks/ID.png` holds class indices, `colors/ID.png` their colors.

    `overlays/ID.png` is the image with the structures drawn over it, pixel by pixel. Of a multilabel network, whose
    structures may overlap, `structures/NAME/ID.png` (0 or 255) is what it predicted, and the mask is flattened by
    `LabelMap.overlap_priority`. `pixels.csv` has a row for each slice and structure, `label_map.json` says what the
    indices mean. Every file is complete or not there.

    Args:
        folder: gets the files.
        labels: the classes, and their colors.
        multilabel: whether structures may overlap.
        only: the structures that were searched for, if not all; every mask says so of itself.
        items: what to segment, from `medseg.data.slice_items`.
        previews: whether to write `previews/ID.png`, a panel with a legend.
        submission: gets the masks of these items as run lengths, as a submission to Kaggle needs them.

    Raises:
        OutputError: the folder cannot be written.
    """

    folder: Path
    labels: LabelMap
    multilabel: bool = False
    only: Sequence[str] | None = None
    items: Sequence[Mapping[str, Any]] = ()
    previews: bool = False
    submission: Path | None = None
    needs_image: bool = field(default=False, init=False)
    needs_confidence: bool = field(default=False, init=False)
    _created: list[Path] = field(default_factory=list, init=False)
    _rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict, init=False)
    _runs: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._created = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        writable_folder(self.folder)
        if self.submission is not None:
            writable_folder(self.submission.parent)

    @classmethod
    def of(cls, predictor: Predictor, folder: Path, items: Sequence[Mapping[str, Any]], **options: Any) -> SliceWriter:
        """Return a writer for the slices that a predictor segments; `options` are its last arguments.

        Raises:
            OutputError: the folder cannot be written.
        """
        return cls(folder, predictor.labels, predictor.multilabel, predictor.only, items, **options)

    def begin(self) -> None:
        """Refuse a folder with masks whose indices mean something else, and remove partial files.

        Raises:
            DataError: there are such masks.
            OutputError: the folder cannot be written.
        """
        path = self.folder / LABELS
        try:
            same = not path.is_file() or LabelMap.load(path) == self.labels
        except LabelError:
            same = False
        if not same and any((self.folder / MASKS).glob("*.png")):
            problem = f"the masks in the folder are of other classes, see {path}"
            raise DataError(self.folder / MASKS, problem, fix="Choose another folder with -o.")
        for name in (MASKS, COLORS, OVERLAYS, PREVIEWS, STRUCTURES):
            remove_partial(self.folder / name)
        for file in (Path(TABLE), Path(LABELS)):  # nothing else below the folder belongs to this writer
            for partial in self.folder.glob(f".{file.stem}.*.partial{file.suffix}"):
                partial.unlink(missing_ok=True)

    @property
    def _comment(self) -> str:
        return "" if self.only is None else f"only {', '.join(self.only)}"

    def files(self, id: str) -> dict[str, Path]:
        """Return what is written for a slice."""
        names = (MASKS, COLORS, OVERLAYS, *([PREVIEWS] if self.previews else []))
        return {name: self.folder / name / f"{id}.png" for name in names}

    def structure_masks(self, id: str) -> list[Path]:
        """Return the masks of single structures of a slice, if structures may overlap."""
        names = self.labels.structures if self.multilabel else ()
        return [self.folder / STRUCTURES / name / f"{id}.png" for name in names]

    def write(self, item: Any, prediction: AnyPrediction, is_new: bool = True) -> ScanResult:
        """Write the files of one slice if it is new, and its rows of the table.

        Raises:
            OutputError: a file cannot be written.
        """
        if not isinstance(prediction, SlicePrediction):
            raise InputError(prediction.source, "a volume cannot be written as a slice", fix="Use a VolumeWriter.")
        files = self.files(prediction.id)
        if not self._rows:
            self.labels.save(self.folder / LABELS)
        if is_new:
            self._write_images(prediction, files)
        mm2 = None if prediction.spacing is None else prediction.spacing[0] * prediction.spacing[1]
        self._rows[prediction.id] = [
            (prediction.id, prediction.scan, name, count, "" if mm2 is None else round(count * mm2, 2))
            for name, count in prediction.pixels().items()
        ]
        if self.submission is not None:
            names = kaggle.in_order(self.labels.structures)
            self._runs[prediction.id] = [
                (prediction.id, name, kaggle.encode_runs(prediction.mask(name))) for name in names
            ]
        return ScanResult(files[MASKS], prediction, is_new, tuple(files[name] for name in files if name != MASKS))

    def _write_images(self, prediction: SlicePrediction, files: Mapping[str, Path]) -> None:
        structure_masks, colors = self.structure_masks(prediction.id), class_colors(self.labels)
        for path in (*files.values(), *structure_masks):
            path.parent.mkdir(parents=True, exist_ok=True)
        if prediction.channels is not None:
            for path, mask in zip(structure_masks, prediction.channels, strict=True):
                write_image_2d(path, mask.astype(np.uint8) * 255)
        image = on_screen(read_image_2d(prediction.source))
        write_image_2d(files[OVERLAYS], overlay(image, from_screen(prediction.label), colors))
        if self.previews:
            sheet = image_preview(intensities(Image2D(image, 255))[0], prediction.label, self.labels, prediction.id)
            with atomic_path(files[PREVIEWS]) as partial:
                sheet.save(partial, format="PNG", compress_level=3)
        write_image_2d(files[COLORS], colors.astype(np.uint8)[prediction.label])
        write_image_2d(files[MASKS], prediction.label, comment=self._comment)  # last: if it exists, the others do too

    def existing(self, item: Mapping[str, Any]) -> SlicePrediction | None:
        """Return the prediction of a slice whose files are complete; None if not, or of other structures.

        Raises:
            DataError: the image cannot be read.
        """
        id = str(item["case"])
        files, size = self.files(id), read_size(item["image"])
        try:
            mask, *parts = (read_image_2d(path) for path in (files[MASKS], *self.structure_masks(id)))
            comment = read_comment(files[MASKS])
        except DataError:
            return None
        fits = all(image.values.shape == size for image in (mask, *parts)) and int(mask.values.max()) < len(self.labels)
        if not fits or comment != self._comment or not all(path.is_file() for path in files.values()):
            return None
        channels = np.stack([image.values > 0 for image in parts]) if self.multilabel else None
        label = mask.values.astype(label_dtype(len(self.labels)))
        source, scan = Path(item["image"]), str(item.get("scan", ""))
        return SlicePrediction(id, source, label, self.labels, channels, scan, spacing_of(item))

    def close(self) -> None:
        """Write the table of all slices; those of earlier calls stay in it as long as their masks exist.

        Without any slice nothing is written, and a new folder is removed.

        Raises:
            OutputError: the file cannot be written.
        """
        if not self._rows:
            with contextlib.suppress(OSError):  # something lies in one of them
                for folder in self._created:
                    folder.rmdir()
            return
        self._rows = self._earlier_rows() | self._rows
        write_csv(self.folder / TABLE, _COLUMNS, [row for id in sorted(self._rows) for row in self._rows[id]])
        if self.submission is not None:
            rows = [row for id in sorted(self._runs) for row in self._runs[id]]
            write_csv(self.submission, kaggle.SUBMISSION_COLUMNS, rows)

    def _earlier_rows(self) -> dict[str, list[tuple[Any, ...]]]:
        rows: dict[str, list[tuple[Any, ...]]] = {}
        try:
            with (self.folder / TABLE).open(newline="", encoding="utf-8") as file:
                for row in csv.reader(file):
                    id = row[0].removeprefix("'") if row else ""  # see `write_csv`
                    if len(row) == len(_COLUMNS) and (self.folder / MASKS / f"{id}.png").is_file():
                        rows.setdefault(id, []).append(tuple(row))
        except (OSError, UnicodeDecodeError, csv.Error):
            return {}
        return rows


class SaveSlices:
    """Write the slices that an evaluator predicts, see `SliceWriter`.

    Not MONAI's `SaveImaged`, which turns images by its own axes and writes indices alone.

    Args:
        folder: gets the files.
        labels: the classes.
        colors: a data set's `classes.json`; its colors are taken if the file exists.
        multilabel: whether structures may overlap.
    """

    def __init__(
        self, folder: str | Path, labels: LabelMap, colors: str | Path | None = None, multilabel: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.labels = labels if colors is None else labels.with_colors(colors)
        self.multilabel = multilabel
        self._writer: SliceWriter | None = None

    def attach(self, engine: Engine) -> None:
        """Write after each slice, and the table at the end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def __call__(self, engine: Engine) -> None:
        """Write the slices of this batch."""
        outputs: Any = engine.state.output
        batch: Any = engine.state.batch
        for output, loaded in zip(outputs, batch, strict=True):
            meta = output["image"].meta
            if self._writer is None:
                self._writer = SliceWriter(self.folder, self.labels, self.multilabel)
                self._writer.begin()
            affine = np.asarray(meta["original_affine"]).reshape(4, 4)
            item = {name: loaded[name] for name in ("case", "scan") if name in loaded}
            item["image"] = meta["filename_or_obj"]
            if (affine[0, 0], affine[1, 1]) != (1.0, 1.0):  # LoadSlice2Dd writes 1 for an unknown spacing
                item["spacing"] = (affine[0, 0], affine[1, 1])
            result = self._writer.write(item, slice_prediction(output["pred"], item, self.labels, self.multilabel))
            logger.info("%s -> %s", item["image"], result.mask)

    def _close(self, engine: Engine) -> None:
        if self._writer is not None:
            self._writer.close()
            logger.info("Pixels and areas: %s", self.folder / TABLE)
