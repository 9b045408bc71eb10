"""Paths that MONAI reads in another way than they are written, and configs that change each other's lists."""

from __future__ import annotations

import json
from typing import Any

LOADER = {"_target_": "LoadImage"}
COPY = "$@other.replace('a', 'CANARY')"


def collect(hostile: Any) -> dict[str, Any]:
    """All of them, made with what `hostile.py` has."""
    both, setting, text, train = hostile.both, hostile.setting, hostile.text, hostile.train
    RUNS_NOTHING = hostile.RUNS_NOTHING
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
        found[f"key-with-{name}"] = RUNS_NOTHING, both(train("ld", LOADER), overlay(**{key: "os.system"}))
    found["key-below-with-a-blank"] = RUNS_NOTHING, train("ld", {"_target_": "LoadImage", "reader ": "x"})
    for name, path in {"blank": "extra ", "from-the-end": "extra#-1", "other-digits": "extra#\u0660"}.items():
        holds = both(train("extra", ["$import os"]), train("evil", COPY))
        found[f"macro-with-{name}"] = RUNS_NOTHING, both(holds, train("other", f"%{path}"))
    found["reference-with-other-digits"] = RUNS_NOTHING, both(train("a", [1]), train("b", "@a#\u0660"))
    found["reference-with-a-zero"] = RUNS_NOTHING, both(train("a", [1]), train("b", "$@a#00 + 1"))
    # A list grows by '+', so that a number means another element.
    found["number-in-a-list-that-grows"] = (
        RUNS_NOTHING,
        both(train("l", []), overlay(**{"+l": [LOADER], "l#0#reader": "os.system"})),
    )
    found["number-in-a-list-that-grows-elsewhere"] = (
        RUNS_NOTHING,
        both(
            setting("configs/evaluate.json", "+l", [{**LOADER, "reader": ["NibabelReader"]}]),
            overlay(**{"+l#0#reader": ["os.system"]}),
        ),
    )
    found["readers-that-are-added"] = (
        RUNS_NOTHING,
        both(train("ld", {**LOADER, "reader": ["NibabelReader"]}), overlay(**{"+ld#reader": ["os.system"]})),
    )
    # MONAI gives this key another name before it reads anything.
    old, new = "optional_packages_version", "required_packages_version"
    found["key-that-is-renamed"] = (
        RUNS_NOTHING,
        both(train(new, "NibabelReader"), train(old, "os.system"), train("ld", {**LOADER, "reader": f"@{new}"})),
    )
    found["import-that-is-renamed"] = (
        RUNS_NOTHING,
        both(train(old, "$import os"), train("evil", f"$@{new}.replace('a', 'CANARY')")),
    )
    found["metadata-that-is-renamed"] = (
        RUNS_NOTHING,
        both(setting("configs/metadata.json", old, "os.system"), train("ld", {**LOADER, "reader": f"@_meta_#{new}"})),
    )
    # An import is a value where it stands: within a component the component gets the module.
    poke = {"_target_": "Lambda", "func": "$lambda m: m.replace('a', 'CANARY')"}
    cache = {"_target_": "monai.data.CacheDataset", "data": ["$import os"], "num_workers": 0, "transform": poke}
    found["import-as-an-argument"] = RUNS_NOTHING, train("dataset", cache)
    found["import-required-by-a-component"] = RUNS_NOTHING, train("loss#_requires_", cache)
    found["import-in-a-list-of-lists"] = RUNS_NOTHING, train("evil", [["$import os"]])
    found["import-put-into-a-component"] = RUNS_NOTHING, overlay(**{"dataset#data": "$import os"})
    found["import-put-into-a-list"] = RUNS_NOTHING, overlay(**{"dataset#data#0": "$import os"})
    # Text in quotes is a path, whatever its first letter means in a config.
    up = "%../../home/x"
    named = both(train("evil", {"_target_": "LogfileHandler", "output_dir": f"$'{up}'"}), train("a", 1))
    found["place-that-looks-like-a-macro"] = RUNS_NOTHING, named
    reader = {**LOADER, "reader": "$'@r'"}
    found["reader-that-looks-like-a-reference"] = RUNS_NOTHING, both(train("r", "ITKReader"), train("ld", reader))
    start = "$medseg.bundle.start_run(@bundle_root, @output_dir, @data, @labels, @run_name, config={})"
    for name, config in {
        "elsewhere": "'/home/x/configs/inference'",
        "above": "'../x'",
        "by-reference": "@seed",
    }.items():
        found[f"run-of-a-config-{name}"] = RUNS_NOTHING, train("current_run", start.format(config))
    # Files that are read in part, or by one reader only.
    long = "#" * 99 + "\n"
    found["logging-behind-comments"] = RUNS_NOTHING, text("configs/logging.conf", long * 90_000 + "[a]\nb=1\n")
    found["git-behind-comments"] = RUNS_NOTHING, both(text(".git/HEAD", "x"), text(".git/config", long * 90_000))
    twice = '{"base_url": null, "id": "x", "base_url": "https://example.org", "id": "x"}'
    for file in ("monitor/settings.json", "run.json", "label_map.json", "classes.json", "manifest.json", "docs/x.json"):
        found[f"twice-in-{file}"] = RUNS_NOTHING, text(file, twice)
    found["too-large-for-a-look"] = RUNS_NOTHING, text("docs/x.json", " " * 2**23 + "{}")
    found["too-many-imports"] = RUNS_NOTHING, train("evil", ["$import os"] * 3000)
    return found
