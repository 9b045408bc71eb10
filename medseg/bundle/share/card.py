"""The model card of a packed bundle: what it is for, what it learned from, how well, and what it cannot do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import RunError
from medseg.labels import LabelMap
from medseg.runs import Run
from medseg.runs.metrics_log import number_of

_SETTINGS = ("max_epochs", "batch_size", "samples_per_case", "lr", "weight_decay", "patch_size", "image_size",
             "spacing", "context", "multilabel", "variant", "seed")  # fmt: skip
_KEPT = ("## Classes\n", "## Training data\n", "## Training\n")
_MADE_UP = "Made-up bodies (the phantom) and no patients: of real scans it knows nothing"
_SHOWN = 12


@dataclass(frozen=True)
class History:
    """What the training of the weights tells, without a name of any case.

    Args:
        settings: what the run was set to, by key.
        cases: how many cases stood on each side of the split.
        data: the fingerprint of the data set, which two people can compare without showing it.
        epochs: epochs that were trained; None where nothing says.
        best_epoch: the epoch that the weights are of.
        mean_dice: their mean Dice on the validation cases.
        dice: the same by structure; None for one that no case has.
        seconds: of training.
        started: day on which it began.
        made_up: whether it was trained on made-up bodies, as recipes are where nobody gives them data.
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
    made_up: bool = False


def history_of(root: Path) -> History:
    """What the folder of a run tells of its training; nothing for a bundle that is no run's."""
    try:
        run = Run(root)
    except RunError:
        return History()
    best = run.best
    cases = run.record.get("cases")
    epoch = number_of(run.record.get("epoch"))
    started = str(run.record.get("started") or "")[:10]
    return History(
        {key: run.config[key] for key in _SETTINGS if _is_plain(run.config.get(key))},
        {side: len(ids) for side, ids in cases.items() if isinstance(ids, list)} if isinstance(cases, Mapping) else {},
        str(run.record["data"]) if run.record.get("data") else None,
        None if epoch is None else int(epoch),
        best.epoch if best else None,
        best.dice if best else None,
        dict(best.by_structure) if best else {},
        _seconds(run),
        started or None,
        run.config.get("dataset_dir", "") is None and bool(run.config.get("phantom")),
    )


def metrics_of(history: History) -> dict[str, float]:
    """What goes into the metadata's `eval_metrics`: figures by name; empty where nothing was validated."""
    if history.mean_dice is None:
        return {}
    single = {f"val_dice_{name}": round(score, 4) for name, score in history.dice.items() if score is not None}
    return {"val_mean_dice": round(history.mean_dice, 4), **single}


def card_text(
    metadata: Mapping[str, Any],
    labels: LabelMap | None,
    history: History,
    docs: str = "",
    test: str | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> str:
    """The card as Markdown.

    Args:
        metadata: of the packed bundle.
        labels: the classes.
        history: see `history_of`.
        docs: the bundle's README, of which the limits are taken.
        test: what the self-test is, in a sentence; None where there is none.
        recipe: the metadata of medseg's own recipe that it was made with: what is said there is meant for all who
            train it, and nobody said it of these weights.
    """
    recipe = recipe or {}
    parts = [
        f"# {metadata.get('name', 'A bundle')} {metadata.get('version', '')}".rstrip(),
        _task(metadata, labels, recipe),
        _about(metadata),
        "## Intended use",
        str(metadata.get("intended_use") or "Nobody said. Not for clinical decisions."),
        "## Limits",
        _limits(docs),
        "## Classes",
        _classes(labels, history),
        "## Training data",
        _data(metadata, history, recipe),
        "## Training",
        _training(history),
        "## Is it whole, and does it do here what it did there?",
        "`medseg bundle install` holds every file against `manifest.json` (SHA-256). "
        + (test or "There is no self-test with it."),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(metadata: Mapping[str, Any]) -> str:
    rows = [
        ("Authors", metadata.get("authors")),
        ("Copyright", metadata.get("copyright")),
        ("Input", metadata.get("image_classes")),
        ("Output", metadata.get("pred_classes")),
        ("Made with", ", ".join(_made_with(metadata))),
    ]
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows if value]
    return "\n".join(["| | |", "|---|---|", *lines]) if lines else ""


def _made_with(metadata: Mapping[str, Any]) -> list[str]:
    names = {"monai_version": "MONAI", "pytorch_version": "PyTorch", "numpy_version": "NumPy"}
    found = [f"{name} {metadata[key]}" for key, name in names.items() if metadata.get(key)]
    needed = metadata.get("required_packages_version")
    return [*found, *(f"{name} {value}" for name, value in needed.items())] if isinstance(needed, Mapping) else found


def _limits(docs: str) -> str:
    """What the bundle's own README says under "Limits"."""
    said = re.search(r"^## Limits\s*\n(.*?)(?=^#|\Z)", docs, re.MULTILINE | re.DOTALL)
    return said[1].strip() if said else "Nobody said. Expect it to fail on what its training data did not have."


def _classes(labels: LabelMap | None, history: History) -> str:
    if labels is None:
        return "See `label_map.json`."
    scored = bool(history.dice)
    head = [
        "| index | structure |" + (" Dice (validation) |" if scored else ""),
        "|---|---|" + ("---|" if scored else ""),
    ]
    rows = []
    for index, name in enumerate(labels.names):
        row = f"| {index} | {_cell(name)} |"
        if scored:
            score = history.dice.get(name)
            row += f" {'' if name == labels.names[0] else 'absent' if score is None else f'{score:.4f}'} |"
        rows.append(row)
    return "\n".join([*head, *rows])


def _task(metadata: Mapping[str, Any], labels: LabelMap | None, recipe: Mapping[str, Any]) -> str:
    """What it is for: the recipe's own sentence only where these weights know as many structures as that one says."""
    task = str(metadata.get("task") or metadata.get("description") or "")
    if labels is None or not task or task != str(recipe.get("task") or recipe.get("description") or ""):
        return task
    count = len(labels.structures)
    counted = re.search(r"\b\d+\b(?= (?:\w+ )?structures)", task)
    if counted is not None and int(counted[0]) == count:
        return task
    printable = ", ".join(labels.structures[:_SHOWN]) + (", ..." if count > _SHOWN else "")
    kind = re.sub(r"\s+", " ", str(metadata.get("image_classes") or "")).strip()
    return f"Segmentation of {count} structure{'s' * (count != 1)}{f' ({kind})' if kind else ''}: {printable}"


def _data(metadata: Mapping[str, Any], history: History, recipe: Mapping[str, Any]) -> str:
    source = str(metadata.get("data_source") or "").rstrip(".")
    if source and source == str(recipe.get("data_source") or "").rstrip("."):
        meant = f"The recipe is meant for: {source}"
        said = [_MADE_UP if history.made_up else "Nobody said which data", meant]
    else:
        said = [source, _MADE_UP if history.made_up else ""]
    if history.cases:
        said.append("Cases: " + ", ".join(f"{count} {side}" for side, count in history.cases.items() if count))
    if history.data:
        said.append(
            f"Fingerprint of the data set: `{history.data}` (of its files' names, sizes and times, its classes and "
            "its split; who has the same set gets the same one, and nothing can be read from it)"
        )
    return "\n\n".join(f"{text}." for text in said if text) or "Nobody said."


def _training(history: History) -> str:
    if history.epochs is None and history.mean_dice is None:
        return "No history came with the weights."
    said = []
    if history.epochs is not None:
        started = f", begun on {history.started}" if history.started else ""
        time = f", {history.seconds / 60:.0f} minutes of training" if history.seconds else ""
        said.append(f"{history.epochs} epochs{time}{started}.")
    if history.mean_dice is not None:
        said.append(
            f"The weights are those of epoch {history.best_epoch}, the best on the validation cases: mean Dice "
            f"{history.mean_dice:.4f}. They were chosen by these cases, so others will not do quite as well."
        )
    lines = [f"| `{key}` | {_cell(value)} |" for key, value in history.settings.items()]
    table = "\n".join(["| setting | |", "|---|---|", *lines]) if lines else ""
    return "\n\n".join(part for part in (" ".join(said), table) if part)


def _seconds(run: Run) -> float | None:
    rows: Sequence[Mapping[str, Any]] = run.rows_of("epoch")
    found = [seconds for row in rows if (seconds := number_of(row.get("train_seconds"))) is not None]
    return sum(found) if found else None


def with_tables_of(text: str, old: str) -> str:
    """A card with what an earlier one says of classes, data and training: where weights came without their history.

    Args:
        text: the new card.
        old: the earlier one.
    """
    kept = {head: part for head, part in _sections(old) if head in _KEPT}
    return "".join(f"{head}{kept.get(head, part)}" for head, part in _sections(text))


def _sections(text: str) -> list[tuple[str, str]]:
    """The parts of a card, each with its heading; what stands before the first heading has none."""
    pieces = re.split(r"^(## .*\n)", text, flags=re.MULTILINE)
    return [("", pieces[0]), *zip(pieces[1::2], pieces[2::2], strict=True)]


def _is_plain(value: Any) -> bool:
    """Whether a setting is a number, a choice or a list of such, and not an expression."""
    if isinstance(value, list):
        return all(_is_plain(one) for one in value)
    if isinstance(value, str):
        return not value.startswith(("$", "@", "%")) and "/" not in value and "\\" not in value
    return isinstance(value, (bool, int, float))


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
