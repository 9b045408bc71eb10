"""The keys of a bundle's configs: what each means, which values it takes, and the words others use for it.

`keys.json` describes the keys that medseg's recipes share, in the vocabulary of JSON Schema, by their path; `*` is any
part. A bundle names its own keys, and those it takes other values of, under `keys` in its metadata. The check before a
run, `medseg list keys`, the help and the reference all read this table. Not `jsonschema`, whose messages speak of
schemas, and which takes NaN for a number.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from medseg.config.paths import at, walk
from medseg.config.references import TARGET
from medseg.errors import ConfigError

Schema = Mapping[str, Any]
_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "string": (str,),
    "array": (list, tuple),
    "object": (Mapping,),
    "null": (type(None),),
}
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems", "or")
_WORDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text"}


@functools.cache
def common_keys() -> Mapping[str, Schema]:
    """Return the keys that medseg's recipes share."""
    text = importlib.resources.files("medseg.config").joinpath("keys.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def keys_of(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Schema]:
    """Return the schema of each key of a config by its path, in the order of the table.

    Args:
        config: the config, with overlays and overrides or without.
        metadata: of its bundle. Without `keys` in it nothing is known of a bundle's keys, whatever they are called.
    """
    declared = metadata.get("keys")
    if not isinstance(declared, Mapping):
        return {}
    table = {**common_keys(), **{key: schema for key, schema in declared.items() if _is_schema(schema)}}
    paths = [path for path, _ in walk(config, into_lists=False)]
    patterns = {
        key: re.compile("#".join("[^#]+" if part == "*" else re.escape(part) for part in key.split("#")))
        for key in table
    }
    return {path: table[key] for key, pattern in patterns.items() for path in paths if pattern.fullmatch(path)}


def _is_schema(content: Any) -> bool:
    """Return True for what a bundle's metadata may say of a key; a pattern of a stranger could take forever."""
    if not isinstance(content, Mapping) or "pattern" in content or not isinstance(content.get("enum", []), list):
        return False
    types = content.get("type", [])
    names = [types] if isinstance(types, str) else types
    if not isinstance(names, list) or not all(name in _TYPES for name in names) or not ("enum" in content or names):
        return False
    if not all(isinstance(content.get(word, 0), (int, float)) for word in _BOUNDS):
        return False
    if not all(isinstance(content.get(word, []), list) for word in ("words", "propertyNames")):
        return False
    parts = [content[word] for word in ("items", "additionalProperties") if word in content]
    return ("array" not in names or "items" in content) and all(map(_is_schema, parts))


def check_values(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Check the values of a config before anything starts: kind, range, length, and how they fit each other.

    References and expressions are left to those who evaluate them.

    Raises:
        ConfigError: a value that its key does not take; says which it takes.
    """
    schemas = keys_of(config, metadata)
    for path, schema in schemas.items():
        if not _fits(at(config, path), schema):
            raise ConfigError(path, f"use {wording(schema)}", f"got {shown(at(config, path))}")
    for path in schemas:
        if path in ("patch_size", "image_size"):
            _check_size(path, at(config, path), at(config, "network_def"))


def _fits(value: Any, schema: Schema) -> bool:
    """Return True if a value is one that the schema takes, or is evaluated later."""
    is_json = isinstance(value, (str, int, float, list, tuple, Mapping)) or value is None
    if not is_json or (isinstance(value, str) and value[:1] in ("$", "@", "%")):
        return True  # an object from Python, such as torch.device("cpu"), or what is evaluated later
    if "enum" in schema:
        return value in schema["enum"]
    if "or" in schema and value == schema["or"]:
        return True
    names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if not any(isinstance(value, _TYPES[name]) for name in names) or (
        isinstance(value, bool) and "boolean" not in names
    ):
        return False
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
        is_within = schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf)
        return math.isfinite(value) and above < value < below and is_within
    if isinstance(value, str):
        is_word = "words" not in schema or value in schema["words"]
        return bool(value.strip()) and is_word and re.fullmatch(schema.get("pattern", "(?s:.*)"), value) is not None
    if isinstance(value, (list, tuple)):
        is_long_enough = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf)
        return is_long_enough and all(_fits(entry, schema["items"]) for entry in value)
    if isinstance(value, Mapping) and "propertyNames" in schema:
        is_named = all(key in schema["propertyNames"] for key in value)
        return is_named and all(_fits(entry, schema["additionalProperties"]) for entry in value.values())
    return True


def wording(schema: Schema) -> str:
    """Return in words which values a key takes.

    Example:
        >>> wording({"type": "integer", "minimum": 1}), wording({"enum": ["train", "val"]})
        ('a whole number from 1 on', 'train or val')
        >>> wording({"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 10})
        'a number above 0 and up to 10, or null'
        >>> wording({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2})
        'a list of 2 whole numbers'
    """
    if "enum" in schema:
        return _either([str(value) for value in schema["enum"]])
    types = [schema["type"]] if isinstance(schema["type"], str) else list(schema["type"])
    parts = [_kind(name, schema) for name in types if name != "null"]
    if "or" in schema:
        parts.append(str(schema["or"]))
    return " or ".join(parts) + (", or null" if "null" in types else "")


def _kind(name: str, schema: Schema) -> str:
    """Return in words which values of one type a key takes."""
    if name == "object":
        keys = schema.get("propertyNames")
        return f"an object with {', '.join(keys)}" if keys else "an object"
    if name == "array":
        count = schema.get("minItems", 0)
        count_text = f"{count} " if count and count == schema.get("maxItems") else ""
        return f"a list of {count_text}{_plural(wording(schema['items']))}"
    if name == "string":
        return _either(schema["words"]) if "words" in schema else str(schema.get("such", _WORDS[name]))
    return _WORDS[name] + ("" if name == "boolean" else _range(schema))


def _range(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema and "exclusiveMaximum" in schema:
        return f" between {schema['exclusiveMinimum']} and {schema['exclusiveMaximum']}"
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if "exclusiveMinimum" in schema:
        return f" above {schema['exclusiveMinimum']}" + ("" if high is None else f" and up to {high}")
    if "exclusiveMaximum" in schema:
        return (" below" if low is None else f" from {low} to below") + f" {schema['exclusiveMaximum']}"
    return "" if low is None else f" from {low} on"


def _plural(text: str) -> str:
    """Return `a whole number from 1 on` as `whole numbers from 1 on`."""
    singular = next(
        (words for words in ("a whole number", "a number", "a text", "a list") if text.startswith(words)), ""
    )
    return f"{singular.removeprefix('a ')}s{text.removeprefix(singular)}" if singular else text


def _either(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def shown(value: Any, longest: int = 60) -> str:
    """Return a value as JSON, cut where it is long."""
    text = json.dumps(value, default=repr, ensure_ascii=False)
    return text if len(text) <= longest else f"{text[:longest]}..."


def _check_size(path: str, size: Any, network: Any) -> None:
    """Check that a network can halve a patch as often as it does.

    MONAI's UNet puts what it halved beside what it did not, so that each length must be a multiple. BasicUNet pads. At
    the bottom of either, more than one voxel must be left to normalize over.
    """
    strides = network.get("strides") if isinstance(network, Mapping) else None
    is_unet = isinstance(strides, list) and all(isinstance(stride, int) for stride in strides)
    factor = math.prod(strides) if is_unet and strides else 16 if "BasicUNet" in str(at(network, TARGET)) else 1
    if not isinstance(size, (list, tuple)) or not all(isinstance(length, int) for length in size):
        return
    if is_unet and any(length % factor for length in size):
        nearest_sizes = [max(1, round(length / factor)) * factor for length in size]
        problem = f"{network[TARGET]} halves each length so often that it must be a multiple of {factor}"
        raise ConfigError(path, problem, f"got {shown(size)}", f"Use {shown(nearest_sizes)}.")
    if factor > 1 and all(length < 2 * factor for length in size):
        problem = f"{network[TARGET]} leaves nothing of so small a patch: one length must be {2 * factor} or more"
        raise ConfigError(path, problem, f"got {shown(size)}")


def meant_key(word: str, existing: Iterable[str]) -> str | None:
    """Return the key that a word from another program stands for, among those that exist.

    Example:
        >>> meant_key("--learning-rate", ["lr", "max_epochs"]), meant_key("spam", ["lr"])
        ('lr', None)
    """
    plain = word.lstrip("-").replace("-", "_").lower()
    table, keys = common_keys(), set(existing)
    return next((key for key in table if key in keys and (key == plain or plain in table[key].get("also", ()))), None)
