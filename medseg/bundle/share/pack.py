"""Pack a trained bundle as one zip that says what it is and lets others check what it does."""

from __future__ import annotations

import contextlib
import io
import logging
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from monai.bundle import ConfigParser

from medseg.atomic import atomic_path, write_json, write_text
from medseg.bundle.bundle import Bundle
from medseg.bundle.evaluation_context import METADATA
from medseg.bundle.mask_parts import BuiltParts
from medseg.bundle.share import self_test
from medseg.bundle.share.archive import folder_name, write_archive
from medseg.bundle.share.card import TrainingHistory, card_text, history_of, keep_training_sections, metrics_of
from medseg.bundle.share.guards import errors_name, require_clean, sigterm_as_interrupt
from medseg.bundle.share.stage import CARD, LABELS, NetworkFacts, StagedBundle, describe, recipe_config, stage
from medseg.bundle.share.versions import LOCK, lock_text
from medseg.bundle.verify.manifest import MANIFEST, make_manifest
from medseg.errors import (
    ConfigError,
    DataError,
    MedsegError,
    OutputError,
    UntrustedError,
    WeightsError,
    command_line,
    first_line,
)
from medseg.inspection import require_safe
from medseg.labels import LabelMap
from medseg.networks import to_onnx, to_torchscript
from medseg.networks.weights import read_weights

logger = logging.getLogger(__name__)


def pack_bundle(
    root: str | Path,
    path: str | Path,
    *,
    torchscript: bool = False,
    onnx: bool = False,
    check_on: str | Path | None = None,
    metadata: Mapping[str, str] | None = None,
    trust: bool = False,
) -> Path:
    """Write a trained bundle as one zip to share; the same bundle gives the same bytes.

    It holds configs without paths and names of cases, weights (`model.pt` and safetensors), label map, docs and a model
    card, `requirements.lock`, a self-test, and `manifest.json` with the SHA-256 of every file, all in one folder of the
    bundle's name as MONAI's own zips have it.

    Args:
        root: a bundle with weights, or the folder of a run, by path or name.
        path: the zip.
        torchscript: True adds the traced network, see `medseg.networks.to_torchscript`.
        onnx: True adds it as ONNX, see `medseg.networks.to_onnx`.
        check_on: a scan or image on which the exported network is compared with the network, besides a synthetic one;
            nothing of it goes into the zip.
        metadata: texts of the metadata to replace. Without a `name` a run is called `<recipe>-<its start>`.
        trust: True packs a bundle from elsewhere that runs what it names, or holds something unsafe.

    Raises:
        ConfigError, DataError, WeightsError: the bundle is not fit to be shared; says why.
        OutputError: the zip cannot be written.
        MissingExtraError: the extra `share` is not installed.

    Example:
        >>> pack_bundle("runs/unet2d/20261122-120000-demo", "liver.zip", torchscript=True)  # doctest: +SKIP
        PosixPath('liver.zip')
    """
    bundle, path = Bundle.open(root, trust), Path(path)
    trust = bundle.runs_freely
    if path.suffix.lower() != ".zip" or path.is_dir():
        problem = "this is a folder" if path.is_dir() else "a packed bundle is a zip file"
        raise OutputError(path, problem, "", "Give a name that ends in .zip.")
    history = history_of(bundle.root)
    if history.was_never_validated:
        logger.warning("%s was never validated, so nothing says how well it segments.", bundle.root.name)
    with contextlib.ExitStack() as stack:
        stack.enter_context(sigterm_as_interrupt())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="medseg-pack-")), "bundle")
        stack.enter_context(errors_name(folder, str(bundle.root)))
        staged = stage(bundle, folder, metadata)
        try:
            require_safe(folder, trust)
        except UntrustedError as error:
            fix = f"See all of it with: {command_line('bundle', 'inspect', bundle.root)}. If you mean it, give --trust."
            raise UntrustedError(bundle.root, error.problem, error.came, fix) from error
        packed = Bundle(folder, trust)
        facts, weights = _network_facts(packed, bundle)
        if metrics := metrics_of(history):
            staged.metadata["eval_metrics"] = metrics
        describe(staged, facts)
        write_state(read_weights(weights), folder / "models")
        windows = _WindowRecorder()
        test = _add_self_test(packed, facts, windows)
        if torchscript or onnx:
            _export(packed, windows, folder / "models", torchscript, onnx, check_on)
        if (
            history != TrainingHistory() or metadata or not (folder / CARD).is_file()
        ):  # else it is packed again as it came
            _write_card(staged, facts, history, test, recipe_config(bundle, METADATA))
        write_text(folder / LOCK, lock_text(staged.metadata))
        require_clean(folder, trust, packed.name)
        write_json(folder / MANIFEST, make_manifest(folder, _summary(staged)))
        write_archive(folder, path, folder_name(packed.name))
    for key in staged.removed:
        logger.info("Left out: %s", key)
    return path


def _network_facts(packed: Bundle, bundle: Bundle) -> tuple[NetworkFacts, Path]:
    """Return what the configs come to, and the file of the weights."""
    parser = packed.resolve("inference")
    written = Path(str(bundle.content("inference").get("ckpt_path", "")))
    path = Path(str(parser.get_parsed_content("ckpt_path"))) if "ckpt_path" in parser else Path("models", "model.pt")
    if path.is_relative_to(packed.root):
        path = path.relative_to(packed.root)
    weights = written if written.is_absolute() else bundle.root / path
    if not weights.is_file():
        fix = "Train the bundle first, or pack the folder of a run."
        raise WeightsError(weights, "the trained weights are missing", "", fix)
    labels = parser.get_parsed_content("labels") if "labels" in parser else None
    if not isinstance(labels, LabelMap):
        file = bundle.root / LABELS
        labels = LabelMap.load(file) if file.is_file() else None
    values = [parser.get_parsed_content(key) if key in parser else None for key in ("in_channels", "out_channels")]
    in_channels, out_channels = (value if isinstance(value, int) else None for value in values)
    takes_hu = "window" in parser and parser.get_parsed_content("window") is not None
    return NetworkFacts(labels, in_channels, out_channels, takes_hu), weights


def write_state(state: Mapping[str, torch.Tensor], folder: Path) -> list[Path]:
    """Write weights to `model.pt` and `model.safetensors`; the same weights always give the same bytes.

    Raises:
        OutputError: the folder cannot be written.
        WeightsError: a type of numbers that safetensors does not have.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    # safetensors takes only tensors that lie in one piece and share no memory; model.pt keeps the order in memory, for
    # another one gives other last digits
    separate = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()
    }
    try:
        tensors = safetensors.torch.save(separate)
    except (KeyError, ValueError, safetensors.SafetensorError) as error:
        raise WeightsError("model.safetensors", "the weights cannot be written", first_line(error)) from error
    contents = {folder / "model.pt": buffer.getvalue(), folder / "model.safetensors": tensors}
    for path, content in contents.items():
        with atomic_path(path) as partial:
            partial.write_bytes(content)
    return list(contents)


class _WindowRecorder:
    """Record the network of a config that runs, and the window with the most contrast of those it gets."""

    def __init__(self) -> None:
        self.network: torch.nn.Module | None = None
        self.window: torch.Tensor | None = None
        self._contrast = 0.0

    def attach(self, parser: ConfigParser | BuiltParts) -> None:
        network = parser.get_parsed_content("network") if "network" in parser else None
        if isinstance(network, torch.nn.Module):
            self.network = network
            network.register_forward_pre_hook(self._record)

    def _record(self, _: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        for window in inputs[0] if inputs and isinstance(inputs[0], torch.Tensor) else ():
            contrast = float(window.float().std())
            if contrast > self._contrast:
                self._contrast = contrast
                self.window = window[None].detach().cpu().clone()


def _add_self_test(packed: Bundle, facts: NetworkFacts, windows: _WindowRecorder) -> str | None:
    """Add the self-test, and return what it checks, in sentences for the card; None where none could be made."""
    folder = packed.root / self_test.FOLDER
    if not self_test.make_self_test(packed, folder, windows.attach):
        logger.warning("%s is packed without a self-test: its configs do not show what input it takes.", packed.name)
        return None
    covered = self_test.coverage(folder, facts.labels)
    if not covered:
        logger.warning(
            "The self-test of %s proves nothing: it finds no structure in the synthetic scan, and neither would other "
            "weights.",
            packed.name,
        )
        return (
            "Its self-test (`selftest/`) proves nothing: the mask of the synthetic scan is all background, as it would "
            "be with other weights."
        )
    return (
        "Then it runs the bundle on a synthetic scan (`selftest/`) and says how many voxels differ from the mask that "
        f"came with it, which covers {covered}. More than a thousandth of the labeled ones is more than the rounding "
        "of another processor. Below a mean Dice of 0.98, or with one structure changed, the bundle is refused. Of "
        "structures that the mask does not have, the test says nothing."
    )


def _export(
    bundle: Bundle, windows: _WindowRecorder, folder: Path, torchscript: bool, onnx: bool, check_on: str | Path | None
) -> None:
    """Write the network itself, compared with the network on a window of the self-test and one of the user's scan."""
    if windows.network is None or windows.window is None:
        problem = "inference.json has no key 'network' that its self-test runs, so it cannot be exported"
        raise ConfigError(bundle.name, problem, "", "Pack it without --torchscript and --onnx.")
    shape = tuple(windows.window.shape)
    samples = [windows.window]
    if check_on is not None:
        recorder = _WindowRecorder()
        with tempfile.TemporaryDirectory(prefix="medseg-check-") as location:
            source, scan = Path(location, "scan"), Path(check_on)
            source.mkdir()
            try:
                (source / scan.name).write_bytes(scan.read_bytes())
                self_test.infer(bundle, source, Path(location, "masks"), "cpu", recorder.attach)
            except (OSError, MedsegError) as error:
                raise DataError(scan, "the bundle cannot segment this scan", str(error)) from error
        if recorder.window is not None:
            samples.append(recorder.window)
    if torchscript:
        to_torchscript(windows.network, folder / "model.ts", shape, *samples)
    if onnx:
        to_onnx(windows.network, folder / "model.onnx", shape, *samples)


def _write_card(
    staged: StagedBundle, facts: NetworkFacts, history: TrainingHistory, test: str | None, recipe: Mapping[str, Any]
) -> None:
    file, readme = staged.folder / CARD, staged.folder / "docs" / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    card = card_text(staged.metadata, facts.labels, history, text, test, recipe)
    if history == TrainingHistory() and file.is_file():
        card = keep_training_sections(card, file.read_text(encoding="utf-8"))
    write_text(file, card)


def _summary(staged: StagedBundle) -> dict[str, Any]:
    """Return what the manifest says besides its files."""
    packages = staged.metadata.get("required_packages_version") or {}
    return {
        "bundle": str(staged.metadata.get("name", "")),
        "version": str(staged.metadata.get("version", "")),
        "made_with": {
            "python": platform.python_version(),
            "monai": str(staged.metadata.get("monai_version", "")),
            "torch": str(staged.metadata.get("pytorch_version", "")),
            **{str(name): str(version) for name, version in packages.items()},
        },
    }
