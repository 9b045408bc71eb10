"""Small files that would take long, or much memory, to look at or to load, and what hides behind such a file."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

TWICE = {"a0": [1], **{f"a{number}": [f"@a{number - 1}"] * 2 for number in range(1, 40)}}
FROM_BELOW = [f"@a{number}" for number in range(40)]  # each is resolved before the next: nothing is deep
NAMES = [f"s{number}" for number in range(9000)]


def collect(hostile: Any, zips: Any) -> dict[str, Any]:
    """All of them, made with what `hostile.py` and `hostile_zips.py` have."""
    text, setting, both, nothing = hostile.text, hostile.setting, hostile.both, hostile.RUNS_NOTHING
    found: dict[str, Any] = {}

    def predicts(name: str, value: object, **more: object) -> None:
        keys = [setting("configs/inference.json", key, entry) for key, entry in more.items()]
        found[name] = nothing, both(*keys, setting("configs/inference.json", "preprocessing", value))

    # A row of rows is shared, so it costs nothing until something walks it: a comparison, an argument, an error.
    predicts("rows-shared-and-compared", [*FROM_BELOW, "$@a39 == @a39"], **TWICE)
    predicts("rows-shared-in-an-argument", [*FROM_BELOW, {"_target_": "Flipd", "keys": "@a39"}], **TWICE)
    predicts("rows-shared-as-names", [*FROM_BELOW, "$medseg.LabelMap(@a39)"], **TWICE)
    predicts("rows-shared-and-repeated", ["$[@a] * 9999", "$[@b] * 9999", "$@c == @c"], a=[1], b="$[@a] * 9999",
             c="$[@b] * 9999")  # fmt: skip
    label_maps = "$[" + ",".join(["medseg.LabelMap(@names)"] * 150) + "]"
    predicts("label-maps-without-end", [label_maps] * 20, names=NAMES)
    predicts("a-long-text-in-macros", ["%long"] * 4000, long="$0 if 1 else [" + "[1]," * 900 + "1]")
    predicts("a-long-name-above-many", {"k" * 400_000: [0] * 9000})
    # A search for the name of a file tried every letter of every string, also of those that no part needs.
    found["macros-without-a-file"] = nothing, setting("configs/inference.json", "evil", ["%" + "a" * 3990] * 400)
    found["a-label-map-of-many-levels"] = "config-unreadable", text("label_map.json", "[" * 90_000)
    found["many-structures"] = (
        nothing,
        text("label_map.json", json.dumps({"0": "background", **{str(n): f"s{n}" for n in range(1, 40_000)}})),
    )
    deep = '{"a":' * 500 + "1" + "}" * 500
    found["a-config-of-many-levels"] = "config-unreadable", text("configs/deep.json", deep)
    wide = json.dumps({"k" * 300_000: {f"{number}": 0 for number in range(9000)}})
    found["a-config-of-long-paths"] = "config-unreadable", text("configs/wide.json", wide)

    # Zips within a bundle, and a zip of many files.
    def packed(data: bytes, name: str, count: int, is_shared: bool = False) -> Any:
        def make(root: Path, canary: Path) -> Path:
            path = root / "models" / "arrays.npz"
            if is_shared:
                path.write_bytes(_shared(data, name, count))
                return root
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for number in range(count):
                    archive.writestr(f"{number}{name}", data)
            return root

        return make

    zeros = b"\x80\x02}" + bytes(2**26)
    found["pickles-of-zeros"] = "weights-damaged", packed(zeros, ".pkl", 4)
    found["pickles-of-the-same-bytes"] = "weights-damaged", packed(zeros, ".pkl", 4000, is_shared=True)
    header = ("{'descr': [" + "[1]," * 2400 + "1]}").encode()
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    found["arrays-of-long-headers"] = "pickle-unreadable", packed(array, ".npy", 3000)
    many = zips.zipped(lambda archive: [archive.writestr(f"docs/{number}", b"") for number in range(6000)])
    found["a-zip-of-many-files"] = nothing, many

    # Behind a file that uses up what may be looked at, or behind more of a pickle than was read.
    def evil(canary: Path) -> bytes:
        return pickle.dumps([hostile.Evil(canary)], protocol=0)

    found["behind-a-long-file"] = (
        "pickle-unreadable",
        both(
            text("docs/a", b"(" * 300_000),
            hostile.weights("docs/b.txt", lambda path, canary: path.write_bytes(evil(canary))),
        ),
    )
    padding = b"V" + b"x" * 1_100_000 + b"\n0."
    found["before-a-long-text"] = (
        "pickle-unsafe",
        hostile.weights("docs/b.txt", lambda path, canary: path.write_bytes(evil(canary)[:-1] + padding)),
    )
    cycle: dict[str, Any] = {}
    cycle["model"] = cycle
    found["weights-within-themselves"] = (
        nothing,
        hostile.weights("models/model.pt", lambda path, canary: hostile.torch.save(cycle, path)),
    )
    return found


def _shared(data: bytes, name: str, count: int) -> bytes:
    """A zip whose table names the same bytes many times."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed, title = deflate.compress(data) + deflate.flush(), name.encode()
    sizes = (zlib.crc32(data), len(packed), len(data), len(title))
    local = struct.pack("<4s5HIIIHH", b"PK\x03\x04", 20, 0, 8, 0, 0, *sizes, 0) + title + packed
    entry = struct.pack("<4s6H3I5HII", b"PK\x01\x02", 20, 20, 0, 8, 0, 0, *sizes, 0, 0, 0, 0, 0, 0) + title
    end = struct.pack("<4s4HIIH", b"PK\x05\x06", 0, 0, count, count, len(entry) * count, len(local), 0)
    return local + entry * count + end
