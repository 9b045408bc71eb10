"""Paths that MONAI reads in another way than they are written, and configs that change each other's lists."""

from __future__ import annotations

import json
from typing import Any

LOADER = {"_target_": "LoadImage"}
COPY = "$@other.replace('a', 'CANARY')"


def collect(hostile: Any) -> dict[str, Any]:
    """All of them, made with what `hostile.py` has."""
    both, setting, text, train = hostile.both, hostile.setting, hostile.text, hostile.train
    found: dict[str, Any] = {}

    def overlay(**content: Any) -> Any:
        return text("configs/quick.json", json.dumps(content))

    # MONAI drops blanks around a path, and takes every number that Python takes.
    for name, key in {
        "blank": "ld #reader",
        "blank-before": " ld#reader",
        "tab": "ld#\treader",
        "other-digits": "ld#\u0663",
        "underscore": "ld#1_0",
        "plus": "ld#+1",
        "colon": "ld:::reader",
        "no-break-space": "ld#reader\u00a0",
    }.items():
        found[f"key-with-{name}"] = "config-unreadable", both(train("ld", LOADER), overlay(**{key: "os.system"}))
    found["key-below-with-a-blank"] = "config-unreadable", train("ld", {"_target_": "LoadImage", "reader ": "x"})
    for name, path in {"blank": "extra ", "from-the-end": "extra#-1", "other-digits": "extra#\u0660"}.items():
        holds = both(train("extra", ["$import os"]), train("evil", COPY))
        found[f"macro-with-{name}"] = "config-macro", both(holds, train("other", f"%{path}"))
    found["reference-with-other-digits"] = "config-reference", both(train("a", [1]), train("b", "@a#\u0660"))
    found["reference-with-a-zero"] = "config-reference", both(train("a", [1]), train("b", "$@a#00 + 1"))
    # A list grows by '+', so that a number means another element.
    found["number-in-a-list-that-grows"] = (
        "config-unreadable",
        both(train("l", []), overlay(**{"+l": [LOADER], "l#0#reader": "os.system"})),
    )
    found["number-in-a-list-that-grows-elsewhere"] = (
        "config-unreadable",
        both(
            setting("configs/evaluate.json", "+l", [{**LOADER, "reader": ["NibabelReader"]}]),
            overlay(**{"+l#0#reader": ["os.system"]}),
        ),
    )
    found["readers-that-are-added"] = (
        "argument-unsafe",
        both(train("ld", {**LOADER, "reader": ["NibabelReader"]}), overlay(**{"+ld#reader": ["os.system"]})),
    )
    # MONAI gives this key another name before it reads anything.
    old, new = "optional_packages_version", "required_packages_version"
    found["key-that-is-renamed"] = (
        "argument-unsafe",
        both(train(new, "NibabelReader"), train(old, "os.system"), train("ld", {**LOADER, "reader": f"@{new}"})),
    )
    found["import-that-is-renamed"] = (
        "expression-unknown",
        both(train(old, "$import os"), train("evil", f"$@{new}.replace('a', 'CANARY')")),
    )
    found["metadata-that-is-renamed"] = (
        "argument-unsafe",
        both(setting("configs/metadata.json", old, "os.system"), train("ld", {**LOADER, "reader": f"@_meta_#{new}"})),
    )
    # An import is a value where it stands: within a component the component gets the module.
    poke = {"_target_": "Lambda", "func": "$lambda m: m.replace('a', 'CANARY')"}
    cache = {"_target_": "monai.data.CacheDataset", "data": ["$import os"], "num_workers": 0, "transform": poke}
    found["import-as-an-argument"] = "config-import", train("dataset", cache)
    found["import-required-by-a-component"] = "config-import", train("loss#_requires_", cache)
    found["import-in-a-list-of-lists"] = "config-import", train("evil", [["$import os"]])
    found["import-put-into-a-component"] = "config-import", overlay(**{"dataset#data": "$import os"})
    found["import-put-into-a-list"] = "config-import", overlay(**{"dataset#data#0": "$import os"})
    # Text in quotes is a path, whatever its first letter means in a config.
    up = "%../../home/x"
    named = both(train("evil", {"_target_": "LogfileHandler", "output_dir": f"$'{up}'"}), train("a", 1))
    found["place-that-looks-like-a-macro"] = "argument-unsafe", named
    reader = {**LOADER, "reader": "$'@r'"}
    found["reader-that-looks-like-a-reference"] = "argument-unsafe", both(train("r", "ITKReader"), train("ld", reader))
    start = "$medseg.bundle.start_run(@bundle_root, @output_dir, @data, @labels, @run_name, config={})"
    for name, config in {
        "elsewhere": "'/home/x/configs/inference'",
        "above": "'../x'",
        "by-reference": "@seed",
    }.items():
        found[f"run-of-a-config-{name}"] = "expression-unknown", train("current_run", start.format(config))
    # Files that are read in part, or by one reader only.
    long = "#" * 99 + "\n"
    found["logging-behind-comments"] = "logging-unsafe", text("configs/logging.conf", long * 90_000 + "[a]\nb=1\n")
    found["git-behind-comments"] = "code-in-bundle", both(text(".git/HEAD", "x"), text(".git/config", long * 90_000))
    twice = '{"base_url": null, "id": "x", "base_url": "https://example.org", "id": "x"}'
    for file in ("monitor/settings.json", "run.json", "label_map.json", "classes.json", "manifest.json", "docs/x.json"):
        found[f"twice-in-{file}"] = "config-unreadable", text(file, twice)
    found["too-large-for-a-look"] = "config-unreadable", text("docs/x.json", " " * 2**23 + "{}")
    found["too-many-imports"] = "config-unreadable", train("evil", ["$import os"] * 3000)
    return found
