"""What commands print."""

import pytest

from medseg.cli.tables import console, duration, number, sparkline, table


def test_a_table_keeps_text_as_it_is_and_its_title_on_one_line(capsys):
    title = "A title that is wider than the whole table beneath"
    console().print(table(title, ["name", "n"], [["[red]", "1"]]))
    printable = capsys.readouterr().out
    assert title in printable
    assert "[red]" in printable


@pytest.mark.parametrize(
    ("values", "printable"),
    [
        ([], ""),
        ([None, None], "  "),
        ([3.0, 3.0], "▁▁"),
        ([0.0, None, 7.0], "▁ █"),
        ([7, 6, 5, 4, 3, 2, 1, 0], "█▇▆▅▄▃▂▁"),
    ],
)
def test_a_curve_goes_from_its_lowest_to_its_highest(values, printable):
    assert sparkline(values) == printable


def test_a_long_curve_is_averaged_and_a_plain_one_is_ascii():
    assert sparkline([0.0] * 500 + [1.0] * 500, 10) == "▁" * 5 + "█" * 5
    assert sparkline([0.0, 1.0], plain=True).isascii()
    assert len(sparkline(list(range(61)), 60)) == 60


def test_durations_and_numbers_round_as_people_do():
    assert [duration(seconds) for seconds in (99, 100, 5999, 6000, 172_740, 172_800)] == [
        *["99 s", "2 min", "1 h 40 min", "1 h 40 min", "47 h 59 min", "2 d 0 h"]
    ]
    assert number(2 / 3, 1) == "0.7"


def test_cells_move_no_cursor():
    screen = console()
    with screen.capture() as capture:
        screen.print(table("", ["a"], [["x\x1b]0;owned\x07y"]]))
    assert "x\\x1b]0;owned\\x07y" in capture.get()
