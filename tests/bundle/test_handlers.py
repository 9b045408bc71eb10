"""The default handlers of a training, made in Python."""

import inspect

import pytest
import torch

from medseg.bundle import default_handlers
from medseg.bundle.handlers import handler_class
from medseg.errors import ConfigError
from medseg.training import TrainingRun


@pytest.fixture
def make(tmp_path):
    network = torch.nn.Conv2d(1, 2, 1)
    data = torch.utils.data.TensorDataset(torch.zeros(2, 1))

    def make(**settings):
        return default_handlers(
            TrainingRun(tmp_path / "run", "one", {"name": "tiny"}),
            torch.utils.data.DataLoader(data),
            network,
            torch.optim.SGD(network.parameters(), 0.1),
            None,
            **settings,
        )

    return make


@pytest.mark.parametrize("name", ["clip", "early_stopping", "dry_run", "history"])
def test_a_mistyped_setting_is_refused_even_where_the_handler_would_be_left_out(make, name):
    with pytest.raises(ConfigError, match=f"handler_set#{name}#max_nomr: [A-Za-z]+ has no such setting"):
        make(**{name: {"max_nomr": 12}})
    with pytest.raises(ConfigError, match="Did you mean 'max_norm'"):
        make(clip={"max_nomr": 12})


def test_every_default_handler_names_its_settings():
    for name in inspect.signature(default_handlers).parameters:
        if kind := handler_class(name):
            parameters = inspect.signature(kind).parameters.values()
            assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters), name
