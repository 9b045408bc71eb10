"""Files that are paired by their order, however it is written."""

from __future__ import annotations

import pytest

from medseg.bundle.verify import pairing
from tests.bundle.verify.broken import edit


def of(data):
    lists = {"images": "$sorted(glob.glob(@dataset_dir + '/i/*'))", "truth": "$sorted(os.listdir(@dataset_dir + '/l'))"}
    return edit("train", **lists, train__dataset__data=data)


@pytest.mark.parametrize(
    "data",
    ["$[{'image': i, 'label': l} for i, l in zip(@images, @truth)]",
     "$[{'image': i, 'label': l} for i, l in zip(@images[:-9], sorted(@truth)[:-9])]",
     "$list(map(dict, zip(@images, @truth)))", "$[{'image': @images[i], 'label': @truth[i]} for i in range(3)]",
     "$list(zip(pathlib.Path('a').glob('*'), pathlib.Path('b').glob('*')))"],
)  # fmt: skip
def test_lists_of_files_side_by_side(found, data):
    assert found(pairing, of(data)) == [("pairing", "configs/train.json, train#dataset#data")]


@pytest.mark.parametrize(
    "data",
    ["$[{'image': i} for i in @images]", "$list(zip(@spacing, @spacing))", "$dict(zip(['image'], [@images]))",
     "$[{'image': i, 'label': i.replace('img', 'seg')} for i in @images]"],
)  # fmt: skip
def test_what_is_no_pair_of_lists(found, data):
    assert found(pairing, of(data)) == []
