"""Error messages of the room, exactly as they are printed."""

import pytest
import torch

from medseg.errors import ConfigError, DataError, LabelError
from medseg.labels import LabelMap
from medseg.transforms import AugmentBatch, IndexSlicesd, RandAugmentd, Standardize, WindowHUd, training_chain


def printed(call, kind=ConfigError):
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


def test_settings_say_what_they_must_be_and_what_came():
    assert printed(lambda: RandAugmentd(noise={"prob": 2, "std": 0.1})) == (
        "noise#prob: it must be a probability from 0 to 1 (got 2)."
    )
    assert printed(lambda: WindowHUd("image", [[0, 0]])) == (
        "WindowHUd: points must be two or more [HU, value] pairs (got [[0, 0]])."
    )
    assert printed(lambda: Standardize([0.5], [0.0])) == (
        "Standardize: it needs a mean and a standard deviation above 0 for each channel (got mean=[0.5], std=[0.0])."
    )
    assert printed(lambda: training_chain([], LabelMap(["liver"]), stored=True)) == (
        "training_chain: a slice store holds HU of volumes, so the chain needs patch_size and a WindowHUd in preprocess"
        ". Add them, or train with data#use_store=false."
    )


def test_data_name_the_case_and_what_to_do():
    item = {"case": "s1", "label": torch.full((1, 2, 2, 2), 7)}
    assert printed(lambda: IndexSlicesd("label", 4)(item), LabelError) == (
        "case s1: its labels must be from 0 to 3 (got 7 to 7)."
    )
    sample = {"case": "s1", "image": torch.full((1, 2, 2), float("nan")), "label": torch.zeros(1, 2, 2)}
    assert printed(lambda: RandAugmentd()(sample), DataError) == (
        "case s1: its image holds NaN or infinity. Check it with medseg data check."
    )
    batch = {"image": torch.zeros(1, 1, 2, 2), "label": torch.zeros(1, 1, 2, 2)}
    assert printed(lambda: AugmentBatch(RandAugmentd())(batch)) == (
        "AugmentBatch: the batch has no 'augment'. "
        "Put the same RandAugmentd last among the transforms of the training data."
    )
