"""`medseg evaluate` and `medseg evaluate compare`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medseg.cli.options import parse_pairs, with_accept, with_binarize, with_overwrite, with_trust
from medseg.cli.tables import console, number, table
from medseg.units import invented

if TYPE_CHECKING:
    from medseg.evaluation import Source

PAGE, PREDICTIONS, COMPARISON = "evaluation.html", "predictions", "comparison"
_MAX_ROWS = 10


class _OrCompare(click.Group):
    """A group whose own arguments are those of `run`, unless the first one is the name of a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {"compare", *ctx.help_option_names}:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        run = self.commands["run"]
        run.format_help(click.Context(run, ctx.parent, ctx.info_name), formatter)
        with formatter.section("Commands"):
            formatter.write_dl([("compare", "Test the paired differences between two evaluations.")])


@click.group(cls=_OrCompare)
def command() -> None:
    """Evaluate predictions against the truth, compare evaluations."""


_with_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")


@command.command(hidden=True)
@click.argument("prediction", type=click.Path(path_type=Path))
@click.argument("truth", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="Folder of the results.")
@click.option("--data", type=click.Path(path_type=Path), help="PREDICTION is a bundle: segment this data set first.")
@click.option(
    "--subset",
    type=click.Choice(["train", "val", "test"]),
    default="val",
    show_default=True,
    help="With --data: the subset of the split.",
)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="With --data: a key of inference.json.")
@click.option("--structures", multiple=True, metavar="NAME", help="Only this structure or group; may be repeated.")
@click.option("--prediction-labels", type=click.Path(), help="A JSON file that names the labels, or totalsegmentator.")
@click.option("--truth-labels", type=click.Path(), help="The same for the truth.")
@click.option("--images", type=click.Path(path_type=Path), help="A folder of scans <case>.nii.gz, for the error maps.")
@click.option("--resample", is_flag=True, help="Resample predictions on another grid to the truth's (nearest).")
@click.option("--partial", is_flag=True, help="Leave out cases that only one side has; without it they are an error.")
@with_binarize
@with_accept
@click.option("--nsd", "tolerances", multiple=True, type=float, help="A tolerance of NSD, mm.  [default: 1 and 3]")
@click.option("--bootstrap", default=2000, show_default=True, help="Bootstrap samples.")
@click.option("--seed", default=0, show_default=True, help="Seed of the bootstrap.")
@click.option("--error-maps", default=12, show_default=True, help="Draw error maps of so many of the worst cases.")
@click.option("--workers", type=click.IntRange(min=0), help="Processes. Default: one for each core, at most 8.")
@with_overwrite
@_with_json
@with_trust
def run(**options: Any) -> int:
    """Evaluate the label maps in PREDICTION against those in TRUTH, case by case and structure by structure.

    Both are folders of label maps <case>.nii.gz, folders of <case>/<structure>.nii.gz, folders of PNG masks, what
    `medseg predict` wrote, or data sets in any layout that medseg reads. Structures are matched by name. Writes
    evaluation.json, scores.csv, structures.csv and evaluation.html: Dice, F1, IoU, precision, recall, relative volume
    error, and of volumes ASD, HD95 and NSD, with means over the cases and bootstrap intervals, the worst first. The
    PNG slices of a scan are one case; those of the GI tract also get the score of the UW-Madison competition.

    \b
    medseg evaluate masks ~/Totalsegmentator_dataset -o evaluation --partial
    medseg evaluate runs/unet2d/20261122-120000-demo --data ~/Totalsegmentator_dataset -o evaluation
    """
    _check_options(options)
    from medseg.atomic import require_new, writable_folder
    from medseg.data.case_jobs import default_processes
    from medseg.evaluation import by_scan, evaluate_pairs, find_sources, match, read_names, save
    from medseg.evaluation.error_maps import worst_case_images
    from medseg.evaluation.results import FILES
    from medseg.report import save_evaluation_page

    folder, workers = Path(options["folder"]), options["workers"]
    names = {
        side: read_names(options[f"{side}_labels"]) if options[f"{side}_labels"] else None
        for side in ("truth", "prediction")
    }
    require_new([folder / name for name in (*FILES, PAGE)], options["overwrite"])
    writable_folder(folder)
    failed: Mapping[str, str] = {}
    notes: Mapping[str, tuple[str, ...]] = {}
    if options["data"]:
        predictions, truths, failed, notes = _segment(options, folder / PREDICTIONS)
    else:
        predictions = find_sources(options["prediction"], names["prediction"])
        truths = find_sources(options["truth"], names["truth"])
    partial = bool(options["partial"] or failed)
    pairs = by_scan(match(predictions, truths, options["structures"], partial, options["binarize"], options["accept"]))
    flat = any(truth.slices for truth, _ in pairs.cases.values())
    volumes_only = {"--resample": options["resample"], "--nsd": options["tolerances"], "--images": options["images"]}
    conflicts = [name for name, value in volumes_only.items() if value]
    if flat and conflicts:
        raise click.UsageError(f"{conflicts[0]} is for volumes, and these are 2D pictures.")
    evaluation = evaluate_pairs(
        pairs,
        options["tolerances"] or (1.0, 3.0),
        options["resample"],
        default_processes() if workers is None else workers,
        options["bootstrap"],
        options["seed"],
        options["prediction"],
        options["truth"] or options["data"],
    )
    notes = {case: (*notes.get(case, ()), *evaluation.notes.get(case, ())) for case in evaluation.scores}
    content = replace(evaluation, failed={**failed, **evaluation.failed}, notes=notes).to_dict()
    written = save(folder, content)
    images = worst_case_images(content, pairs, options["error_maps"], options["images"], options["resample"])
    written.append(save_evaluation_page(folder / PAGE, content, images))
    if options["as_json"]:
        click.echo(json.dumps(content, ensure_ascii=False))
    else:
        show(content)
    click.echo(f"Written: {', '.join(path.name for path in written)} in {folder}", err=options["as_json"])
    for case, reason in content["failed"].items():
        click.echo(f"Error: {case}: {reason}", err=True)
    if content["failed"]:
        count = len(content["failed"])
        cases = "1 case" if count == 1 else f"{count} cases"
        click.echo(f"{cases} could not be evaluated and {'is' if count == 1 else 'are'} not in the means.", err=True)
        return 1
    return 0


def _check_options(options: Mapping[str, Any]) -> None:
    """Check that the arguments make sense together, before anything is imported."""
    if (options["truth"] is None) == (options["data"] is None):
        raise click.UsageError("Give a folder of predictions and one of truths, or a bundle and --data DATASET.")
    if options["data"] is None and options["pairs"]:
        raise click.UsageError("--set changes how a bundle segments; it needs --data.")
    if options["data"] is not None and (options["prediction_labels"] or options["truth_labels"]):
        raise click.UsageError("With --data the labels have the names of the bundle's label map.")
    if options["data"] is None and not Path(options["prediction"]).exists():
        fix = "If it is a bundle or a run, give --data and the data set."
        raise click.UsageError(f"{options['prediction']}: there is no such folder of predictions. {fix}")


def _segment(
    options: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Source], dict[str, Source], Mapping[str, str], Mapping[str, tuple[str, ...]]]:
    """Segment a part of a data set with a bundle; returns predictions, truths, reasons of failed cases, and notes."""
    from medseg.bundle import Bundle
    from medseg.bundle.dataset_masks import segment_dataset
    from medseg.evaluation import dataset_sources, find_sources

    bundle = Bundle.open(options["prediction"], options["trust"])
    pairs, binarize, accept = parse_pairs(options["pairs"]), options["binarize"], options["accept"]
    masks = segment_dataset(bundle, options["data"], folder, options["subset"], pairs, binarize, accept)
    if masks.cases[0].slice is None:
        truths = dataset_sources(masks.cases, masks.labels)
    else:  # masks of slices as they are in the set, with overlaps
        ids = {case.id for case in masks.cases}
        truths = {id: source for id, source in find_sources(options["data"]).items() if id in ids}
    predictions = {
        case: source for case, source in find_sources(folder).items() if case in truths and case not in masks.failed
    }
    return predictions, truths, masks.failed, masks.notes


def show(content: Mapping[str, Any]) -> None:
    """Print the means, the worst structures and the worst cases."""
    from medseg.report.evaluation_page import LEFT_OUT

    screen = console()
    measures = content["measures"]
    count = len(content["cases"])
    slices = f" ({content['slices']} slices)" if content["slices"] else ""
    cases = f"{count} {'case' if count == 1 else 'cases'}{slices}"
    where = "pixels of its image" if content["slices"] else "grid of its truth"
    screen.print(f"{cases}, {len(content['structures'])} structures, each case on the {where}", markup=False)
    for key, text in LEFT_OUT.items():
        if content[key]:
            more = ", ..." if len(content[key]) > _MAX_ROWS else ""
            names = f"{', '.join(content[key][:_MAX_ROWS])}{more}"
            screen.print(f"{text}: {len(content[key])} ({names})", markup=False)
    rows = [[measure, *_interval(content["mean"][measure])] for measure in measures]
    rows.insert(1, ["f1", number(content["f1"]), "over the voxels of all cases"])
    screen.print(table("Mean over structures", ["", "mean", "95 % interval"], rows))
    if content["gi_tract"]:
        parts = {name: number(value) for name, value in content["gi_tract"].items()}
        formula = f"0.4 x Dice of slices {parts['dice']} + 0.6 x (1 - Hausdorff distance {parts['hausdorff']})"
        screen.print(f"Score of the UW-Madison GI tract competition: {parts['score']} = {formula}", markup=False)
    keys = [measure for measure in ("dice", "nsd_1mm", "nsd_3mm", "hd95_mm", "hausdorff") if measure in measures]
    rows = [
        [row["structure"], *_scores(row, keys)] + [str(row[key]) for key in ("present", "missed", "false_positive")]
        for row in content["structures"][:_MAX_ROWS]
    ]
    screen.print(table("Worst structures", ["structure", *keys, "present", "missed", "false"], rows))
    rows = [[case["case"], *(number(case["mean"][key]) for key in keys)] for case in content["cases"][:_MAX_ROWS]]
    screen.print(table("Worst cases", ["case", *keys], rows))


def _scores(row: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Return the means of a structure; where no truth has it and a prediction does, how much was invented."""
    if row["invented_voxels"] and not row["present"]:
        return [invented(row["invented_voxels"]), *["-"] * (len(keys) - 1)]
    return [number(row["measures"][key]["mean"]) for key in keys]


def _interval(interval: Mapping[str, Any]) -> list[str]:
    low, high = interval["low"], interval["high"]
    return [number(interval["mean"]), "-" if low is None else f"{low:.3f} to {high:.3f}"]


@command.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), help="Write comparison.json and .csv here.")
@click.option("--measure", "measures", multiple=True, help="May be repeated.  [default: all that both have]")
@click.option("--correction", default="holm", show_default=True, help="For many structures: holm, bh or none.")
@click.option("--seed", default=0, show_default=True, help="Seed of the bootstrap.")
@with_overwrite
@_with_json
def compare(
    first: Path,
    second: Path,
    folder: Path | None,
    measures: tuple[str, ...],
    correction: str,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare two evaluations of the same cases: paired differences, SECOND less FIRST.

    Each structure is tested with Wilcoxon's signed-rank test over the cases in which both have a value; the p values
    of a measure are corrected for the number of structures.
    """
    from medseg.atomic import require_new, writable_folder, write_json
    from medseg.evaluation import compare_evaluations, load
    from medseg.evaluation.results import write_table

    require_new([folder / f"{COMPARISON}.{kind}" for kind in ("json", "csv")] if folder is not None else [], overwrite)
    content = compare_evaluations(load(first), load(second), measures or None, correction, seed=seed)
    if as_json:
        click.echo(json.dumps(content, ensure_ascii=False))
    else:
        _show_comparison(content)
    if folder is not None:
        writable_folder(folder)
        write_json(folder / f"{COMPARISON}.json", content)
        rows = [(measure, row) for measure, rows in content["measures"].items() for row in rows]
        header = ["measure", *rows[0][1]]
        write_table(folder / f"{COMPARISON}.csv", header, [[measure, *row.values()] for measure, row in rows])
        click.echo(f"Written: {COMPARISON}.json, {COMPARISON}.csv in {folder}", err=as_json)


def _show_comparison(content: Mapping[str, Any]) -> None:
    screen = console()
    unpaired = len(content["only_first"]) + len(content["only_second"])
    note = f", {unpaired} of only one evaluation left out" if unpaired else ""
    screen.print(
        f"{len(content['cases'])} cases in both{note}; {content['second']} less {content['first']}", markup=False
    )
    main = [measure for measure in ("dice", "nsd_3mm", "hd95_mm") if measure in content["measures"]]
    for measure in main if len(content["measures"]) > 3 else content["measures"]:
        rows = content["measures"][measure]
        worse, better = (sum(row["better"] == side for row in rows) for side in ("first", "second"))
        overall = content["overall"][measure]
        title = (
            f"{measure}: {number(overall['difference'])} ({_interval({**overall, 'mean': None})[1]}, "
            f"p {_p(overall['p'])}) in the mean of cases; of {len(rows)} structures {better} better, {worse} worse"
        )
        cells = [
            [row["structure"], str(row["n"]), *(number(row[key]) for key in ("mean_first", "mean_second"))]
            + [number(row["difference"]), *_interval({**row, "mean": None})[1:]]
            + [_p(row[key]) for key in ("p", "p_corrected")]
            for row in rows[:_MAX_ROWS]
        ]
        names = ["structure", "n", "first", "second", "difference", "95 % interval", "p", f"p, {content['correction']}"]
        screen.print(table(title, names, cells))
    if content["smallest_p"] >= 0.05:
        click.echo(
            f"No structure can be significantly better or worse: with {len(content['cases'])} cases, the smallest "
            f"corrected p is {_p(content['smallest_p'])}."
        )


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
