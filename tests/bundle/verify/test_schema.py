"""The small checker against jsonschema, and the schema against what bundles say."""

from __future__ import annotations

import copy

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.bundle.verify.schema import SCHEMA, metadata_schema, problems
from medseg.config.paths import at, walk
from medseg.errors import ConfigError
from tests.bundle.verify.broken import METADATA, NAMES, network_data_format

GOOD = {**METADATA, "network_data_format": network_data_format(1, NAMES, ["32*n", "2**p", 96, "*"])}
PATHS = [path for path, _ in walk(GOOD)]
VALUES = st.sampled_from(
    [None, True, 0, -1, 1.0, 2.5, "", "text", "8*n", [], ["x"], [1, 2, 3], {}, {"a": 1}, {"a": "b"}]
)
JUDGE = jsonschema.Draft202012Validator(metadata_schema())


def test_the_schema_is_one_and_ships_beside_the_code():
    jsonschema.Draft202012Validator.check_schema(metadata_schema())
    assert SCHEMA.name == "metadata_schema.json"
    assert list(problems(GOOD, metadata_schema(), metadata_schema())) == []


@given(st.lists(st.tuples(st.sampled_from(PATHS), VALUES, st.booleans()), min_size=1, max_size=3))
def test_it_judges_as_jsonschema_does(changes):
    value = copy.deepcopy(GOOD)
    for path, new, remove in changes:
        above, _, leaf = path.rpartition("#")
        holder = at(value, above)
        if isinstance(holder, dict) and leaf in holder:
            if remove:
                del holder[leaf]
            else:
                holder[leaf] = new
        elif isinstance(holder, list) and leaf.isdigit() and int(leaf) < len(holder):
            holder[int(leaf)] = new
    found = list(problems(value, metadata_schema(), metadata_schema()))
    assert (found == []) == JUDGE.is_valid(value), found


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", 1, "it is integer, and must be string"),
        ("task", "", "it is empty"),
        ("network_data_format#outputs", {}, "it is empty"),
        ("network_data_format#inputs#image#num_channels", 0, "must be 1 at least"),
        ("network_data_format#inputs#image#value_range", [0, 1, 2], "2 at most"),
        ("network_data_format#inputs#image#spatial_shape#0", "exec(x)", "nothing that may stand there"),
    ],
)
def test_a_problem_has_its_place(path, value, message):
    content = copy.deepcopy(GOOD)
    above, _, leaf = path.rpartition("#")
    holder = at(content, above)
    holder[int(leaf) if isinstance(holder, list) else leaf] = value
    ((location, said),) = problems(content, metadata_schema(), metadata_schema())
    assert location == path
    assert message in said


def test_a_keyword_that_is_not_known_is_not_passed_over():
    with pytest.raises(ConfigError, match="oneOf"):
        list(problems(1, {"oneOf": []}, {}))
