import contextlib
import io
import logging
import sys

import pytest
import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from medseg.errors import ConfigError
from medseg.training import ProgressBar
from medseg.training import progress as module

DATA = [{"image": torch.ones(2, 2), "label": torch.ones(2, 1)}] * 3


def run(loss=None, validator=None, **settings):
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    SupervisedTrainer(
        torch.device("cpu"),
        2,
        DATA,
        network,
        optimizer,
        loss or torch.nn.MSELoss(),
        train_handlers=[ProgressBar(validator, **settings)],
        decollate=False,
    ).run()


def test_every_epoch_gives_a_line_with_the_time_left(caplog):
    with caplog.at_level(logging.INFO):
        run()
    lines = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert len(lines) == 2
    assert lines[0].startswith("Epoch 1/2: loss ")
    assert lines[1].endswith("0 s left")


def test_a_long_epoch_is_several_lines_without_a_terminal(caplog):
    with caplog.at_level(logging.INFO):
        run(every_n_seconds=1e-9)
    lines = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert [line.partition(":")[0] for line in lines] == [
        *("Epoch 1/2, step 1/3", "Epoch 1/2, step 2/3", "Epoch 1/2"),
        *("Epoch 2/2, step 1/3", "Epoch 2/2, step 2/3", "Epoch 2/2"),
    ]
    assert all(line.endswith(" left") for line in lines)
    with pytest.raises(ConfigError, match="progress#every_n_seconds: it must be above 0"):
        ProgressBar(every_n_seconds=0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_a_terminal(monkeypatch, loss=None):
    """What a terminal is sent; set up within the test, for pytest puts its own streams in place before it."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with contextlib.suppress(ValueError):
        run(loss)
    return screen.getvalue()


def test_a_terminal_shows_a_bar_and_has_its_cursor_back(monkeypatch):
    printable = on_a_terminal(monkeypatch)
    assert "Epoch 2/2" in printable
    assert "100 %" in printable
    assert printable.rindex("\x1b[?25h") > printable.rindex("\x1b[?25l")


def broken(prediction, truth):
    raise ValueError("a broken loss")


def test_after_an_error_the_cursor_is_back(monkeypatch):
    printable = on_a_terminal(monkeypatch, broken)
    assert printable.rindex("\x1b[?25h") > printable.rindex("\x1b[?25l")


def test_an_error_goes_on_up():
    with pytest.raises(ValueError, match="a broken loss"):
        run(broken)


def test_the_line_of_an_epoch_has_the_mean_of_its_losses(caplog):
    losses = iter([1.0, 2.0, 6.0, 10.0, 20.0, 60.0])
    with caplog.at_level(logging.INFO):
        run(lambda prediction, label: prediction.sum() * 0 + next(losses))
    lines = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert lines[0].startswith("Epoch 1/2: loss 3.0000")
    assert lines[1].startswith("Epoch 2/2: loss 30.0000")


@pytest.mark.parametrize(("metrics", "ending"), [({}, ""), ({"val_f1": 0.84567}, ", F1 0.8457")])
def test_the_line_of_an_epoch_has_f1_if_it_is_measured(caplog, metrics, ending):
    validator = SupervisedEvaluator(torch.device("cpu"), DATA, torch.nn.Linear(2, 1))
    validator.state.epoch, validator.state.best_metric, validator.state.best_metric_epoch = 2, 0.5, 1
    validator.state.key_metric_name = "val_mean_dice"
    validator.state.metrics = {"val_mean_dice": 0.25, **metrics}
    with caplog.at_level(logging.INFO):
        run(validator=validator)
    (line,) = (record.getMessage() for record in caplog.records if "Epoch 2/2" in record.getMessage())
    assert f", Dice 0.2500 (best 0.5000 in epoch 1){ending}, 0 s left" in line
