"""Errors of the networks room, as they are printed."""

import pytest
import torch

from medseg.errors import MedsegError
from medseg.networks import load_weights, require_variant, to_torchscript
from medseg.networks.weights import weights_folder


def printed(call):
    with pytest.raises(MedsegError) as error:
        call()
    return str(error.value)


def test_weights(tmp_path):
    path, network = tmp_path / "model.pt", torch.nn.Conv2d(1, 3, 1)
    assert printed(lambda: load_weights(network, path)) == (
        f"{path}: there are no weights. Train first, or use a trained bundle."
    )
    torch.save(torch.nn.Conv2d(1, 2, 1).state_dict(), path)
    assert printed(lambda: load_weights(network, path, labels=3)) == (
        f"{path}: does not fit the network with 3 output channels, whose bias has shape (3,) (got shape (2,)). "
        "The number of classes or features differs: use the label map and the network they were trained with."
    )


def test_pretrained_folders_and_variants(tmp_path):
    assert printed(lambda: weights_folder("b0", "segformer")) == (
        "b0: is neither a folder in Hugging Face's format nor the id of a model (owner/model)."
    )
    assert printed(lambda: require_variant(None)) == (
        "variant: must be named, so that the trained network can be built without its pretrained weights (got null). "
        "Set variant=b0 to b5, as the pretrained weights are; leave it out for others: the error names theirs."
    )


def test_exports(tmp_path):
    shape = (1, 3, 8, 8)
    assert printed(lambda: to_torchscript(torch.nn.Conv2d(1, 2, 3), tmp_path / "a.ts", shape)).startswith(
        "input of shape (1, 3, 8, 8): the network does not take it (RuntimeError: Given groups=1"
    )
    assert printed(lambda: to_torchscript(torch.nn.Conv2d(1, 2, 3), tmp_path / "a.ts", (1, 8))) == (
        "shape of the input: must be (B, C, H, W) or (B, C, I, J, K) (got (1, 8))."
    )
