"""Stages of a run: what is handed over at the boundary and what begins anew, seen against runs made by hand."""

import copy

import pytest
import torch

from snn_probe.checkpoint import build_model, load
from snn_probe.config import RunConfig
from snn_probe.objectives import SDT, TRT
from snn_probe.runs import state as training_state
from snn_probe.runs.state import TrainingState
from snn_probe.system import build_network, network_of
from snn_probe.training import train

SMALL = dict(batch_size=16, train_examples=40, learning_rate=0.01)
TIT = RunConfig(**SMALL, num_steps=3, stages=[{"epochs": 2, "num_steps": 2}, {"epochs": 2}])
SWITCH = RunConfig(**SMALL, num_steps=2, method="trt", stages=[{"epochs": 2, "method": "sdt"},
                                                               {"epochs": 2, "optimizer": "continue"}])  # fmt: skip


def test_the_first_stage_is_the_run_it_would_be_alone():
    alone = list(train(RunConfig(**SMALL, num_steps=2, epochs=2)))
    staged = list(train(TIT))
    assert [c.card["sha256"] for c in staged[:2]] == [c.card["sha256"] for c in alone]
    assert len({c.card["sha256"] for c in staged}) == 4


def test_time_inheritance_takes_over_weights_and_statistics_and_begins_adam_anew():
    first = list(train(TIT))[1]
    state = TrainingState(TIT, network_of(TIT), [], torch.device("cpu"))
    assert state.step.model.num_steps == 2
    state.step.model.load_state_dict(first.state_dict)
    state.epoch = 2
    state.enter(3)
    assert state.step.model.num_steps == 3 and not state.step.optimizer.state_dict()["state"]
    for name, tensor in state.step.model.state_dict().items():
        assert torch.equal(tensor, first.state_dict[name])
    rates = [c.card["metrics"]["learning_rate"] for c in train(TIT)]
    assert rates == pytest.approx([0.01, 0.005, 0.01, 0.005])


def test_the_switch_keeps_adam_and_its_cosine_and_changes_the_objective(monkeypatch):
    state = TrainingState(SWITCH, network_of(SWITCH), [], torch.device("cpu"))
    assert state.step.objective == SDT()
    inputs, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
    with state.step.ready():
        state.step(inputs, labels, 1.0, where="here")
    moments = copy.deepcopy(state.step.optimizer.state_dict()["state"])
    state.epoch = 2
    state.enter(3)
    assert state.step.objective == TRT()
    kept = state.step.optimizer.state_dict()["state"]
    assert kept.keys() == moments.keys() and len(moments) > 0
    for index, held in moments.items():
        assert all(torch.equal(held[name], kept[index][name]) for name in held)
    rates = [c.card["metrics"]["learning_rate"] for c in train(SWITCH)]
    cosine = [0.5 * 0.01 * (1 + torch.cos(torch.tensor(torch.pi * e / 4)).item()) for e in range(4)]
    assert rates == pytest.approx(cosine)


@pytest.mark.parametrize("config", [TIT, SWITCH], ids=["tit", "switch"])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_break_before_at_and_after_the_boundary_changes_nothing(tmp_path, config, after):
    whole = list(train(config))
    epochs = train(config, folder=tmp_path / "run")
    for _ in range(after):
        next(epochs)
    epochs.close()
    rest = list(train(config, folder=tmp_path / "run", resume=True))
    assert [c.card["sha256"] for c in rest] == [c.card["sha256"] for c in whole[after:]]


def test_event_streams_are_cut_anew_for_each_stage():
    config = RunConfig(**{**SMALL, "train_examples": 20}, dataset="event-digits", num_steps=4,
                       stages=[{"epochs": 1, "num_steps": 2}, {"epochs": 1}])  # fmt: skip
    seen = []

    class Watched(training_state.TrainingStep):
        def __call__(self, inputs, labels, *arguments, **options):
            seen.append(inputs.shape[1])
            return super().__call__(inputs, labels, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_state, "TrainingStep", Watched)
        list(train(config))
    assert seen == [2, 2, 4, 4]


def test_a_checkpoint_has_the_timesteps_and_objective_of_its_stage(tmp_path):
    list(train(TIT, folder=tmp_path / "run", save_epochs=[1]))
    early, last = (load(tmp_path / "run" / "checkpoints" / name) for name in ("epoch_0001.pt", "last.pt"))
    assert (early.stage.num_steps, last.stage.num_steps) == (2, 3)
    image = torch.rand(2, 1, 8, 8)
    assert len(build_model(early)(image)) == 2 and len(build_model(last)(image)) == 3


def test_the_untrained_network_is_the_same_whatever_the_stages():
    network = network_of(TIT)
    one, other = build_network(TIT, network, TIT.stages[0]), build_network(TIT, network)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
