"""Label maps of one subset of a data set, segmented with a bundle; complete ones of the same weights are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from medseg.atomic import writable_folder, write_json
from medseg.bundle.batch_predict import BatchPredictor
from medseg.bundle.bundle import Bundle
from medseg.bundle.predict import Predictor
from medseg.bundle.prediction import Prediction
from medseg.bundle.slice_writer import SliceWriter
from medseg.bundle.volume_writer import VolumeWriter
from medseg.cases import Case
from medseg.data import open_dataset
from medseg.data.scan_rules import log_warnings
from medseg.errors import DataError, OutputError
from medseg.file_names import entries
from medseg.inspection.mask_parts import SLICES
from medseg.labels import LabelMap

RECORD = "made_by.json"


@dataclass(frozen=True)
class DatasetMasks:
    """The label maps `<case>.nii.gz` of a data set, or what `SliceWriter` writes of one of slices.

    Args:
        cases: the cases of that subset.
        labels: how the label maps are numbered.
        failed: by case, why it has none.
        notes: by case, what makes a label map that was made now doubtful.
    """

    cases: tuple[Case, ...]
    labels: LabelMap
    failed: Mapping[str, str]
    notes: Mapping[str, tuple[str, ...]]


def segment_dataset(
    bundle: Bundle,
    data: str | Path,
    folder: str | Path,
    subset: str = "val",
    overrides: Mapping[str, Any] | None = None,
    binarize: float | None = None,
    accept: Sequence[str] = (),
) -> DatasetMasks:
    """Segment one subset of a data set, as the bundle's evaluate.json splits it, into `folder`.

    Label maps of an interrupted call are kept if weights and overrides are the same, and made again otherwise.

    Args:
        bundle: a trained bundle or the folder of a run.
        data: the data set.
        folder: where the label maps go.
        subset: `train`, `val` or `test`.
        overrides: values by key of its inference.json.
        binarize: of its evaluate.json, if the data set's masks hold more than 0 and 1.
        accept: takes scans that break a rule, by its code, see `medseg.data.scan_rules`.

    Raises:
        DataError: no scan could be segmented; OutputError: the folder holds other files; ConfigError, WeightsError: see
            `Predictor`.
    """
    folder = Path(folder)
    if entries(folder) and not (folder / RECORD).is_file():
        problem = "the folder holds files that are not the masks of an evaluation"
        raise OutputError(folder, problem, "", "Choose another folder with -o.")
    inference = bundle.resolve("inference", overrides)
    evaluate = bundle.root / "configs" / "evaluate.json"
    if bundle.runs_freely and evaluate.is_file() and "data" in bundle.content("evaluate"):
        keys: dict[str, Any] = {"dataset_dir": str(data), "output_dir": str(folder.parent)}
        keys |= {} if binarize is None else {"binarize": binarize}
        keys |= {"accept": list(accept)} if accept else {}
        dataset = bundle.resolve("evaluate", keys).get_parsed_content("data")
    else:  # its evaluate.json would run what it holds, or names no data set: the set's own split is taken
        options: dict[str, Any] = {} if binarize is None else {"binarize": binarize}
        options |= {"accept": list(accept)} if accept else {}
        options["overlaps"] = "keep" if inference.get_parsed_content("multilabel", default=False) else "precedence"
        options["slices"] = f"{SLICES}preprocessing" in inference
        labels, cache = inference.get_parsed_content("labels"), folder.parent / ".cache"
        dataset = open_dataset(data, labels, cache, use_store=False, training=False, **options)
    cases = tuple(dataset.subset(subset))
    slices = dataset.class_colors is not None
    predictor = Predictor(bundle, overrides, accept=accept, slices=slices, parser=inference)
    weights = Path(str(inference.get_parsed_content("ckpt_path")))
    if not weights.is_file():
        weights = weights.with_suffix(".safetensors")
    record = {
        "weights": str(weights.resolve()),
        "written": weights.stat().st_mtime_ns,
        "set": repr(dict(overrides or {})),
    }
    overwrite = _read_record(folder / RECORD) != record
    writable_folder(folder)
    write_json(folder / RECORD, record)
    ids = {str(case.image): case.id for case in cases}
    writer: SliceWriter | VolumeWriter
    if slices:
        items = dataset.items(subset, context=int(inference.get_parsed_content("context", default=0)))
        writer = SliceWriter.of(predictor, folder, items)
    else:
        targets = {case.image: folder / f"{case.id}.nii.gz" for case in cases}
        writer = VolumeWriter(targets, predictor.labels, accept=predictor.accept)
    failed, notes = {}, {}
    work = BatchPredictor(predictor, writer, overwrite)
    with closing(work.run()) as outcomes, tqdm(total=len(cases), desc="Segmenting", unit="scan", disable=None) as bar:
        for outcome in outcomes:
            bar.update()
            item = outcome.item
            id = ids[str(item["image"] if isinstance(item, dict) else item)]
            if outcome.result is None:
                failed[id] = str(outcome.error)
            elif isinstance(outcome.result.prediction, Prediction):
                log_warnings(outcome.result.prediction.warnings)
                notes[id] = tuple(f"{doubt.code}: {doubt.message}" for doubt in outcome.result.prediction.warnings)
    if len(failed) == len(cases):
        raise DataError(data, f"no scan of its {subset} cases could be segmented", fix=next(iter(failed.values()), ""))
    return DatasetMasks(cases, predictor.labels, failed, notes)


def _read_record(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
