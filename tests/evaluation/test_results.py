import csv
import json

import pytest

from medseg.errors import DataError
from medseg.evaluation import evaluate_pairs, find_sources, load, match, save


@pytest.fixture
def content(folders):
    return evaluate_pairs(match(*map(find_sources, folders))).to_dict()


def test_an_evaluation_is_read_back_as_written(content, tmp_path):
    written = save(tmp_path, content)
    assert [path.name for path in written] == ["evaluation.json", "scores.csv", "structures.csv"]
    assert load(tmp_path) == load(tmp_path / "evaluation.json") == content


def test_the_tables_hold_every_score_and_every_mean(content, tmp_path):
    save(tmp_path, content)
    with (tmp_path / "scores.csv").open() as file:
        scores = list(csv.DictReader(file))
    assert len(scores) == 3 * 3
    assert (scores[0]["case"], scores[0]["structure"]) == ("c", "liver")
    assert float(scores[0]["dice"]) == pytest.approx(content["cases"][0]["structures"][-1]["dice"], rel=1e-5)
    kidney = next(row for row in scores if row["structure"] == "kidney_left")
    assert (kidney["state"], kidney["dice"], kidney["hd95_mm"]) == ("absent", "", "")
    with (tmp_path / "structures.csv").open() as file:
        structures = list(csv.DictReader(file))
    assert [row["structure"] for row in structures] == ["(mean)", "liver", "spleen", "kidney_left"]
    assert float(structures[0]["dice_mean"]) == pytest.approx(content["mean"]["dice"]["mean"], rel=1e-5)
    assert structures[1]["dice_n"] == structures[1]["present"] == "3"


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"form": 99, "cases": []})])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(DataError, match="the evaluation cannot be read|not an evaluation of form 1"):
        load(tmp_path)
    with pytest.raises(DataError, match="nowhere: there is no evaluation here"):
        load(tmp_path / "nowhere")
