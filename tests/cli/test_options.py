import click
import pytest

from medseg.cli.options import parse_pairs, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("5e-4", 0.0005),
        ("true", True),
        ("True", True),
        ("null", None),
        ("None", None),
        ("[128, 96]", [128, 96]),
        ("('a', 'b')", ["a", "b"]),
        ("1.5,1.5,-1", [1.5, 1.5, -1]),
        ("liver,spleen", "liver,spleen"),
        ('{"train": ["s1"]}', {"train": ["s1"]}),
        ("runs/x y", "runs/x y"),
        ("$@lr * 2", "$@lr * 2"),
        ("", ""),
    ],
)
def test_values_are_what_they_look_like(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_a_value_may_hold_an_equals_sign():
    assert parse_pairs(("a#b=x=y",)) == {"a#b": "x=y"}


@pytest.mark.parametrize("pairs", [("lr",), ("=5",), ("lr=1", "lr=2")])
def test_what_is_no_pair_is_refused(pairs):
    with pytest.raises(click.UsageError):
        parse_pairs(pairs)
