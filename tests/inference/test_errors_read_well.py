"""Errors of the inference room, as they are printed."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.errors import MedsegError
from medseg.inference import StreamingInferer
from medseg.inference.memory import Shapes, fit

NETWORK = torch.nn.Conv2d(1, 2, 1)


def printed(call):
    with pytest.raises(MedsegError) as error:
        call()
    return str(error.value)


def test_arguments_out_of_range():
    text = "StreamingInferer, overlap: must be at least 0 and below 1 (got 1.5)."
    assert printed(lambda: StreamingInferer((8, 8), overlap=1.5)) == text
    text = "StreamingInferer, context: is for 2D networks only, with two roi sizes (got 1)."
    assert printed(lambda: StreamingInferer((8, 8, 8), context=1)) == text
    text = "precision: must be one of fp32, bf16, fp16 (got 'int8')."
    assert printed(lambda: StreamingInferer((8, 8), precision="int8")) == text
    text = "decode: 'bits' is for multilabel networks (multilabel=False)."
    assert printed(lambda: StreamingInferer((8, 8), decode="bits")) == text


def test_inputs_that_no_network_takes():
    inferer = StreamingInferer((8, 8))
    text = "StreamingInferer: the input must have the shape (B, C, I, J, K) (got shape (8, 8))."
    assert printed(lambda: inferer(torch.zeros(8, 8), NETWORK)) == text
    scan = MetaTensor(torch.full((1, 1, 8, 8, 2), torch.nan), meta={"filename_or_obj": "ct.nii.gz"})
    text = "ct.nii.gz: the network needs finite values, but some are NaN or infinite."
    assert printed(lambda: inferer(scan, NETWORK)) == text
    problem = "the network must return one tensor of the size of its windows, (8, 8)"
    text = f"StreamingInferer: {problem} (got shape (4, 1, 4, 8))."
    assert printed(lambda: inferer(torch.zeros(1, 1, 8, 8, 9), lambda windows: windows[:, :, ::2])) == text


def test_grids_that_are_unknown_or_sheared():
    inferer, scan = StreamingInferer((8, 8), output_grid="source"), MetaTensor(torch.zeros(1, 1, 8, 8, 2))
    text = (
        "output_grid='source': the image's metadata does not say on which grid it was read. "
        "Load it with LoadImaged, or use output_grid='network'."
    )
    assert printed(lambda: inferer(scan, NETWORK)) == text
    affine = np.eye(4)
    affine[0, 1] = 0.5
    meta = {"original_affine": affine, "spatial_shape": (8, 8, 2), "filename_or_obj": "ct.nii.gz"}
    text = (
        "ct.nii.gz: its axes are not at right angles, or not along those of the network's grid "
        "(voxels leave their axis by up to 3.5). "
        "Resample it onto a grid without shear first, or ignore the shear: medseg predict --accept shear."
    )
    assert printed(lambda: inferer(MetaTensor(scan, meta=meta), NETWORK)) == text


def test_scans_that_do_not_fit_into_memory():
    shapes = Shapes((512, 512, 400), (333, 333, 400), (256, 256), 8, 118, 1, 96)
    text = (
        "ct.nii.gz: needs at least 4.1 GB of RAM (1 GB of RAM are free). "
        "Allow more with --memory, crop the scan, or use a machine with more."
    )
    assert printed(lambda: fit(shapes, 10**9, None, "ct.nii.gz")) == text
