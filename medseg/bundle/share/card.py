"""Write the model card of a packed bundle: what it is for, what it learned from, how well, and what it cannot do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from medseg.config.paths import at
from medseg.data.intensity_reference import KEY as TRAINING_IMAGES
from medseg.errors import RunError
from medseg.labels import LabelMap
from medseg.optional import require
from medseg.runs import Run
from medseg.runs.metrics_log import number_of

_SETTINGS = ("max_epochs", "batch_size", "samples_per_case", "lr", "weight_decay", "patch_size", "image_size",
             "spacing", "context", "multilabel", "variant", "seed")  # fmt: skip
_OF_TRAINING = ("## Classes\n", "## Training data\n", "## Training\n")
_PHANTOM = "Synthetic bodies (the phantom) and no patients: it knows nothing of real scans."
_SHOWN = 12
_TEMPLATE = Path(__file__).with_name("model_card.md.j2")
_TAGS = ["monai", "medical", "image-segmentation"]


@dataclass(frozen=True)
class TrainingHistory:
    """What a run says about the training of its weights, without the name of any case.

    Args:
        settings: the run's main settings, by key.
        cases: number of cases in each subset of the split.
        data: fingerprint of the dataset, which two people can compare without showing the data.
        epochs: trained epochs; None where unknown.
        best_epoch: the epoch that the weights are of.
        mean_dice: their mean Dice on the validation cases.
        dice: the same by structure; None for one that no case has.
        seconds: time spent on training.
        started: the day on which it started.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    cases: Mapping[str, int] = field(default_factory=dict)
    data: str | None = None
    epochs: int | None = None
    best_epoch: int | None = None
    mean_dice: float | None = None
    dice: Mapping[str, float | None] = field(default_factory=dict)
    seconds: float | None = None
    started: str | None = None

    @property
    def was_never_validated(self) -> bool:
        """True for a run of which no epoch has a Dice on validation cases."""
        return self.epochs is not None and self.mean_dice is None


def history_of(root: Path) -> TrainingHistory:
    """Return the training history of a run's folder; an empty one for a bundle that is not a run's."""
    try:
        run = Run(root)
    except RunError:
        return TrainingHistory()
    cases = run.record.get("cases")
    sizes = {subset: len(ids) for subset, ids in cases.items()} if isinstance(cases, Mapping) else {}
    times = [number_of(row.get("train_seconds")) for row in run.rows_of("epoch")]
    seconds = [time for time in times if time is not None]
    epoch = number_of(run.record.get("epoch"))
    optimizer = run.config.get("optimizer")
    settings = {**(optimizer if isinstance(optimizer, Mapping) else {}), **run.config}
    return TrainingHistory(
        settings={key: settings[key] for key in _SETTINGS if _is_plain(settings.get(key))},
        cases=sizes,
        data=str(run.record["data"]) if run.record.get("data") else None,
        epochs=None if epoch is None else int(epoch),
        best_epoch=run.best.epoch if run.best else None,
        mean_dice=run.best.dice if run.best else None,
        dice=run.best.by_structure if run.best else {},
        seconds=sum(seconds) if seconds else None,
        started=str(run.record.get("started") or "")[:10] or None,
    )


def metrics_of(history: TrainingHistory) -> dict[str, float]:
    """Return what goes into the metadata's `eval_metrics`: scores by name, empty where there was no validation."""
    if history.mean_dice is None:
        return {}
    scores = {f"val_dice_{name}": round(score, 4) for name, score in history.dice.items() if score is not None}
    return {"val_mean_dice": round(history.mean_dice, 4), **scores}


def card_text(
    metadata: Mapping[str, Any],
    labels: LabelMap | None,
    history: TrainingHistory,
    readme: str = "",
    test: str | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> str:
    """Return the card as Markdown, with the head that the Hugging Face Hub reads.

    Args:
        metadata: of the packed bundle.
        labels: the classes.
        history: see `history_of`.
        readme: the bundle's README, which the limits are taken from.
        test: what the self-test checks, in a sentence; None where there is none.
        recipe: the metadata of medseg's own recipe that it was made with: its texts are for everyone who trains it,
            and say nothing about these weights.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
    """
    hub = require("huggingface_hub", extra="share")
    environment = jinja2.Environment(keep_trailing_newline=True, autoescape=False)  # Markdown, not HTML
    environment.filters["cell"] = _cell
    environment.filters["dice"] = lambda score: "absent" if score is None else f"{score:.4f}"
    limits = re.search(r"^## Limits\s*\n(.*?)(?=^#|\Z)", readme, re.MULTILINE | re.DOTALL)
    text = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=f"{metadata.get('name', 'Bundle')} {metadata.get('version', '')}".rstrip(),
        task=_task(metadata, labels, recipe or {}),
        facts=_facts(metadata),
        intended_use=metadata.get("intended_use"),
        limits=limits[1].strip() if limits else "",
        names=labels.names if labels is not None else (),
        history=history,
        data=_data(metadata, history, recipe or {}),
        test=test,
    )
    head = hub.ModelCardData(tags=_TAGS, library_name="monai").to_yaml()
    return str(hub.ModelCard(f"---\n{head}\n---\n\n{text}", ignore_metadata_errors=True))


def _facts(metadata: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the rows of the card's first table."""
    names = {"monai_version": "MONAI", "pytorch_version": "PyTorch", "numpy_version": "NumPy"}
    packages = [f"{name} {metadata[key]}" for key, name in names.items() if metadata.get(key)]
    required = metadata.get("required_packages_version")
    if isinstance(required, Mapping):
        packages += [f"{name} {version}" for name, version in required.items()]
    rows = [
        ("Authors", metadata.get("authors")),
        ("Copyright", metadata.get("copyright")),
        ("Input", metadata.get("image_classes")),
        ("Output", metadata.get("pred_classes")),
        ("Made with", ", ".join(packages)),
    ]
    return [(name, value) for name, value in rows if value]


def _task(metadata: Mapping[str, Any], labels: LabelMap | None, recipe: Mapping[str, Any]) -> str:
    """Return what it is for; the recipe's own sentence only if these weights know as many structures as it says."""
    task = str(metadata.get("task") or metadata.get("description") or "")
    if labels is None or not task or task != str(recipe.get("task") or recipe.get("description") or ""):
        return task
    count = len(labels.structures)
    stated = re.search(r"\b\d+\b(?= (?:\w+ )?structures)", task)
    if stated is not None and int(stated[0]) == count:
        return task
    structures = ", ".join(labels.structures[:_SHOWN]) + (", ..." if count > _SHOWN else "")
    images = re.sub(r"\s+", " ", str(metadata.get("image_classes") or "")).strip()
    return f"Segmentation of {count} structure{'s' * (count != 1)}{f' ({images})' if images else ''}: {structures}"


def _data(metadata: Mapping[str, Any], history: TrainingHistory, recipe: Mapping[str, Any]) -> list[str]:
    """Return the paragraphs on the training data."""
    source = str(metadata.get("data_source") or "").rstrip(".")
    on_phantom = at(metadata, f"{TRAINING_IMAGES}#phantoms") is True
    if source and source == str(recipe.get("data_source") or "").rstrip("."):
        data = _PHANTOM if on_phantom else "The data are not stated."
        paragraphs = [data, f"The recipe is meant for: {source}."]
    else:
        paragraphs = [f"{source}."] * bool(source) + [_PHANTOM] * on_phantom
    if history.cases:
        counts = ", ".join(f"{count} {subset}" for subset, count in history.cases.items() if count)
        paragraphs.append(f"Cases: {counts}.")
    if history.data:
        paragraphs.append(
            f"Fingerprint of the dataset: `{history.data}` (of its files' names, sizes and times, its classes and its "
            "split: the same dataset gives the same fingerprint, and nothing can be read from it)."
        )
    return paragraphs


def keep_training_sections(text: str, old: str) -> str:
    """Return a card with an earlier card's sections on classes, data and training.

    For weights that came without their history: what the earlier card says of it stays true.

    Args:
        text: the new card.
        old: the earlier card.
    """
    earlier = {heading: section for heading, section in _sections(old) if heading in _OF_TRAINING}
    return "".join(f"{heading}{earlier.get(heading, section)}" for heading, section in _sections(text))


def _sections(text: str) -> list[tuple[str, str]]:
    """Return the sections of a card with their headings; what comes before the first heading has an empty one."""
    pieces = re.split(r"^(## .*\n)", text, flags=re.MULTILINE)
    return [("", pieces[0]), *zip(pieces[1::2], pieces[2::2], strict=True)]


def _is_plain(value: Any) -> bool:
    """Return True for a number, a choice or a list of such, False for an expression or a path."""
    if isinstance(value, list):
        return all(_is_plain(entry) for entry in value)
    if isinstance(value, str):
        return not value.startswith(("$", "@", "%")) and "/" not in value and "\\" not in value
    return isinstance(value, (bool, int, float))


def _cell(value: Any) -> str:
    """Return a value as the cell of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")
