"""A value against a JSON schema, by the keywords that the schema of the metadata uses."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError

SCHEMA = Path(__file__).with_name("metadata_schema.json")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}
_KNOWN = {"$schema", "$ref", "$defs", "title", "description", "type", "enum", "required", "properties", "pattern",
          "patternProperties", "additionalProperties", "minProperties", "items", "minItems", "maxItems", "minLength",
          "minimum", "anyOf"}  # fmt: skip


@functools.cache
def metadata_schema() -> dict[str, Any]:
    """The schema of `metadata.json` that comes with medseg."""
    return dict(json.loads(SCHEMA.read_text(encoding="utf-8")))


def problems(
    value: Any, schema: Mapping[str, Any], whole: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, str]]:
    """What of a value goes against a schema: the path and what is wrong there.

    It judges as `jsonschema` does, which knows many more keywords.

    Args:
        value: what came out of JSON.
        schema: the schema, or a part of it.
        whole: the schema in which `$ref` is looked up.
        path: where the value stands.

    Raises:
        ConfigError: the schema has a keyword that is not known here.

    >>> whole = {"type": "object", "required": ["a"], "properties": {"b": {"minimum": 1}}}
    >>> list(problems({"b": 0}, whole, whole))
    [('a', 'it is missing'), ('b', 'it is 0, and must be 1 at least')]
    """
    unknown = set(schema) - _KNOWN
    if unknown:
        raise ConfigError("A schema", f"may use {', '.join(sorted(_KNOWN))}", ", ".join(sorted(unknown)))
    if "$ref" in schema:
        part: Any = whole
        for name in schema["$ref"].removeprefix("#/").split("/"):
            part = part[name]
        yield from problems(value, part, whole, path)
    wanted = schema.get("type")
    kinds = [wanted] if isinstance(wanted, str) else wanted
    if kinds and not any(_is(value, kind) for kind in kinds):
        yield path, f"it is {_name(value)}, and must be {' or '.join(kinds)}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield path, f"it is {json.dumps(value)[:60]}, and must be one of {', '.join(map(str, schema['enum']))}"
    if "anyOf" in schema and not any(not list(problems(value, one, whole)) for one in schema["anyOf"]):
        yield path, f"{json.dumps(value)[:60]} is nothing that may stand there"
    if isinstance(value, str):
        yield from _text(value, schema, path)
    elif isinstance(value, Mapping):
        yield from _object(value, schema, whole, path)
    elif isinstance(value, list):
        yield from _array(value, schema, whole, path)
    elif _is(value, "number") and value < schema.get("minimum", value):
        yield path, f"it is {value}, and must be {schema['minimum']} at least"


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _name(value: Any) -> str:
    return next((kind for kind in _TYPES if _is(value, kind)), "null")


def _text(value: str, schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    if len(value) < schema.get("minLength", 0):
        yield path, "it is empty"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield path, f"it is '{value[:60]}', and must fit the pattern {schema['pattern']}"


def _object(
    value: Mapping[str, Any], schema: Mapping[str, Any], whole: Mapping[str, Any], path: str
) -> Iterator[tuple[str, str]]:
    for name in schema.get("required", ()):
        if name not in value:
            yield _below(path, name), "it is missing"
    if len(value) < schema.get("minProperties", 0):
        yield path, "it is empty"
    for name, entry in value.items():
        parts = [schema["properties"][name]] if name in schema.get("properties", {}) else []
        parts += [part for pattern, part in schema.get("patternProperties", {}).items() if re.search(pattern, name)]
        if not parts and isinstance(schema.get("additionalProperties"), Mapping):
            parts = [schema["additionalProperties"]]
        said: list[tuple[str, str]] = []
        for part in parts:
            said += [one for one in problems(entry, part, whole, _below(path, name)) if one not in said]
        yield from said


def _array(
    value: list[Any], schema: Mapping[str, Any], whole: Mapping[str, Any], path: str
) -> Iterator[tuple[str, str]]:
    if len(value) < schema.get("minItems", 0):
        yield path, f"it holds {len(value)} entries, and must hold {schema['minItems']} at least"
    if len(value) > schema.get("maxItems", len(value)):
        yield path, f"it holds {len(value)} entries, and must hold {schema['maxItems']} at most"
    for number, entry in enumerate(value):
        yield from problems(entry, schema.get("items", {}), whole, _below(path, str(number)))


def _below(path: str, name: str) -> str:
    return f"{path}#{name}" if path else name
