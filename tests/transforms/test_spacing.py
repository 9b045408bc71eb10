"""MONAI's Spacingd is the reference; MONAI Label's items are what it fails on."""

import pytest
import torch
from monai import transforms
from monai.data import MetaTensor

from medseg.transforms import Spacingd

ARGUMENTS = {"keys": ["image", "label"], "pixdim": [2.0, 1.5, -1], "mode": ["bilinear", "nearest"]}


def item():
    chance = torch.Generator().manual_seed(0)
    affine = torch.diag(torch.tensor([1.0, 1.0, 3.0, 1.0], dtype=torch.float64))
    made = {}
    for key in ("image", "label"):
        meta = {"filename_or_obj": f"/data/{key}.nii.gz"}
        made[key] = MetaTensor(torch.rand(1, 12, 10, 4, generator=chance), affine=affine, meta=meta)
    return made


def test_the_same_volumes_and_the_same_way_back():
    ours, theirs = Spacingd(**ARGUMENTS), transforms.Spacingd(**ARGUMENTS)
    found, wanted = ours(item()), theirs(item())
    for key in ("image", "label"):
        assert torch.equal(found[key].as_tensor(), wanted[key].as_tensor())
        assert torch.equal(found[key].affine, wanted[key].affine)
    back, wanted_back = ours.inverse(found), theirs.inverse(wanted)
    assert all(torch.equal(back[key].as_tensor(), wanted_back[key].as_tensor()) for key in ("image", "label"))


def test_other_entries_stay_as_they_are():
    others = {"image_path": "/data/image.nii.gz", "image_meta_dict": {"spatial_shape": (12, 10, 4)}, "device": "cpu"}
    found = Spacingd(**ARGUMENTS)({**item(), **others})
    assert {key: found[key] for key in others} == others
    with pytest.raises(AttributeError):  # where MONAI takes it, this class is to go
        transforms.Spacingd(**ARGUMENTS)({**item(), **others})


def test_a_key_that_is_not_there_is_named():
    only = {"image": item()["image"]}
    with pytest.raises(KeyError, match="label"):
        Spacingd(**ARGUMENTS)(only)
    assert Spacingd(**ARGUMENTS, allow_missing_keys=True)(only)["image"].shape == (1, 6, 7, 4)
