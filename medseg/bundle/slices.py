"""A trained bundle on 2D slices: pictures to masks of indices and of colours, overlays, and a table of areas."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine, Events

from medseg.atomic import atomic_path, remove_partial, writable_folder, write_csv
from medseg.bundle.pipeline import Outcome, overlapped
from medseg.bundle.predict import Predictor
from medseg.bundle.segmenting import named
from medseg.errors import DataError, LabelError, MedsegError
from medseg.image_io_2d import intensities, read_comment, read_image_2d, read_size, write_image_2d
from medseg.labels import LabelMap
from medseg.report import image_overlay

logger = logging.getLogger(__name__)

MASKS, COLOURS, OVERLAYS, STRUCTURES = "masks", "colours", "overlays", "structures"
TABLE, LABELS = "pixels.csv", "label_map.json"
_COLUMNS = ("slice", "scan", "structure", "pixels", "area_mm2")

Label = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class SlicePrediction:
    """What a network says of one slice, on the pixels of its picture.

    Args:
        id: what its files are called.
        source: the picture.
        label: class indices, `(rows, columns)`.
        channels: of a network whose structures may overlap, `(structures, rows, columns)`, else None.
        scan: the scan it is a slice of; empty where it is of none.
        spacing: mm from row to row and from column to column; None where it is not known.
    """

    id: str
    source: Path
    label: Label
    channels: npt.NDArray[np.bool_] | None = None
    scan: str = ""
    spacing: tuple[float, float] | None = None

    def pixels(self, labels: LabelMap) -> dict[str, int]:
        """Pixels of each structure; one that lies under another counts, too, where structures may overlap."""
        if self.channels is not None:
            counts = self.channels.reshape(len(self.channels), -1).sum(axis=1)
            return {name: int(count) for name, count in zip(labels.structures, counts, strict=True)}
        counts = np.bincount(self.label.ravel(), minlength=len(labels))
        return {name: int(counts[labels.index(name)]) for name in labels.structures}


@dataclass
class SliceWriter:
    """Files of predicted slices: `masks/ID.png` holds class indices, `colours/ID.png` their colours.

    `overlays/ID.png` is for people. Of a network whose structures may overlap, `structures/NAME/ID.png` (0 or 255) is
    what it said, and the mask a view of it, painted in the order of `LabelMap.overlap_priority`. `pixels.csv` has a row
    for each slice and structure, `label_map.json` says what the indices mean. Every file is whole or not there.

    Args:
        folder: where they go.
        labels: the classes.
        colours: of each class, `(classes, 3)`; by default the label map's.
        multilabel: whether structures may overlap.
        only: the structures that were looked for, where it was not all; every mask says so of itself.
    """

    folder: Path
    labels: LabelMap
    colours: npt.NDArray[np.int64] | None = None
    multilabel: bool = False
    only: Sequence[str] | None = None
    _rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.colours is None:
            self.colours = np.array([self.labels.color(index) for index in range(len(self.labels))])

    def begin(self) -> None:
        """Write what the indices mean, unless masks are there whose indices mean something else.

        Raises:
            DataError: there are such masks; OutputError: the place cannot be written.
        """
        path = self.folder / LABELS
        try:
            same = not path.is_file() or LabelMap.load(path) == self.labels
        except LabelError:
            same = False
        if not same and any((self.folder / MASKS).glob("*.png")):
            raise DataError(
                self.folder / MASKS,
                "is added to where the masks in it are of the same classes",
                f"masks of other ones, see {path}",
                "Choose another folder with -o.",
            )
        self.labels.save(path)

    @property
    def _comment(self) -> str:
        return "" if self.only is None else f"only {', '.join(self.only)}"

    def files(self, id: str) -> dict[str, Path]:
        """What is written for a slice."""
        return {name: self.folder / name / f"{id}.png" for name in (MASKS, COLOURS, OVERLAYS)}

    def parts(self, id: str) -> list[Path]:
        """The masks of single structures of a slice, where structures may overlap."""
        names = self.labels.structures if self.multilabel else ()
        return [self.folder / STRUCTURES / name / f"{id}.png" for name in names]

    def write(self, prediction: SlicePrediction) -> Path:
        """Write the files of one slice; gives its mask.

        Raises:
            OutputError: the place cannot be written.
        """
        files, parts, colours = self.files(prediction.id), self.parts(prediction.id), np.asarray(self.colours)
        for path in (*files.values(), *parts):
            path.parent.mkdir(parents=True, exist_ok=True)
        if prediction.channels is not None:
            for path, mask in zip(parts, prediction.channels, strict=True):
                write_image_2d(path, mask.astype(np.uint8) * 255)
        picture = intensities(read_image_2d(prediction.source), 1)[0]
        printable = image_overlay(picture, prediction.label, self.labels, prediction.id, colours)
        with atomic_path(files[OVERLAYS]) as partial:
            printable.save(partial, format="PNG", compress_level=3)
        write_image_2d(files[COLOURS], colours.astype(np.uint8)[prediction.label])
        write_image_2d(files[MASKS], prediction.label, comment=self._comment)  # last: where it is, the rest is, too
        self.note(prediction)
        return files[MASKS]

    def note(self, prediction: SlicePrediction) -> None:
        """Take a slice into the table, without writing anything."""
        mm2 = None if prediction.spacing is None else prediction.spacing[0] * prediction.spacing[1]
        self._rows[prediction.id] = [
            (prediction.id, prediction.scan, name, count, "" if mm2 is None else round(count * mm2, 2))
            for name, count in prediction.pixels(self.labels).items()
        ]

    def kept(self, id: str, item: Mapping[str, Any]) -> SlicePrediction | None:
        """The prediction of a slice that is there already and whole; None where it is not, or is of other structures.

        Raises:
            DataError: the picture cannot be read.
        """
        files, size = self.files(id), read_size(item["image"])
        try:
            mask, *parts = (read_image_2d(path) for path in (files[MASKS], *self.parts(id)))
            said = read_comment(files[MASKS])
        except DataError:
            return None
        whole = all(one.values.shape == size for one in (mask, *parts)) and int(mask.values.max()) < len(self.labels)
        if not whole or said != self._comment or not (files[COLOURS].is_file() and files[OVERLAYS].is_file()):
            return None
        channels = np.stack([one.values > 0 for one in parts]) if self.multilabel else None
        label = mask.values.astype(label_type(self.labels))
        return SlicePrediction(id, Path(item["image"]), label, channels, item.get("scan", ""), spacing_of(item))

    def close(self) -> Path:
        """Write the table of all slices; those of earlier ones stay in it as long as their masks are there.

        Raises:
            OutputError: the place cannot be written.
        """
        self._rows = self._earlier() | self._rows
        write_csv(self.folder / TABLE, _COLUMNS, [row for id in sorted(self._rows) for row in self._rows[id]])
        return self.folder / TABLE

    def _earlier(self) -> dict[str, list[tuple[Any, ...]]]:
        """The rows of the table that is there, of slices that are not in this one."""
        found: dict[str, list[tuple[Any, ...]]] = {}
        try:
            with (self.folder / TABLE).open(newline="", encoding="utf-8") as file:
                for row in csv.reader(file):
                    if len(row) == len(_COLUMNS) and (self.folder / MASKS / f"{row[0]}.png").is_file():
                        found.setdefault(row[0], []).append(tuple(row))
        except (OSError, UnicodeDecodeError, csv.Error):
            return {}
        return found


def label_type(labels: LabelMap) -> type[np.unsignedinteger[Any]]:
    """What holds the indices of these classes."""
    return np.uint8 if len(labels) <= 256 else np.uint16


def spacing_of(item: Mapping[str, Any]) -> tuple[float, float] | None:
    """The spacing that an item names, mm; None where nobody said it."""
    said = item.get("spacing")
    return None if said is None else (float(said[0]), float(said[1]))


def read_colours(path: str | Path, labels: LabelMap) -> npt.NDArray[np.int64] | None:
    """The colours that a set's `classes.json` gives to the classes, `(classes, 3)`; None without that file.

    Raises:
        DataError: it holds anything else, or not all classes.
    """
    if not Path(path).is_file():
        return None
    try:
        said = json.loads(Path(path).read_text(encoding="utf-8"))
        found = np.array([said.get(labels.name(0), [0, 0, 0]), *(said[name] for name in labels.structures)])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(path, "must give a colour to each class of the network", repr(error)) from error
    if found.shape != (len(labels), 3) or found.min() < 0 or found.max() > 255:
        raise DataError(path, "must give each class three numbers from 0 to 255", repr(found.tolist())[:80])
    return found.astype(np.int64)


def to_prediction(
    pred: torch.Tensor, item: Mapping[str, Any], labels: LabelMap, multilabel: bool, only: Sequence[str] | None = None
) -> SlicePrediction:
    """From what the inferer gives, `(1, rows, columns)` or a channel for each structure, to what is written.

    Raises:
        DataError: it has not the size of the picture.
    """
    source, values = Path(str(item["image"])), np.asarray(torch.as_tensor(pred).detach().cpu().numpy())
    size = read_size(source)
    if values.shape != (len(labels) - 1 if multilabel else 1, *size):
        raise DataError(source, f"must get a mask of {size[0]} rows and {size[1]} columns", f"shape {values.shape}")
    wanted = labels.structures if only is None else tuple(only)
    if multilabel:
        held = np.array([name in wanted for name in labels.structures])
        channels: npt.NDArray[np.bool_] | None = (values > 0) & held[:, None, None]
        label = painted(np.asarray(channels), labels)
    else:
        channels, table = None, np.zeros(len(labels), label_type(labels))
        chosen = [labels.index(name) for name in wanted]
        table[chosen] = chosen
        label = table[values[0]]
    id = str(item.get("case") or source.stem)
    return SlicePrediction(id, source, label, channels, str(item.get("scan", "")), spacing_of(item))


def painted(channels: npt.NDArray[np.bool_], labels: LabelMap) -> Label:
    """Masks that may overlap, `(structures, rows, columns)`, as one label; the smaller by nature covers the larger."""
    label = np.zeros(channels.shape[1:], label_type(labels))
    for name in labels.overlap_priority():
        label[channels[labels.index(name) - 1]] = labels.index(name)
    return label


class SliceSegmentation:
    """Pictures to masks, one after the other, while the next is read and the last is written.

    Args:
        predictor: the bundle, made with `pictures=True`.
        items: what `medseg.data.slice_items` gives.
        folder: where the files go, see `SliceWriter`.
        overwrite: whether masks that are there and whole are made again.

    Raises:
        OutputError: the folder cannot be written.
        DataError: see `read_colours` and `SliceWriter.begin`.
    """

    def __init__(
        self, predictor: Predictor, items: Sequence[Mapping[str, Any]], folder: Path, overwrite: bool = False
    ) -> None:
        self.predictor, self.items, self.overwrite = predictor, list(items), overwrite
        colours = read_colours(predictor.root / "classes.json", predictor.labels)
        multilabel = bool(getattr(predictor.inferer, "multilabel", False))
        self.writer = SliceWriter(writable_folder(folder), predictor.labels, colours, multilabel, predictor.only)
        self.writer.begin()
        self.counts: Counter[str] = Counter()

    def run(self) -> Generator[Outcome[Mapping[str, Any], Path]]:
        """Segment all; what becomes of each, in order. An error of one stops no other; the table comes at the end."""
        for name in (MASKS, COLOURS, OVERLAYS, STRUCTURES):
            remove_partial(self.writer.folder / name)
        for path in (Path(TABLE), Path(LABELS)):  # nothing else below the folder is this one's
            for left in self.writer.folder.glob(f".{path.stem}.*.partial{path.suffix}"):
                left.unlink(missing_ok=True)
        for outcome in overlapped(self.items, self._read, self._compute, self._write):
            error = outcome.error
            if error is not None and not isinstance(error, MedsegError):
                outcome = Outcome(outcome.item, None, named(error, Path(outcome.item["image"])))
            self.counts["failed" if outcome.error is not None else "done"] += 1
            yield outcome
        self.writer.close()

    def _read(self, item: Mapping[str, Any]) -> tuple[Mapping[str, Any], Any]:
        kept = None if self.overwrite else self.writer.kept(str(item["case"]), item)
        return item, kept or self.predictor.preprocessing(dict(item))

    def _compute(self, work: tuple[Mapping[str, Any], Any]) -> tuple[SlicePrediction, bool]:
        item, loaded = work
        if isinstance(loaded, SlicePrediction):
            return loaded, False
        pred = self.predictor.infer(loaded["image"][None])[0]
        labels, only = self.predictor.labels, self.predictor.only
        return to_prediction(pred, item, labels, self.writer.multilabel, only), True

    def _write(self, item: Mapping[str, Any], work: tuple[SlicePrediction, bool]) -> Path:
        prediction, new = work
        if new:
            return self.writer.write(prediction)
        self.counts["kept"] += 1
        self.writer.note(prediction)
        return self.writer.files(prediction.id)[MASKS]


class SaveSlices:
    """Write what an evaluator says of slices, see `SliceWriter`.

    Not MONAI's `SaveImaged`, which turns pictures by its own axes and writes indices alone.

    Args:
        folder: where the files go.
        labels: the classes.
        colours: a set's `classes.json`, where there is one.
        multilabel: whether structures may overlap.
    """

    def __init__(
        self, folder: str | Path, labels: LabelMap, colours: str | Path | None = None, multilabel: bool = False
    ) -> None:
        self.folder, self.labels, self.multilabel = Path(folder), labels, multilabel
        self.colours = None if colours is None else read_colours(colours, labels)
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
            meta, pred = output["image"].meta, output["pred"]
            if self._writer is None:
                self._writer = SliceWriter(writable_folder(self.folder), self.labels, self.colours, self.multilabel)
                self._writer.begin()
            affine = np.asarray(meta["original_affine"]).reshape(4, 4)
            said = {name: loaded[name] for name in ("case", "scan") if name in loaded}
            item = {**said, "image": meta["filename_or_obj"]}
            if (affine[0, 0], affine[1, 1]) != (1.0, 1.0):  # what `LoadSlice2Dd` writes where nobody says it
                item["spacing"] = (affine[0, 0], affine[1, 1])
            path = self._writer.write(to_prediction(pred, item, self.labels, self.multilabel))
            logger.info("%s -> %s", item["image"], path)

    def _close(self, engine: Engine) -> None:
        if self._writer is not None:
            logger.info("Pixels and areas: %s", self._writer.close())
