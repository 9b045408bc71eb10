import pytest
import torch

from medseg.errors import ConfigError
from medseg.training import PrecisionInferer, has_bf16, step


@pytest.mark.parametrize(
    ("precision", "hardware", "kind"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("fp32", True, torch.float32),
    ],
)
def test_the_network_runs_in_bfloat16_where_that_is_faster(monkeypatch, precision, hardware, kind):
    monkeypatch.setattr(step, "has_bf16", lambda: hardware)
    network = torch.nn.Conv2d(1, 2, 3)
    found = PrecisionInferer(precision)(torch.ones(1, 1, 8, 8), network)
    assert found.dtype == kind
    assert network.weight.dtype == torch.float32
    found.float().sum().backward()
    assert network.weight.grad.dtype == torch.float32


def test_what_the_processor_can_is_asked_of_torch(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert has_bf16()
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not has_bf16()


def test_another_precision_is_refused():
    with pytest.raises(ConfigError, match="auto, fp32, bf16"):
        PrecisionInferer("fp8")
