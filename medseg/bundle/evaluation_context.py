"""Which config is being evaluated, where it lies, and what it says with all overlays and overrides.

MONAI tells the expressions of a config neither where their file is nor what was overridden. What medseg starts itself
says both in an `EvaluationContext`: `BundleParser` and `BundleWorkflow` set it around every evaluation. The plain MONAI
commands know nothing of it; there alone both are looked up in what of MONAI stands on the call stack: its workflow, or
its commands that start none, such as `verify_net_in_out` and `ckpt_export`.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import ensure_tuple

from medseg.bundle.config_errors import ExplainingResolver, explained
from medseg.errors import ConfigError, medseg_error

METADATA = "metadata.json"
Part = TypeVar("Part")


@dataclass
class EvaluationContext:
    """What the expressions of a config may ask while they are evaluated.

    Args:
        parser: the parser of the config, files and overrides merged.
        root: the folder of the bundle; None where it is not known.
        run: the run that the config started, see `medseg.bundle.start_run`.
    """

    parser: ConfigParser
    root: Path | None = None
    run: Any | None = None

    def config(self) -> dict[str, Any]:
        """Return the config with files, overlays, overrides and tracking merged, nothing resolved.

        Handlers are in their lists by name, as they were written, where MONAI has put copies of them by then.
        """
        config: dict[str, Any] = copy.deepcopy(self.parser.get())
        for prefix, part in (("train#", config.get("train")), ("validate#", config.get("validate")), ("", config)):
            if isinstance(part, dict) and isinstance(part.get("handlers"), list):
                part["handlers"] = _by_name(part["handlers"], part.get("handler_set", {}), prefix)
        return config

    def value(self, key: str) -> Any:
        """Return what a key of the config resolves to; None where it has no such key."""
        return self.parser.get_parsed_content(key, default=None)


_CONTEXT: ContextVar[EvaluationContext | None] = ContextVar("medseg_evaluation", default=None)


@contextlib.contextmanager
def evaluation(context: EvaluationContext) -> Iterator[EvaluationContext]:
    """Evaluate a config in this context."""
    token = _CONTEXT.set(context)
    try:
        yield context
    finally:
        _CONTEXT.reset(token)


class BundleParser(ConfigParser):  # type: ignore[misc]
    """MONAI's parser, whose expressions know which config they are of, and whose errors name the key.

    Args:
        config: the merged config.
        root: the folder of the bundle.
        name: of the config, `train` or `inference`.
    """

    def __init__(self, config: Any, root: Path, name: str = "config") -> None:
        super().__init__(config)
        self.context = EvaluationContext(self, root)
        self.source = f"{name}.json"
        self.content = copy.deepcopy(dict(config))  # MONAI puts objects into what it resolves
        self.ref_resolver = ExplainingResolver(self.source, self.content)

    def get_parsed_content(self, id: str = "", **options: Any) -> Any:
        """Resolve a key in the context of this config, see MONAI."""
        with evaluation(self.context), explained(self.source, self.content, id):
            return super().get_parsed_content(id, **options)

    def part(self, id: str, kind: type[Part], default: Part | None = None) -> Part:
        """Resolve a key that must give an object of this class.

        Raises:
            ConfigError: it gives another, or it is missing and there is no default.
        """
        value = self.get_parsed_content(id) if default is None else self.get_parsed_content(id, default=default)
        if not isinstance(value, kind):
            problem = f"it must give a {kind.__name__}"
            raise ConfigError(f"{self.source}: {id}", problem, f"got {type(value).__name__} {value!r}"[:160])
        return value


class BundleWorkflow(ConfigWorkflow):  # type: ignore[misc]
    """MONAI's workflow, whose expressions know which config they are of, and whose errors name the key.

    Args:
        root: the folder of the bundle.
        name: of the config, `train` or `evaluate`.
        options: see MONAI.
    """

    def __init__(self, root: Path, name: str = "config", **options: Any) -> None:
        super().__init__(**options)
        self.context = EvaluationContext(self.parser, root)
        self.source = f"{name}.json"
        self.content = copy.deepcopy(self.parser.get())
        self.parser.ref_resolver = ExplainingResolver(self.source, self.content)

    def initialize(self) -> Any:
        """Read the config and evaluate its `initialize`, see MONAI."""
        with explained(self.source, self.content):
            return super().initialize()

    def _run_expr(self, id: str, **options: Any) -> list[Any]:
        with evaluation(self.context), explained(self.source, self.content, id):
            return list(super()._run_expr(id, **options))


def current_context() -> EvaluationContext | None:
    """Return the context of the config that is being evaluated; None outside of any evaluation.

    Raises:
        ConfigError: MONAI evaluates more than one config at once.
    """
    context = _CONTEXT.get()
    if context is not None:
        return context
    parser = _on_stack(ConfigParser)
    if parser is None:
        return None
    workflow = _on_stack(ConfigWorkflow)
    return EvaluationContext(parser, _script_root() if workflow is None else Path(workflow.config_root_path).parent)


def _script_root() -> Path | None:
    """Return the folder above that of the config which a command of MONAI that starts no workflow was given."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "monai.bundle.scripts":
            files = frame.f_locals.get("config_file_", frame.f_locals.get("config_file"))
            if files:
                return Path(str(ensure_tuple(files)[0])).resolve().parents[1]
        frame = frame.f_back
    return None


def say_errors_last() -> None:
    """Let an error of ours end the plain MONAI command with its sentence alone, not within MONAI's tracebacks."""
    if _CONTEXT.get() is None and sys.excepthook is sys.__excepthook__:
        sys.excepthook = _print_error


def _print_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    cause = medseg_error(error)
    if cause is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        sys.stderr.write(f"Error: {cause}\n")


def _on_stack(kind: type[Any]) -> Any | None:
    """Return the one object of a kind whose method is running now; only for what MONAI itself has started."""
    owners: dict[int, Any] = {}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, kind):
            owners[id(owner)] = owner
        frame = frame.f_back
    if len(owners) > 1:
        raise ConfigError(
            f"{kind.__name__}",
            "MONAI evaluates more than one config at once, so it is not known which one is meant",
            f"found {len(owners)}",
            "Run the bundle with medseg, or evaluate one config after the other.",
        )
    return next(iter(owners.values()), None)


def _by_name(handlers: list[Any], named: Mapping[str, Any], prefix: str) -> list[Any]:
    """Return the handlers with each copy of a named one replaced by the macro that copied it."""
    folded = []
    for handler in handlers:
        names = [name for name, content in named.items() if content == handler]
        folded.append(f"%{prefix}handler_set#{names[0]}" if names else handler)
    return folded


def bundle_root(name: str) -> str:
    """Return the folder of the bundle whose config is being evaluated: the one above the `configs` that it lies in.

    Args:
        name: the name of the bundle, for errors.

    Raises:
        ConfigError: it is not known where the config lies, or that is no bundle. The working directory does not count:
            there may be another bundle.
    """
    context = current_context()
    if context is not None and context.root is not None and (context.root / "configs" / METADATA).is_file():
        return str(context.root.resolve())
    raise ConfigError(
        "bundle_root",
        f"it is not known where the config of bundle '{name}' lies: it is not in a folder 'configs' with {METADATA}",
        "",
        "Name the folder of the bundle with --bundle_root FOLDER.",
    )
