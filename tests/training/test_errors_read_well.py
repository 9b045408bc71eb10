"""Error messages of the room, exactly as they are printed."""

import pytest
import torch

from medseg.errors import ConfigError, DeviceError
from medseg.training import (
    ClipGradients,
    EpochSampler,
    NanGuard,
    PrecisionInferer,
    require_patience,
    select_device,
    try_network,
)


def printed(call, kind=ConfigError):
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


def test_settings_say_what_they_must_be_and_what_came():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    assert printed(lambda: ClipGradients(optimizer, 0)) == "max_norm: it must be above 0 (got 0)."
    assert printed(lambda: require_patience(0)) == (
        "early_stopping#patience: it must be a whole number of validations, 1 or more, or null (got 0)."
    )
    assert printed(lambda: PrecisionInferer("fp8")) == "precision: it must be one of auto, fp32, bf16 (got 'fp8')."
    assert printed(lambda: NanGuard(optimizer, patience=0)) == (
        "nan_guard: patience and in_a_row must be 1 or more, and factor above 1 "
        "(got patience 0, in_a_row 5, factor 10.0)."
    )
    assert printed(lambda: EpochSampler(0)) == (
        "EpochSampler: it needs at least one case, one draw, and a rank below the number of ranks "
        "(got cases=0, draws=1, rank=0, ranks=1)."
    )


def test_a_device_and_a_network_say_what_to_do():
    assert printed(lambda: select_device("gpu"), DeviceError) == (
        "device 'gpu': torch knows no such device. Use auto, cpu or cuda:0."
    )
    network, image = torch.nn.Conv2d(1, 2, 1), torch.zeros(1, 1, 4, 4)
    assert printed(lambda: try_network(network, image, 3, torch.device("cpu"))) == (
        "network: its output for an image of (1, 1, 4, 4) must have the shape (1, 3, 4, 4) (got (1, 2, 4, 4)). "
        "Check out_channels."
    )
