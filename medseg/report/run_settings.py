"""The settings of a run: what differs from its recipe, and all of them as a tree to search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from medseg.config.diff import differences
from medseg.report.run_data import RunData
from medseg.search_path import find_recipe as find_recipe_file


def find_recipe(run: RunData) -> dict[str, Any]:
    """The `train.json` of the bundle that a run was started from; empty where it is not on this machine.

    It is looked for by the bundle's name where bundles lie, see `medseg.search_path`.
    """
    name = Path(str(run.record.get("bundle", ""))).name
    path = find_recipe_file(name) if name else None
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def settings(run: RunData, recipe: Mapping[str, Any]) -> str:
    """The differences as a table, then the tree; empty where the run has no config."""
    if not run.config:
        return ""
    return _differences(run, recipe) + (
        '<h3 class="after">All settings</h3><div class="tools" data-script hidden><input class="seek" type="search" '
        'aria-label="Search the settings" placeholder="Search key or value"><button type="button" class="fold">Open all'
        f'</button><output></output></div><div class="card tree">{_tree(run.config, "")}</div>'
    )


def _differences(run: RunData, recipe: Mapping[str, Any]) -> str:
    name = escape(str(run.record.get("bundle", "")))
    if not recipe:
        return (
            f'<p class="lead">The recipe {name} is not on this machine, so what differs from it cannot be said.</p>'
            if name
            else ""
        )
    found = differences(run.config, recipe)
    if not found:
        return f'<p class="lead">The same as the recipe {name}.</p>'
    rows = "".join(
        f"<tr><td><code>{_path(key)}</code></td><td><code>{_text(one)}</code></td>"
        f'<td class="wide"><code class="soft">{_text(other)}</code></td></tr>'
        for key, (one, other) in found.items()
    )
    return (
        f'<p class="lead">What differs from the recipe {name} as it is on this machine today.</p>'
        '<div class="card scroll"><table class="pairs"><thead><tr><th>Key</th><th>This run</th>'
        '<th class="wide">Recipe</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return escape(text if value is not None else "none")


def _path(key: str) -> str:
    return escape(key).replace("#", "#<wbr>").replace("_", "_<wbr>")


def _tree(value: Any, path: str) -> str:
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    found = []
    for key, one in items:
        below = f"{path}#{key}" if path else str(key)
        if (
            isinstance(one, Mapping) or (isinstance(one, list) and any(isinstance(o, (dict, list)) for o in one))
        ) and one:
            count = f"{len(one)} {'entry' if len(one) == 1 else 'entries'}"
            target = one.get("_target_") if isinstance(one, Mapping) else None
            about = f'<code class="soft">{escape(str(target))}</code>' if target else f"<small>{count}</small>"
            found.append(f"<details><summary><b>{escape(str(key))}</b> {about}</summary>{_tree(one, below)}</details>")
        else:
            found.append(
                f'<div class="leaf" data-path="{escape(below, quote=True)}"><b>{_path(str(key))}</b>'
                f"<code>{_text(one)}</code></div>"
            )
    return "".join(found)
