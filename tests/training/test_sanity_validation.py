import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import MeanSquaredError, ValidationHandler, from_engine

from medseg.training import SanityValidation

DATA = [{"image": torch.ones(2, 2) * i, "label": torch.ones(2, 1)} for i in range(3)]


def run(inferer=None, epochs=2, iteration=0):
    network = torch.nn.Linear(2, 1)
    seen = []
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        DATA,
        network,
        inferer=inferer,
        key_val_metric={"mse": MeanSquaredError(output_transform=from_engine(["pred", "label"]))},
        decollate=False,
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    trainer = SupervisedTrainer(
        torch.device("cpu"),
        epochs,
        DATA,
        network,
        optimizer,
        torch.nn.MSELoss(),
        train_handlers=[SanityValidation(evaluator), ValidationHandler(1, evaluator)],
        decollate=False,
    )

    @evaluator.on(Events.ITERATION_COMPLETED)
    def note(engine):
        seen.append((trainer.state.epoch, trainer.state.iteration, getattr(engine.state, "sanity_check", False)))

    @evaluator.on(Events.EPOCH_COMPLETED)
    def best(engine):
        seen.append(("best", engine.state.best_metric_epoch))

    if iteration:
        trainer.load_state_dict({"iteration": iteration, "max_epochs": epochs, "epoch_length": 3})
    trainer.run()
    return seen, evaluator


def test_one_volume_runs_before_the_first_iteration_and_all_after_each_epoch():
    seen, evaluator = run()
    looks = [entry for entry in seen if entry[0] != "best"]
    assert looks[0] == (0, 0, True)
    assert looks[1:] == [(1, 3, False)] * 3 + [(2, 6, False)] * 3
    assert evaluator.state.epoch_length == 3


def test_the_look_is_forgotten_as_a_score():
    seen, evaluator = run()
    epochs = [entry[1] for entry in seen if entry[0] == "best"]
    assert epochs[0] in (-1, 1)
    assert evaluator.state.best_metric_epoch in (1, 2)
    assert evaluator.state.metrics["mse"] == pytest.approx(evaluator.state.best_metric)


def test_a_fault_in_validation_shows_before_the_first_iteration():
    def broken(inputs, network):
        raise RuntimeError("a fault in validation")

    with pytest.raises(RuntimeError, match="a fault in validation"):
        run(broken)


def test_a_run_that_goes_on_has_been_looked_at():
    seen, _ = run(iteration=3)
    assert not any(entry[-1] is True for entry in seen if entry[0] != "best")


def test_the_chance_of_the_run_is_not_touched():
    torch.manual_seed(5)
    before = torch.get_rng_state()

    def draws(inputs, network):
        torch.rand(3)
        return network(inputs)

    evaluator = SupervisedEvaluator(torch.device("cpu"), DATA, torch.nn.Linear(2, 1), inferer=draws, decollate=False)
    after = torch.get_rng_state()
    assert not torch.equal(after, before)  # the weights were drawn
    SanityValidation(evaluator)(Engine(lambda *_: None))
    assert torch.equal(torch.get_rng_state(), after)
