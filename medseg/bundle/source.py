"""Which config is being evaluated, where it lies, and what it says with all overlays and overrides.

MONAI tells the expressions of a config neither where their file is nor what was overridden. Both are known
to the objects that evaluate them, and these stand on the call stack: that is where they are looked up. So
it holds for the command line, for `monai.bundle.run` and for a workflow made by hand alike.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from medseg.errors import ConfigError

METADATA = "metadata.json"


def _on_stack(kind: type[Any]) -> Any | None:
    """The innermost object of that kind whose method is running now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, kind):
            return owner
        frame = frame.f_back
    return None


def effective_config() -> dict[str, Any] | None:
    """The config that is being evaluated: files, overlays, overrides and tracking merged, nothing resolved.

    None outside of any evaluation. Handlers stand in their lists by name, as they were written; MONAI has put
    copies of them there by then.
    """
    parser = _on_stack(ConfigParser)
    if parser is None:
        return None
    config: dict[str, Any] = copy.deepcopy(parser.get())
    for prefix, part in (("train#", config.get("train")), ("validate#", config.get("validate")), ("", config)):
        if isinstance(part, dict) and isinstance(part.get("handlers"), list):
            part["handlers"] = _by_name(part["handlers"], part.get("handler_set", {}), prefix)
    return config


def resolved(key: str, default: Any = None) -> Any:
    """What a key of the config that is being evaluated comes to; `default` where there is none."""
    parser = _on_stack(ConfigParser)
    return parser.get_parsed_content(key, default=default) if parser is not None else default


def _by_name(handlers: list[Any], named: dict[str, Any], prefix: str) -> list[Any]:
    """Every handler that is a copy of a named one, as the macro it was copied by."""
    folded = []
    for handler in handlers:
        names = [name for name, content in named.items() if content == handler]
        folded.append(f"%{prefix}handler_set#{names[0]}" if names else handler)
    return folded


def bundle_root(name: str) -> str:
    """The folder of the bundle whose config is being evaluated.

    Looked for, in this order: the folder above the `configs` that the workflow reads; the working
    directory, if it is a bundle; `bundles/<name>` below it.

    Args:
        name: the bundle's folder name, for the last place.

    Raises:
        ConfigError: none of them is a bundle.
    """
    workflow = _on_stack(ConfigWorkflow)
    places = [Path(workflow.config_root_path).parent] if workflow is not None else []
    places += [Path(), Path("bundles", name)]
    for location in places:
        if (location / "configs" / METADATA).is_file():
            return str(location.resolve())
    raise ConfigError(
        "bundle_root",
        f"must be a folder with configs/{METADATA}",
        f"none in {Path().resolve()}",
        "Say where the bundle is, with --bundle_root FOLDER.",
    )
