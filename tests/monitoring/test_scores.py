import json

import torch
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine

from medseg.labels import LabelMap
from medseg.metrics import VolumeDice
from medseg.monitoring import SaveScores


def test_scores_are_written_by_name(tmp_path):
    labels = LabelMap(["liver", "spleen"])
    SupervisedEvaluator(
        torch.device("cpu"),
        [{"image": torch.zeros(1, 1, 3), "label": torch.tensor([[[1, 1, 0]]])}],
        torch.nn.Identity(),
        inferer=lambda inputs, net: torch.tensor([[[1, 0, 0]]]),
        key_val_metric={"dice": VolumeDice(labels, from_engine(["pred", "label"]))},
        val_handlers=[SaveScores(tmp_path / "deep" / "evaluation.json")],
    ).run()
    found = json.loads((tmp_path / "deep" / "evaluation.json").read_text())
    assert found == {"mean_dice": 2 / 3, "dice": {"liver": 2 / 3, "spleen": None}, "cases": 1}
