"""From a trained bundle to one zip that says what it is and proves what it does."""

from __future__ import annotations

import contextlib
import logging
import platform
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from medseg.atomic import write_json, write_text
from medseg.bundle.bundle import Bundle
from medseg.bundle.share import self_test
from medseg.bundle.share.archiving import folder_name, write_archive
from medseg.bundle.share.card import History, card_text, history_of, metrics_of, with_tables_of
from medseg.bundle.share.gates import renamed, require_clean
from medseg.bundle.share.lock import LOCK, lock_text
from medseg.bundle.share.staging import CARD, LABELS, Described, Staged, describe, recipe_config, stage
from medseg.bundle.share.stopping import stoppable
from medseg.bundle.share.weights import read_state, write_state
from medseg.bundle.share.wheel import make_wheel
from medseg.bundle.source import METADATA
from medseg.bundle.trust import require_trust
from medseg.bundle.verify.manifest import MANIFEST, make_manifest
from medseg.errors import ConfigError, DataError, MedsegError, OutputError, UntrustedError, WeightsError
from medseg.labels import LabelMap
from medseg.networks import to_onnx, to_torchscript

logger = logging.getLogger(__name__)

WHEELS = "wheels"


def pack_bundle(
    root: str | Path,
    path: str | Path,
    *,
    torchscript: bool = False,
    onnx: bool = False,
    with_wheel: bool = False,
    check_on: str | Path | None = None,
    metadata: Mapping[str, str] | None = None,
    trust: bool = False,
) -> Path:
    """Write a trained bundle as one zip to share; the same bundle gives the same bytes.

    In it: configs without places and names of cases, weights (`model.pt` and safetensors), label map, docs and a model
    card, `requirements.lock`, a self-test, `manifest.json` with the SHA-256 of every file. Everything lies in one
    folder of the bundle's name, as MONAI's own zips have it.

    Args:
        root: a bundle with weights, or the folder of a run; its name will do.
        path: the zip.
        torchscript: put the traced network in, too, see `medseg.networks.to_torchscript`.
        onnx: put it in as ONNX, see `medseg.networks.to_onnx`.
        with_wheel: put medseg's wheel in, too.
        check_on: a scan or picture of one's own that the traced network is held against the network on, beside the
            made-up one; nothing of it goes in.
        metadata: texts of the metadata that are to be others.
        trust: pack it though it would run what nobody knows to be safe.

    Raises:
        ConfigError, DataError, WeightsError: the bundle is not fit to be shared; says why.
        OutputError: the place cannot be written.
    """
    bundle, path = Bundle.open(root), Path(path)
    if path.suffix.lower() != ".zip" or path.is_dir():
        raise OutputError(path, "must be a file called .zip", "another name" if not path.is_dir() else "a folder")
    history = history_of(bundle.root)
    with stoppable(), tempfile.TemporaryDirectory(prefix="medseg-pack-") as location, contextlib.ExitStack() as errors:
        folder = Path(location, "bundle")
        errors.enter_context(_about(folder, bundle.root))
        staged = stage(bundle, folder, metadata)
        try:
            require_trust(folder, trust, "pack")
        except UntrustedError as error:
            fix = f"See all of it with: medseg bundle inspect {bundle.root}. If you mean it, give --trust."
            raise UntrustedError(bundle.root, error.problem, error.came, fix) from error
        packed = Bundle(folder)
        said, weights = _described(packed, bundle)
        state = read_state(weights)
        if metrics := metrics_of(history):
            staged.metadata["eval_metrics"] = metrics
        describe(staged, said)
        write_state(state, folder / "models")
        seen = _Windows()
        tested = self_test.make_self_test(packed, folder / self_test.FOLDER, seen.watch)
        if not tested:
            logger.warning("%s goes without a self-test: what it takes cannot be told from its configs", packed.name)
        covered = self_test.coverage(folder / self_test.FOLDER, said.labels) if tested else ""
        if tested and not covered:
            logger.warning(
                "The self-test of %s says nothing: it finds no structure in the made-up scan, and neither would a "
                "bundle with other weights",
                packed.name,
            )
        if torchscript or onnx:
            _export(packed, seen, folder / "models", torchscript, onnx, check_on)
        if history != History() or metadata or not (folder / CARD).is_file():  # else it is packed again as it came
            docs = folder / "docs" / "README.md"
            text = docs.read_text(encoding="utf-8") if docs.is_file() else ""
            test, recipe = _sentence(tested, covered), recipe_config(bundle, METADATA)
            card = card_text(staged.metadata, said.labels, history, text, test, recipe)
            if history == History() and (folder / CARD).is_file():
                card = with_tables_of(card, (folder / CARD).read_text(encoding="utf-8"))
            write_text(folder / CARD, card)
        write_text(folder / LOCK, lock_text(staged.metadata))
        if with_wheel:
            make_wheel(folder / WHEELS)
        require_clean(folder, trust, packed.name, ("wheel-in-bundle",))
        write_json(folder / MANIFEST, make_manifest(folder, _summary(staged)))
        write_archive(folder, path, folder_name(packed.name))
    for key in staged.removed:
        logger.info("Left out: %s", key)
    return path


def _described(packed: Bundle, bundle: Bundle) -> tuple[Described, Path]:
    """What the configs say of classes and channels, and where the weights are."""
    parser = packed.resolve("inference")
    own = bundle.content("inference").get("ckpt_path", "")
    path = Path(str(parser.get_parsed_content("ckpt_path"))) if "ckpt_path" in parser else Path("models", "model.pt")
    if path.is_relative_to(packed.root):
        path = path.relative_to(packed.root)
    weights = Path(str(own)) if Path(str(own)).is_absolute() else bundle.root / path
    if not weights.is_file():
        rule, fix = "must hold the trained weights to be packed", "Train the bundle first, or pack a run's folder."
        raise WeightsError(weights, rule, "no such file", fix)
    labels = parser.get_parsed_content("labels") if "labels" in parser else None
    if not isinstance(labels, LabelMap):
        file = bundle.root / LABELS
        labels = LabelMap.load(file) if file.is_file() else None
    numbers = [parser.get_parsed_content(key) if key in parser else None for key in ("in_channels", "out_channels")]
    channels = [number if isinstance(number, int) else None for number in numbers]
    return Described(labels, *channels), Path(str(weights))


class _Windows:
    """The network of a config that runs, and the window with most in it of those that it was given."""

    def __init__(self) -> None:
        self.network: torch.nn.Module | None = None
        self.window: torch.Tensor | None = None
        self._most = 0.0

    def watch(self, parser: ConfigParser) -> None:
        network = parser.get_parsed_content("network") if "network" in parser else None
        if isinstance(network, torch.nn.Module):
            self.network = network
            network.register_forward_pre_hook(self._look)

    def _look(self, _: torch.nn.Module, given: tuple[Any, ...]) -> None:
        for window in given[0] if given and isinstance(given[0], torch.Tensor) else ():
            spread = float(window.float().std())
            if spread > self._most:
                self._most, self.window = spread, window[None].detach().cpu().clone()


def _export(
    bundle: Bundle, seen: _Windows, folder: Path, torchscript: bool, onnx: bool, check_on: str | Path | None
) -> None:
    """Write the network itself, held against the network on a window of the self-test and of a scan of one's own."""
    if seen.network is None or seen.window is None:
        raise ConfigError(
            bundle.name, "must have a 'network' in its inference.json that its self-test runs, to be traced", "none"
        )
    shape = tuple(seen.window.shape)
    samples = [seen.window]
    if check_on is not None:
        own = _Windows()
        with tempfile.TemporaryDirectory(prefix="medseg-check-") as location:
            source, given = Path(location, "scan"), Path(check_on)
            source.mkdir()
            try:
                (source / given.name).write_bytes(given.read_bytes())
                self_test.infer(bundle, source, Path(location, "masks"), "cpu", own.watch)
            except (OSError, MedsegError) as error:
                raise DataError(given, "must be a scan that the bundle segments", str(error)) from error
        if own.window is not None:
            samples.append(own.window)
    if torchscript:
        to_torchscript(seen.network, folder / "model.ts", shape, *samples)
    if onnx:
        to_onnx(seen.network, folder / "model.onnx", shape, *samples)


@contextlib.contextmanager
def _about(folder: Path, root: Path) -> Iterator[None]:
    """Errors about the folder that is put together, as errors about the bundle."""
    try:
        yield
    except MedsegError as error:
        if str(folder) in str(error) or str(folder.resolve()) in str(error):
            raise renamed(error, folder, str(root)) from error
        raise


def _summary(staged: Staged) -> dict[str, Any]:
    """What the manifest says beside its files."""
    versions = staged.metadata.get("required_packages_version") or {}
    return {
        "bundle": str(staged.metadata.get("name", "")),
        "version": str(staged.metadata.get("version", "")),
        "made_with": {
            "python": platform.python_version(),
            "monai": str(staged.metadata.get("monai_version", "")),
            "torch": str(staged.metadata.get("pytorch_version", "")),
            **{str(name): str(value) for name, value in versions.items()},
        },
    }


def _sentence(tested: bool, covered: str) -> str | None:
    if not tested:
        return None
    if not covered:
        return (
            "Its self-test (`selftest/`) says nothing: the mask of the made-up scan is all background, and so could "
            "that of other weights be."
        )
    return (
        "Then it runs the bundle on a made-up scan (`selftest/`) and says how many voxels differ from the mask that "
        f"came with it, which covers {covered}: more than a thousandth of the labelled ones is more than rounding on "
        "another processor, and below a mean Dice of 0.98, or with a structure that became another one, the bundle is "
        "refused. Of structures that the mask does not have, it says nothing."
    )
