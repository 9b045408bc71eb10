import re

import pytest

from medseg.report.run_data import RunData, read_run
from medseg.report.run_structures import by_structure, structures


def run_of(*dice, **more):
    rows = [(index, {"epoch": index + 1, "dice": one, **more}) for index, one in enumerate(dice)]
    return RunData("run", rows={"validation": rows})


def cells(html):
    table = html.split("<tbody>")[1].split("</tbody>")[0]
    return [re.findall(r'data-value="([^"]*)"', row) for row in table.split("</tr>")[:-1]]


def test_the_table_holds_last_best_and_its_epoch_the_worst_first():
    html = structures(run_of({"a": 0.9, "b": 0.2, "c": 0.3}, {"a": 0.8, "b": 0.3, "c": None}, {"a": 0.7, "b": 0.1}))
    assert cells(html) == [["0.1", "0.3", "2"], ["0.7", "0.9", "1"], ["", "0.3", "1"]]
    assert 'data-kinds="poor"' in html
    assert 'data-kinds="none"' in html


def test_f1_stands_beside_dice_where_it_was_measured():
    assert cells(structures(run_of({"a": 0.9}, f1={"a": 0.6}))) == [["0.9", "0.6", "0.9", "1"]]


def test_a_structure_that_is_not_in_every_validation_has_gaps():
    assert by_structure(run_of({"a": 1}, {"b": 0.5}), "dice") == {"a": [1.0, None], "b": [None, 0.5]}


def test_all_117_are_there_with_their_curves(made):
    names = [f"structure_{index}" for index in range(117)]
    run = read_run(made(epochs=5, batches=1, structures=names))
    html = structures(run)
    assert len(cells(html)) == 117
    assert html.count('class="spark"') == 115  # two of them never have a value
    assert list(by_structure(run, "dice")) == names


@pytest.mark.parametrize("run", [RunData("run"), run_of({})])
def test_without_a_value_there_is_no_table(run):
    assert structures(run) == ""
