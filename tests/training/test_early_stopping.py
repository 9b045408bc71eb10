import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, ValidationHandler

from medseg.errors import ConfigError
from medseg.training import EarlyStopping, SanityValidation, Validation, require_patience

DATA = [{"image": torch.ones(1, 2), "label": torch.ones(1, 1)}]
NAN = float("nan")


class Told(IgniteMetricHandler):
    """A metric that says what the test wants, a score a validation."""

    def __init__(self, scores):
        super().__init__(loss_fn=torch.nn.MSELoss(), output_transform=lambda _: (torch.zeros(1, 1), torch.zeros(1, 1)))
        self.scores = iter(scores)

    def compute(self):
        return next(self.scores)


def run(scores, patience=2, min_delta=0.0, interval=1, epochs=10, kept=None, sanity_check=False):
    """How far a trainer goes whose validations give these scores, and what it keeps."""
    network = torch.nn.Linear(2, 1)
    evaluator = SupervisedEvaluator(
        torch.device("cpu"), DATA, network, key_val_metric={"dice": Told(scores)}, decollate=False
    )
    stop = EarlyStopping(evaluator, patience, min_delta)
    handlers = [SanityValidation(evaluator)] if sanity_check else []
    handlers += [stop, ValidationHandler(interval, evaluator)]
    trainer = SupervisedTrainer(
        torch.device("cpu"), epochs, DATA, network, torch.optim.SGD(network.parameters(), lr=0.1),
        torch.nn.MSELoss(), train_handlers=handlers, decollate=False,
    )  # fmt: skip
    if kept is not None:
        trainer.add_event_handler(
            Events.STARTED, lambda engine: engine.state.stateful["early_stopping"].load_state_dict(kept)
        )
    ended = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: ended.append(engine.state.epoch))
    trainer.run()
    return ended, trainer.state


@pytest.mark.parametrize(
    ("scores", "epochs"),
    [
        ([0.1, 0.2, 0.2, 0.2], 4),  # as good as the best is not better
        ([0.1, 0.0, 0.2, 0.1, 0.3, 0.1, 0.1], 7),  # the count starts anew at each improvement
        ([NAN, NAN], 2),
        ([0.1, NAN, 0.05], 3),
        ([NAN, 0.1, NAN, 0.2, NAN, NAN], 6),
    ],
)
def test_it_ends_after_two_validations_in_a_row_that_are_no_better(scores, epochs):
    ended, state = run(scores)
    assert ended == list(range(1, epochs + 1))
    assert state.stop_reason.startswith("early stopping: no validation ")


def test_a_run_that_gets_better_goes_to_its_end(caplog):
    ended, state = run([n / 10 for n in range(10)])
    assert len(ended) == 10
    assert not hasattr(state, "stop_reason")
    assert "early stopping" not in caplog.text


def test_the_log_says_why(caplog):
    caplog.set_level("INFO")
    run([0.25, 0.1, 0.1])
    assert "The run ends here, early stopping: no validation better than 0.2500 in the last 2" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING" and "medseg" in record.name]


def test_small_steps_up_count_once_they_sum_up_to_min_delta():
    assert len(run([0.1, 0.15, 0.19, 0.3], min_delta=0.1)[0]) == 3
    assert len(run([0.1, 0.15, 0.21, 0.25, 0.3], min_delta=0.1)[0]) == 5


def test_validations_are_counted_and_not_epochs():
    assert run([0.5, 0.4, 0.3], interval=3)[0][-1] == 9


def test_the_first_look_is_no_validation():
    assert run([0.9, 0.1, 0.2, 0.2, 0.2], sanity_check=True)[0][-1] == 4


def test_the_count_goes_on_after_a_resume():
    _, state = run([0.5, 0.4], epochs=2, patience=3)
    kept = state.stateful["early_stopping"].state_dict()
    assert kept == {"counter": 1, "best_score": 0.5}
    assert run([0.5, 0.4], patience=3, kept=kept)[0][-1] == 2
    assert run([0.6, 0.4, 0.4, 0.4], patience=3, kept=kept)[0][-1] == 4


def test_a_run_that_had_stopped_stops_again_unless_it_may_wait_longer():
    _, state = run([0.5, 0.4, 0.4])
    kept = state.stateful["early_stopping"].state_dict()
    ended, again = run([], kept=kept)
    assert ended == []
    assert again.stop_reason == state.stop_reason
    assert run([0.4], patience=3, kept=kept)[0] == [1]


def test_no_score_at_all_is_kept_as_none():
    _, state = run([NAN], epochs=1)
    assert state.stateful["early_stopping"].state_dict() == {"counter": 1, "best_score": None}


@pytest.mark.parametrize(("patience", "delta"), [(0, 0), (2.5, 0), (True, 0), (1, -1), (1, NAN)])
def test_limits_that_are_none(patience, delta):
    with pytest.raises(ConfigError, match="early_stopping"):
        EarlyStopping(None, patience, delta)


def test_a_patience_is_looked_at_before_anything_is_read():
    require_patience(None)
    require_patience(20)
    for wrong in (0, "5", 2.5, True):
        with pytest.raises(ConfigError, match=r"early_stopping#patience: it must be a whole number .* or null"):
            require_patience(wrong)


@pytest.mark.parametrize("sanity_check", [False, True])
@pytest.mark.parametrize(
    ("interval", "epochs", "validated"),
    [(5, 3, [3]), (2, 3, [2, 3]), (3, 3, [3]), (1, 2, [1, 2]), (4, 9, [4, 8, 9]), (1000, 1, [1])],
)
def test_the_last_epoch_is_always_validated_and_none_twice(interval, epochs, validated, sanity_check):
    network = torch.nn.Linear(2, 1)
    evaluator = SupervisedEvaluator(
        torch.device("cpu"), DATA, network, key_val_metric={"dice": Told([0.5] * 20)}, decollate=False
    )
    seen = []
    checked = SanityValidation(evaluator)

    def note(engine):
        if not getattr(engine.state, "sanity_check", False):
            seen.append(engine.state.epoch)

    evaluator.add_event_handler(Events.COMPLETED, note)
    SupervisedTrainer(
        torch.device("cpu"), epochs, DATA, network, torch.optim.SGD(network.parameters(), lr=0.1),
        torch.nn.MSELoss(), decollate=False,
        train_handlers=[*([checked] if sanity_check else []), Validation(interval, evaluator)],
    ).run()  # fmt: skip
    assert seen == validated
