"""Names in expressions, without evaluating any."""

from __future__ import annotations

import pytest

from medseg.bundle.verify import expressions
from tests.bundle.verify.broken import edit, overlay

PLACE = "configs/train.json, optimizer#lr"


@pytest.mark.parametrize(
    "text",
    ["$[x for x in @train#handlers if x is not None]", "$(lambda a, *b, c=1: a + c)(@lr)", "$torch.device('cpu').type",
     "$monai.handlers.from_engine(['pred'])", "$np.float32", "$len(@spacing)", "$medseg.LabelMap(['a']).nothing_known",
     "$'%d' % @lr", "$torch.optim.lr_scheduler.OneCycleLR", "$medseg.data.find_scans"],
)  # fmt: skip
def test_what_is_right_is_left_alone(found, text):
    assert found(expressions, edit("train", optimizer__lr=text)) == []


@pytest.mark.parametrize(
    "text",
    ["$troch.device('cpu')", "$torch.devise", "$monai.transforms.LoadImagd", "$medseg.LabelMap.totalsegmentatr()"],
)
def test_a_name_that_means_nothing(found, text):
    assert found(expressions, edit("train", optimizer__lr=text)) == [("expression-name", PLACE)]


def test_an_overlay_knows_what_its_config_imports(found):
    assert found(expressions, overlay("quick", lr="$medseg.LabelMap")) == []
    assert found(expressions, overlay("quick", lr="$glob.glob('x')")) == [("expression-name", "configs/quick.json, lr")]


def test_an_import_that_fails(found):
    fault = edit("train", imports=["$import torch", "$import medseg", "$import nosuch.thing as t"])
    assert found(expressions, fault) == [("expression-name", "configs/train.json, imports#2")]


def test_nothing_is_evaluated(found, tmp_path):
    canary = tmp_path / "canary"
    assert found(expressions, edit("train", optimizer__lr=f"$open('{canary}', 'w').close()")) == []
    assert not canary.exists()
