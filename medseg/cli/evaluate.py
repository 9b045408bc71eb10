"""`medseg evaluate` and `medseg evaluate compare`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medseg.cli.options import parse_pairs, with_trust
from medseg.cli.tables import console, number, table

if TYPE_CHECKING:
    from medseg.evaluation import Evaluation, Source

PAGE, PREDICTIONS, COMPARISON, MADE_BY = "evaluation.html", "predictions", "comparison", "made_by.json"
_SHOWN = 10


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
            formatter.write_dl([("compare", "Paired differences between two evaluations, tested.")])


@click.group(cls=_OrCompare)
def command() -> None:
    """Hold predictions against the truth."""


@command.command(hidden=True)
@click.argument("prediction", type=click.Path(path_type=Path))
@click.argument("truth", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="Where results go.")
@click.option("--data", type=click.Path(path_type=Path), help="PREDICTION is a bundle: segment this data set first.")
@click.option(
    "--side",
    type=click.Choice(["train", "val", "test"]),
    default="val",
    show_default=True,
    help="With --data: which side of the split.",
)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="With --data: a key of inference.json.")
@click.option("--structures", multiple=True, metavar="NAME", help="Only this structure or group; may be repeated.")
@click.option("--prediction-labels", type=click.Path(), help="A JSON file that names the labels, or totalsegmentator.")
@click.option("--truth-labels", type=click.Path(), help="The same for the truth.")
@click.option("--images", type=click.Path(path_type=Path), help="A folder of scans <case>.nii.gz, for the pictures.")
@click.option("--resample", is_flag=True, help="Bring predictions that lie elsewhere onto the truth's grid (nearest).")
@click.option("--partial", is_flag=True, help="Leave out cases that only one side has; without it they are an error.")
@click.option("--nsd", "tolerances", multiple=True, type=float, help="A tolerance of NSD, mm.  [default: 1 and 3]")
@click.option("--bootstrap", default=2000, show_default=True, help="Bootstrap samples.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@click.option("--pictures", default=12, show_default=True, help="Of how many of the worst cases.")
@click.option("--workers", type=click.IntRange(min=0), help="Processes. Default: one for each core, at most 8.")
@with_trust
def run(**options: Any) -> int:
    """Hold the label maps in PREDICTION against those in TRUTH, case by case and structure by structure.

    Both are folders of label maps <case>.nii.gz, folders of <case>/<structure>.nii.gz, or data sets in any layout
    that medseg reads. Structures are matched by name. Writes evaluation.json, scores.csv, structures.csv and
    evaluation.html: Dice, IoU, precision, recall, relative volume error, ASD, HD95 and NSD, with means over the
    cases and bootstrap intervals, the worst first.

    \b
    medseg evaluate masks ~/Totalsegmentator_dataset -o evaluation --partial
    medseg evaluate runs/unet2d/20261122-120000-demo --data ~/Totalsegmentator_dataset -o evaluation
    """
    _check(options)
    from medseg.atomic import writable_folder
    from medseg.data.parallel import default_workers
    from medseg.evaluation import evaluate, find_sources, match, read_names, save

    folder, workers = Path(options["folder"]), options["workers"]
    truth_names = read_names(options["truth_labels"]) if options["truth_labels"] else None
    own_names = read_names(options["prediction_labels"]) if options["prediction_labels"] else None
    writable_folder(folder)
    if options["data"]:
        predictions, truths, failed = _segment(options, folder / PREDICTIONS)
    else:
        predictions, truths = (
            find_sources(options["prediction"], own_names),
            find_sources(options["truth"], truth_names),
        )
        failed = {}
    pairs = match(predictions, truths, options["structures"], bool(options["partial"] or failed))
    found = evaluate(
        pairs,
        options["tolerances"] or (1.0, 3.0),
        options["resample"],
        default_workers() if workers is None else workers,
        options["bootstrap"],
        options["seed"],
        options["prediction"],
        options["truth"] or options["data"],
    )
    content = found.to_dict()
    content["failed"] = {**failed, **content["failed"]}
    written = save(folder, content)
    written.append(_page(folder / PAGE, content, found, options))
    show(content)
    click.echo(f"Written: {', '.join(path.name for path in written)} in {folder}")
    for case, why in content["failed"].items():
        click.echo(f"Error: {case}: {why}", err=True)
    if content["failed"]:
        click.echo(f"{len(content['failed'])} cases could not be evaluated; the means are without them.", err=True)
        return 1
    return 0


def _check(options: Mapping[str, Any]) -> None:
    """See that the arguments make sense together, before anything is imported."""
    if (options["truth"] is None) == (options["data"] is None):
        raise click.UsageError("Give a folder of predictions and one of truths, or a bundle and --data DATASET.")
    if options["data"] is None and options["pairs"]:
        raise click.UsageError("--set changes how a bundle segments; it goes with --data.")
    if options["data"] is not None and (options["prediction_labels"] or options["truth_labels"]):
        raise click.UsageError("With --data the names of the labels are the bundle's.")


def _segment(options: Mapping[str, Any], folder: Path) -> tuple[dict[str, Source], dict[str, Source], dict[str, str]]:
    """Segment one side of a data set with a bundle; what came out, the truth, and what failed."""
    from contextlib import closing

    from tqdm import tqdm

    from medseg.atomic import writable_folder, write_json
    from medseg.bundle import Bundle, Predictor, Segmentation
    from medseg.bundle.trust import require_trust
    from medseg.errors import DataError
    from medseg.evaluation import Source, find_sources

    bundle = Bundle.open(options["prediction"])
    require_trust(bundle.root, options["trust"], "evaluate")
    overrides = {"dataset_dir": str(options["data"]), "output_dir": str(folder.parent)}
    dataset = bundle.resolve("evaluate", overrides).get_parsed_content("data")
    cases = dataset.side(options["side"])
    changes = parse_pairs(options["pairs"])
    predictor = Predictor(bundle, changes)
    weights = Path(str(bundle.resolve("inference", changes).get_parsed_content("ckpt_path")))
    made_by = {"weights": str(weights.resolve()), "written": weights.stat().st_mtime_ns, "set": repr(changes)}
    same = _read(folder / MADE_BY) == made_by  # masks of an interrupted evaluation stay, those of another network not
    writable_folder(folder)
    write_json(folder / MADE_BY, made_by)
    scans = {case.image: case for case in cases}
    targets = {scan: folder / f"{case.id}.nii.gz" for scan, case in scans.items()}
    work = Segmentation(predictor, targets, overwrite=not same)
    failed = {}
    with closing(work.run()) as outcomes, tqdm(total=len(scans), desc="Segmenting", unit="scan", disable=None) as bar:
        for outcome in outcomes:
            bar.update()
            if outcome.result is None:
                failed[scans[outcome.item].id] = str(outcome.error)
    truths = {}
    for case in cases:
        looked_for = case.annotated if case.annotated is not None else predictor.labels.structures
        masks = case.masks if case.combinations is not None or case.label is None else {}
        label = None if masks else case.label
        truths[case.id] = Source(case.id, label, masks, predictor.labels, tuple(looked_for), case.image)
    if len(failed) == len(scans):
        raise DataError(options["data"], "must hold a scan that can be segmented", "none", next(iter(failed.values())))
    found = {id: one for id, one in find_sources(folder).items() if id in truths and id not in failed}
    return found, truths, failed


def _read(path: Path) -> Any:
    import json

    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _page(path: Path, content: Mapping[str, Any], found: Evaluation, options: Mapping[str, Any]) -> Path:
    from medseg.evaluation.pictures import worst_cases
    from medseg.report import save_evaluation_page

    pictures = worst_cases(content, found.pairs, options["pictures"], options["images"], options["resample"])
    return save_evaluation_page(path, content, pictures)


def show(content: Mapping[str, Any]) -> None:
    """Print the means, the worst structures and the worst cases."""
    screen = console()
    measures = content["measures"]
    count = len(content["cases"])
    screen.print(f"{count} {'case' if count == 1 else 'cases'}, {len(content['structures'])} structures", markup=False)
    for key, said in (
        ("not_predicted", "Structures of the truth that the predictions do not know, not evaluated"),
        ("not_in_truth", "Predicted structures that no truth knows, taken as background"),
        ("without_prediction", "Cases without a prediction, left out"),
        ("without_truth", "Predictions without a truth, left out"),
    ):
        if content[key]:
            more = ", ..." if len(content[key]) > _SHOWN else ""
            names = f"{', '.join(content[key][:_SHOWN])}{more}"
            screen.print(f"{said}: {len(content[key])} ({names})", markup=False)
    rows = [[measure, *_interval(content["mean"][measure])] for measure in measures]
    screen.print(table("Mean over structures", ["", "mean", "95 % interval"], rows))
    keys = [measure for measure in ("dice", "nsd_1mm", "nsd_3mm", "hd95_mm") if measure in measures]
    rows = [
        [one["structure"], *(number(one["measures"][key]["mean"]) for key in keys)]
        + [str(one[key]) for key in ("present", "missed", "false_positive")]
        for one in content["structures"][:_SHOWN]
    ]
    screen.print(table("Worst structures", ["structure", *keys, "present", "missed", "false"], rows))
    rows = [[case["case"], *(number(case["mean"][key]) for key in keys)] for case in content["cases"][:_SHOWN]]
    screen.print(table("Worst cases", ["case", *keys], rows))


def _interval(one: Mapping[str, Any]) -> list[str]:
    low, high = one["low"], one["high"]
    return [number(one["mean"]), "-" if low is None else f"{low:.3f} to {high:.3f}"]


@command.command()
@click.argument("one", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), help="Write comparison.json and .csv here.")
@click.option("--measure", "measures", multiple=True, help="Which; may be repeated.  [default: all that both have]")
@click.option("--correction", default="holm", show_default=True, help="For many structures: holm, bh or none.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
def compare(one: Path, other: Path, folder: Path | None, measures: tuple[str, ...], correction: str, seed: int) -> None:
    """Paired differences, OTHER less ONE, of two evaluations of the same cases.

    Each structure is tested with Wilcoxon's signed-rank test over the cases in which both have a value; the p values
    of a measure are corrected for the number of structures.
    """
    from medseg.atomic import writable_folder, write_json
    from medseg.evaluation import compare as of
    from medseg.evaluation import load
    from medseg.evaluation.results import write_csv

    found = of(load(one), load(other), measures or None, correction, seed=seed)
    _show_comparison(found)
    if folder is not None:
        writable_folder(folder)
        write_json(folder / f"{COMPARISON}.json", found)
        rows = [(measure, row) for measure, rows in found["measures"].items() for row in rows]
        header = ["measure", *rows[0][1]]
        write_csv(folder / f"{COMPARISON}.csv", header, [[measure, *row.values()] for measure, row in rows])
        click.echo(f"Written: {COMPARISON}.json, {COMPARISON}.csv in {folder}")


def _show_comparison(found: Mapping[str, Any]) -> None:
    screen = console()
    left = len(found["only_one"]) + len(found["only_other"])
    rest = f", {left} of one side alone left out" if left else ""
    screen.print(f"{len(found['cases'])} cases in both{rest}; {found['other']} less {found['one']}", markup=False)
    printable = [measure for measure in ("dice", "nsd_3mm", "hd95_mm") if measure in found["measures"]]
    for measure in printable if len(found["measures"]) > 3 else found["measures"]:
        rows = found["measures"][measure]
        ahead = [sum(row["better"] == side for row in rows) for side in ("one", "other")]
        whole = found["overall"][measure]
        title = (
            f"{measure}: {number(whole['difference'])} ({_interval({**whole, 'mean': None})[1]}, "
            f"p {_p(whole['p'])}) in the mean of cases; of {len(rows)} structures {ahead[1]} better, {ahead[0]} worse"
        )
        cells = [
            [row["structure"], str(row["n"]), *(number(row[key]) for key in ("mean_one", "mean_other"))]
            + [number(row["difference"]), *_interval({**row, "mean": None})[1:]]
            + [_p(row[key]) for key in ("p", "p_corrected")]
            for row in rows[:_SHOWN]
        ]
        columns = ["structure", "n", "one", "other", "difference", "95 % interval", "p", f"p, {found['correction']}"]
        screen.print(table(title, columns, cells))
    if found["smallest_p"] >= 0.05:
        click.echo(
            f"No structure can be surely better or worse: with {len(found['cases'])} cases the smallest p that there "
            f"can be, corrected, is {_p(found['smallest_p'])}."
        )


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
