import pytest
import torch

from medseg.errors import LabelError
from medseg.transforms import MultiHotd


def test_every_structure_of_a_combination_gets_its_channel():
    codes = torch.tensor([[[0, 1], [2, 3]]])
    item = MultiHotd("label", 3)({"label": codes, "combinations": [(), (0,), (2,), (0, 2)]})
    assert item["label"].tolist() == [[[0, 1], [0, 1]], [[0, 0], [0, 0]], [[0, 0], [1, 1]]]
    assert item["label"].dtype == torch.uint8
    assert "combinations" not in item


def test_a_missing_table_says_what_to_do():
    with pytest.raises(LabelError, match=r"case s1.*overlaps='keep'"):
        MultiHotd("label", 3)({"label": torch.zeros(1, 2, 2), "case": "s1"})


def test_a_code_that_is_not_listed_names_the_case():
    with pytest.raises(LabelError, match="case s1: its label holds code 4, and 1 codes are listed"):
        MultiHotd("label", 3)({"label": torch.full((1, 2, 2), 4), "combinations": [()], "case": "s1"})
