"""One door for what MONAI, torch and others raise while a config is resolved or run: a sentence that names the key."""

from __future__ import annotations

import contextlib
import inspect
import pydoc
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from monai.bundle import ReferenceResolver

from medseg.config.paths import at
from medseg.config.references import TARGET, is_expression, key_path
from medseg.errors import ConfigError, MedsegError, did_you_mean, first_line, medseg_error

_UNDEFINED = re.compile(r"the referring item `@([\w:]+)` is not defined")
_MISSING = re.compile(r"id='([^']*)' is not found|query key: ([\w:]+)")
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_NEEDED = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.+)")
_UNNAMED = re.compile(r"name '(\w+)' is not defined")
_WHERE = "medseg --traceback shows where."
_LONGEST = 160


@contextlib.contextmanager
def explained(source: str, config: Mapping[str, Any], path: str = "") -> Iterator[None]:
    """Turn what is raised inside into an error of ours: the one that caused it, or a `ConfigError` that names the key.

    Errors with notes pass, as these say already what to do, and so do those of memory, which others handle.

    Args:
        source: names the config, such as `inference.json`.
        config: its content, as it was before anything was resolved.
        path: the key that is resolved or run.
    """
    try:
        yield
    except Exception as error:
        cause, chain = medseg_error(error), list(_chain(error))
        if cause is not None:
            _name_key(cause, source, config, key_path(path))
        if cause is error or any(map(_says_what_to_do, chain)):
            raise
        if cause is not None:
            raise cause from cause.__cause__
        raise _explanation(chain, source, config, key_path(path)) from error


def _name_key(error: MedsegError, source: str, config: Mapping[str, Any], path: str) -> None:
    """Put the key before an error of ours that names only the component, or an argument of it."""
    content = at(config, path)
    if isinstance(error, ConfigError) and isinstance(content, Mapping) and TARGET in content:
        if error.thing == str(content[TARGET]).rpartition(".")[2]:
            error.thing = f"{source}: {path}"
        elif error.thing in content:
            error.thing = f"{source}: {path}#{error.thing}"


def _says_what_to_do(error: BaseException) -> bool:
    is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
    return is_memory or bool(getattr(error, "__notes__", ()))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _explanation(chain: list[BaseException], source: str, config: Mapping[str, Any], path: str) -> ConfigError:
    """Return the first cause of a failure as an error that names the key, and what to do about the common ones.

    Args:
        chain: the error and its causes, the first cause last.
        source: see `explained`.
        config: see `explained`.
        path: see `explained`.
    """
    error, content = chain[-1], at(config, path)
    text = "; ".join(map(str, chain))
    target = content.get(TARGET) if isinstance(content, Mapping) else None
    thing = f"{source}: {path}" if path else source
    if match := _UNDEFINED.search(text):
        name = key_path(match[1])
        fix = did_you_mean(name, config, f"Add the key '{name}'.")
        return ConfigError(thing, f"it refers to @{name}, and the config has no such key", "", fix)
    if match := _MISSING.search(text):
        name = key_path(match[1] or match[2])
        return ConfigError(f"{source}: {name}", "the config has no such key", "", did_you_mean(name, config))
    if isinstance(error, ModuleNotFoundError) and target is not None:
        return ConfigError(f"{thing}#{TARGET}", "there is no class or function of this name", f"got {target!r}")
    if (match := _UNEXPECTED.search(text)) and target is not None:
        fix = did_you_mean(match[1], _arguments(target))
        return ConfigError(f"{thing}#{match[1]}", f"{target} takes no argument of this name", "", fix)
    if (match := _NEEDED.search(text)) and target is not None:
        return ConfigError(thing, f"{target} needs {match[1].replace(chr(39), '')}", "", "Add it.")
    if match := _UNNAMED.search(text):
        fix = f'Add "$import {match[1]}" to its imports.' if match[1] in ("medseg", "monai", "torch", "numpy") else ""
        return ConfigError(thing, f"nothing is called '{match[1]}'", _shown(content), fix)
    if target is not None:
        return ConfigError(thing, f"{target} failed with these arguments: {first_line(error)}", "", _WHERE)
    problem = f"this failed: {first_line(error)}" if is_expression(content) else first_line(error)
    return ConfigError(thing, problem, _shown(content) if is_expression(content) else "", _WHERE)


def _arguments(target: str) -> list[str]:
    with contextlib.suppress(TypeError, ValueError, pydoc.ErrorDuringImport):
        return list(inspect.signature(pydoc.locate(target)).parameters)  # type: ignore[arg-type]
    return []


def _shown(content: Any) -> str:
    text = str(content).replace("::", "#")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class ExplainingResolver(ReferenceResolver):  # type: ignore[misc]
    """MONAI's resolver, whose errors name the key that could not be resolved.

    Args:
        source: names the config in errors.
        config: its content.
    """

    def __init__(self, source: str, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.source = source
        self.config = config

    def _resolve_one_item(self, id: str, waiting_list: set[str] | None = None, **options: Any) -> Any:
        with explained(self.source, self.config, str(id)):
            return super()._resolve_one_item(id, waiting_list, **options)
