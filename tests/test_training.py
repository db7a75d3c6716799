"""Training: the numbers are those of a plain loop, a break changes nothing, and nothing that is not finite is kept."""

import copy
import csv
import json
import math
import os
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snn_probe import training
from snn_probe.checkpoint import build_model, load, weights_digest
from snn_probe.config import RunConfig, derived_seed
from snn_probe.data import batches
from snn_probe.data import load as load_data
from snn_probe.models import MODELS
from snn_probe.objectives import OBJECTIVES, SDT, TET, TRT
from snn_probe.parameters import trainable
from snn_probe.runs import state as training_state
from snn_probe.runs.step import TrainingStep
from snn_probe.system import build_network, load_split, network_of
from snn_probe.temporal import from_spikingjelly
from snn_probe.training import Evaluation, TrainingDiverged, evaluate, train

# Three steps an epoch, the last one short; a rate at which four epochs change every layer.
SMALL = RunConfig(num_steps=2, epochs=4, batch_size=16, train_examples=40, learning_rate=0.01)
STEPS = 3
COLUMNS = (
    "epoch learning_rate objective train_loss train_accuracy gradient_norm validation_loss validation_accuracy "
    "firing_rate test_loss test_accuracy seconds"
).split()


def finished(config, **options):
    return list(train(config, **options))


def numbers(row):
    """A row of metrics, or a card's, without what no two runs share."""
    return {name: value for name, value in row.items() if name != "seconds"}


def written_rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [numbers(row) for row in csv.DictReader(file)]


def assert_same_run(one, other):
    """Two runs' folders hold the same files with the same content, time and machine apart."""

    def names(folder):
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    assert names(one) == names(other)
    assert (one / "config.json").read_bytes() == (other / "config.json").read_bytes()
    assert written_rows(one) == written_rows(other)
    for name in os.listdir(one / "checkpoints"):
        first, second = (load(folder / "checkpoints" / name) for folder in (one, other))
        assert weights_digest(first.state_dict) == weights_digest(second.state_dict), name
        for key in ("run", "kind", "epoch", "config", "network", "sha256"):
            assert first.card[key] == second.card[key], (name, key)
        assert numbers(first.card["metrics"]) == numbers(second.card["metrics"])
    assert_equal(*(torch.load(folder / "resume.pt", weights_only=True) for folder in (one, other)))


def assert_equal(one, other):
    """Nested dicts, lists and tensors, and JSON text with the seconds left out."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            if key != "seconds":
                assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_equal(*pair)
    elif isinstance(one, str) and one.startswith("{"):
        assert_equal(json.loads(one), json.loads(other))
    else:
        assert one == other


def everything_in(folder):
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def interrupted(config, folder, *, after, **options):
    """Begin a run and stop it after so many epochs."""
    epochs = train(config, folder=folder, **options)
    for _ in range(after):
        next(epochs)
    epochs.close()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The folder of a run of ``SMALL`` without a break, and its checkpoints."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    return SimpleNamespace(folder=folder, checkpoints=finished(SMALL, folder=folder))


# --- the numbers ---


@pytest.mark.parametrize(
    "config",
    [
        replace(SMALL, method="sdt", epochs=2),
        replace(SMALL, method="tet", epochs=2, hyperparameters={"mse_weight": 0.5}),
        replace(SMALL, method="trt", epochs=2, hyperparameters={"strength": 0.1, "decay": 0.5}),
        replace(SMALL, method="trt", epochs=2, dataset="event-digits", num_steps=3, augment=True),
    ],
    ids=lambda config: f"{config.dataset}-{config.method}",
)
def test_two_epochs_are_those_of_a_plain_loop(config):
    found = finished(config)

    data = load_data(config.dataset, "train", num_steps=config.num_steps, num_examples=40)
    model = build_network(config, network_of(config)).train()
    adam = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    for epoch, rate in enumerate((0.01, 0.005)):  # half a cosine period over two epochs: 1, 1/2 (and then 0)
        seeds = [derived_seed(config.seed, f"{purpose} of epoch {epoch + 1}") for purpose in ("order", "augmentation")]
        order = torch.randperm(40, generator=torch.Generator().manual_seed(seeds[0]))
        losses, plain, hits, norms = 0.0, 0.0, 0, []
        for chosen in (order[:16], order[16:32], order[32:]):
            adam.param_groups[0]["lr"] = rate
            ((inputs, _),) = data.feed([chosen], augment_seed=seeds[1] if config.augment else None)
            assert torch.equal(inputs, data.inputs[chosen]) != config.augment
            logits = model(inputs)
            loss = config.objective()(logits, data.labels[chosen], dict(model.named_parameters()))
            adam.zero_grad()
            loss.backward()
            norms.append(math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in model.parameters())))
            adam.step()
            losses += loss.item() * len(chosen)
            plain += F.cross_entropy(logits.mean(0), data.labels[chosen]).item() * len(chosen)
            hits += int((logits.mean(0).argmax(1) == data.labels[chosen]).sum())
        metrics = found[epoch].card["metrics"]
        assert metrics["learning_rate"] == pytest.approx(rate)
        assert metrics["objective"] == pytest.approx(losses / 40, rel=1e-5)
        assert metrics["train_loss"] == pytest.approx(plain / 40, rel=1e-5)
        assert metrics["train_accuracy"] == hits / 40
        assert metrics["gradient_norm"] == pytest.approx(sum(norms) / 3, rel=1e-5)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(found[1].state_dict[name], tensor, rtol=1e-4, atol=1e-5)


def test_learning_rate_falls_along_a_cosine_to_0(straight):
    rates = [c.card["metrics"]["learning_rate"] for c in straight.checkpoints]
    assert rates == pytest.approx([0.01, 0.01 * (2 + math.sqrt(2)) / 4, 0.005, 0.01 * (2 - math.sqrt(2)) / 4])


def test_metrics_after_an_epoch_are_those_of_its_checkpoint():
    checkpoint = finished(replace(SMALL, epochs=2, dataset="event-digits"))[-1]
    metrics, model = checkpoint.card["metrics"], build_model(checkpoint)
    for split in ("validation", "test"):
        found = evaluate(model, batches(load_data("event-digits", split, num_steps=2), 50))
        assert metrics[f"{split}_loss"] == pytest.approx(found.loss, rel=1e-5)
        assert metrics[f"{split}_accuracy"] == found.accuracy
        if split == "validation":
            assert metrics["firing_rate"] == pytest.approx(found.firing_rate)
    assert 0 < metrics["firing_rate"] < 1
    assert metrics["seconds"] > 0


def test_training_learns():
    found = finished(replace(SMALL, train_examples=200, epochs=6))
    first, last = found[0].card["metrics"], found[-1].card["metrics"]
    assert last["train_loss"] < 0.5 * first["train_loss"]
    assert last["test_accuracy"] > 0.6  # chance is 0.1


def test_each_checkpoint_says_what_it_is(straight):
    for epoch, checkpoint in enumerate(straight.checkpoints, 1):
        card = checkpoint.card
        assert (card["run"], card["kind"], card["epoch"], card["metrics"]["epoch"]) == ("run", "last", epoch, epoch)
        assert checkpoint.config == SMALL
        assert card["environment"]["device"] == "cpu"
        assert card["environment"]["threads"] == torch.get_num_threads()
        assert card["sha256"] == weights_digest(checkpoint.state_dict)
    assert epoch == 4
    assert next(train(SMALL)).card["run"] == "digits-tiny-sdt-seed0"


def test_a_run_in_the_current_folder_is_called_after_it(tmp_path, monkeypatch):
    (tmp_path / "name").mkdir()
    monkeypatch.chdir(tmp_path / "name")
    assert next(train(SMALL, folder=".")).card["run"] == "name"


# --- randomness ---


def test_the_seed_determines_everything():
    config = replace(SMALL, method="trt", augment=True, epochs=2)
    one = finished(config)
    torch.manual_seed(1234)  # of no concern
    other = finished(config)
    assert [c.card["sha256"] for c in one] == [c.card["sha256"] for c in other]
    assert [numbers(c.card["metrics"]) for c in one] == [numbers(c.card["metrics"]) for c in other]
    assert next(train(replace(config, seed=1))).card["sha256"] != one[0].card["sha256"]


@dataclass
class Watched:
    weights: str  # digest of the untrained network
    inputs: list  # a list of batches per epoch
    labels: list


def watch(config, monkeypatch):
    """What a run begins with and what it is shown."""
    seen = Watched("", [], [])

    def watched_network(*arguments):
        model = build_network(*arguments)
        seen.weights = weights_digest(model.state_dict())

        def note(module, args):
            if module.training:
                seen.inputs[-1].append(args[0].clone())

        model.register_forward_pre_hook(note)
        return model

    plain = TrainingStep.__call__

    def watched_step(self, inputs, labels, *arguments, **options):
        seen.labels[-1].append(labels.clone())
        return plain(self, inputs, labels, *arguments, **options)

    def begin_epoch(steps, label):
        seen.inputs.append([])
        seen.labels.append([])
        return steps

    with monkeypatch.context() as patch:
        patch.setattr(training_state, "build_network", watched_network)
        patch.setattr(TrainingStep, "__call__", watched_step)
        epochs = train(config, progress=begin_epoch)
        patch.setattr(training, "last_checkpoint", lambda state, name: None)
        list(epochs)
    seen.inputs = [torch.cat(epoch) for epoch in seen.inputs]
    seen.labels = [torch.cat(epoch) for epoch in seen.labels]
    return seen


@pytest.fixture
def plain(monkeypatch):
    return watch(replace(SMALL, epochs=2), monkeypatch)


def assert_same_batches(one, other):
    for name in ("inputs", "labels"):
        for first, second in zip(getattr(one, name), getattr(other, name), strict=True):
            assert torch.equal(first, second)


def test_augmentation_moves_neither_the_weights_nor_the_order(monkeypatch, plain):
    moved = watch(replace(SMALL, epochs=2, augment=True), monkeypatch)
    assert moved.weights == plain.weights
    for epoch in range(2):
        assert torch.equal(moved.labels[epoch], plain.labels[epoch])
        assert not torch.equal(moved.inputs[epoch], plain.inputs[epoch])


def test_the_method_changes_neither_the_weights_nor_the_order_nor_the_shifts(monkeypatch):
    config = replace(SMALL, epochs=2, augment=True)
    one, other = (watch(replace(config, method=method), monkeypatch) for method in ("sdt", "trt"))
    assert one.weights == other.weights
    assert_same_batches(one, other)


def test_the_seed_changes_weights_and_order(monkeypatch, plain):
    other = watch(replace(SMALL, epochs=2, seed=1), monkeypatch)
    assert other.weights != plain.weights
    assert not torch.equal(other.labels[0], plain.labels[0])


def test_every_epoch_shows_every_example_once_in_another_order(plain):
    data = load_data("digits", "train", num_examples=40)
    whole = sorted(image.tobytes() for image in data.inputs.numpy())
    for epoch in plain.inputs:
        assert sorted(image.tobytes() for image in epoch.numpy()) == whole
    assert not torch.equal(plain.inputs[0], plain.inputs[1])


def test_shifts_are_drawn_anew_in_each_epoch_and_are_of_one_pixel_at_most(monkeypatch, plain):
    moved = watch(replace(SMALL, epochs=2, augment=True), monkeypatch)
    shifts = []
    for epoch in range(2):
        shifts.append([])
        for image, original in zip(moved.inputs[epoch], plain.inputs[epoch], strict=True):
            padded = F.pad(original, (1, 1, 1, 1))
            fits = [(r, c) for r in range(3) for c in range(3) if torch.equal(image, padded[:, r : r + 8, c : c + 8])]
            assert fits
            shifts[-1].append(fits[0])
    assert shifts[0] != shifts[1]
    assert len(set(shifts[0])) > 4


def test_the_global_random_state_is_left_alone(tmp_path):
    torch.manual_seed(42)
    before = torch.get_rng_state()
    epochs = train(replace(SMALL, augment=True, epochs=2), folder=tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)
    for _ in epochs:
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


# --- a break changes nothing ---

BREAKS = {
    "sdt": replace(SMALL, method="sdt"),
    "tet": replace(SMALL, method="tet", augment=True),
    "trt": replace(SMALL, method="trt", augment=True, seed=3, hyperparameters={"decay": 0.5}),
    "event-digits": replace(SMALL, method="trt", dataset="event-digits", augment=True),
}


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "threads"), [*((name, 1) for name in BREAKS), ("trt", 2)], indirect=["threads"])
def test_two_and_two_epochs_equal_four_bit_for_bit(tmp_path, name, threads):
    config, unbroken, broken = BREAKS[name], tmp_path / "a" / "run", tmp_path / "b" / "run"
    whole = finished(config, folder=unbroken, save_epochs=[1, 3])
    interrupted(config, broken, after=2, save_epochs=[1, 3])
    assert len(written_rows(broken)) == 2
    torch.manual_seed(99)
    rest = finished(config, folder=broken, resume=True, save_epochs=[1, 3])
    assert [c.epoch for c in rest] == [3, 4]
    assert [c.card["sha256"] for c in rest] == [c.card["sha256"] for c in whole[2:]]
    assert len({c.card["sha256"] for c in whole}) == 4
    assert_same_run(unbroken, broken)


def noisy(*, input_shape, num_classes, width, neuron):
    """A network that draws random numbers in training."""
    from spikingjelly.activation_based import layer

    layers = list(MODELS["tiny"](input_shape=input_shape, num_classes=num_classes, width=width, neuron=neuron))
    return nn.Sequential(*layers[:4], layer.Dropout(0.5), *layers[4:])


def test_a_network_with_dropout_goes_on_with_the_noise_it_would_have_had(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "noisy", noisy)
    config, unbroken, broken = replace(SMALL, model="noisy"), tmp_path / "a" / "run", tmp_path / "b" / "run"
    whole = finished(config, folder=unbroken)
    interrupted(config, broken, after=2)
    torch.manual_seed(99)
    rest = finished(config, folder=broken, resume=True)
    assert [c.card["sha256"] for c in rest] == [c.card["sha256"] for c in whole[2:]]
    assert_same_run(unbroken, broken)


class Killed(BaseException):
    pass


def killing_write(monkeypatch, number):
    """Make the write of this number (from 0) fail before its file appears; the number of writes begun so far."""
    replaced, writes = os.replace, []

    def watched(*names):
        writes.append(names)
        if len(writes) == number + 1:
            raise Killed
        replaced(*names)

    monkeypatch.setattr("snn_probe.machine.files.os.replace", watched)
    return writes


def test_a_run_killed_before_any_of_its_writes_ends_the_same(tmp_path, monkeypatch):
    config = replace(SMALL, epochs=2, train_examples=16)
    options = {"save_epochs": [1, 2]}
    with monkeypatch.context() as patch:
        writes = killing_write(patch, -1)
        finished(config, folder=tmp_path / "straight" / "run", **options)
    assert len(writes) >= 10  # config.json, and for each epoch two or three checkpoints, metrics.csv, resume.pt
    for number in range(len(writes)):
        folder = tmp_path / str(number) / "run"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            killing_write(patch, number)
            finished(config, folder=folder, **options)
        finished(config, folder=folder, resume=True, **options)
        assert_same_run(tmp_path / "straight" / "run", folder)


def test_a_run_killed_within_an_epoch_goes_on_from_the_last_complete_one(straight, tmp_path):
    def killed_in_the_third_epoch(steps, label):
        for number, step in enumerate(steps):
            if label == "epoch 3/4" and number == 2:
                raise KeyboardInterrupt
            yield step

    with pytest.raises(KeyboardInterrupt):
        finished(SMALL, folder=tmp_path / "run", progress=killed_in_the_third_epoch)
    assert load(tmp_path / "run" / "checkpoints" / "last.pt").epoch == 2
    assert [c.epoch for c in finished(SMALL, folder=tmp_path / "run", resume=True)] == [3, 4]
    assert_same_run(straight.folder, tmp_path / "run")


def test_lost_checkpoints_and_metrics_do_not_stop_a_resume(straight, tmp_path):
    interrupted(SMALL, tmp_path / "run", after=2)
    (tmp_path / "run" / "checkpoints" / "last.pt").unlink()
    (tmp_path / "run" / "metrics.csv").write_text("garbled")
    finished(SMALL, folder=tmp_path / "run", resume=True)
    assert written_rows(tmp_path / "run") == written_rows(straight.folder)
    last = load(tmp_path / "run" / "checkpoints" / "last.pt")
    assert (last.epoch, last.card["sha256"]) == (4, straight.checkpoints[-1].card["sha256"])


def test_a_finished_run_resumed_yields_nothing_and_leaves_its_files_alone(straight):
    before = everything_in(straight.folder)
    assert finished(SMALL, folder=straight.folder, resume=True) == []
    assert everything_in(straight.folder) == before


def test_resume_in_a_new_folder_starts_at_the_beginning(tmp_path):
    assert [c.epoch for c in train(SMALL, folder=tmp_path / "new" / "run", resume=True)] == [1, 2, 3, 4]


def test_a_folder_that_holds_a_run_is_refused_without_resume(tmp_path):
    interrupted(SMALL, tmp_path / "run", after=1)
    before = everything_in(tmp_path)
    with pytest.raises(
        ValueError, match=r"run already holds a run; continue it with --resume \(resume=True\), or choose"
    ):
        train(SMALL, folder=tmp_path / "run")
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"epochs": 8}, r"\(epochs 4 -> 8\)"),
        ({"seed": 1, "augment": True}, r"\(augment False -> True, seed 0 -> 1\)"),
        ({"train_examples": None}, r"\(train_examples 40 -> None\)"),
        (
            {"method": "tet"},
            r"\(method 'sdt' -> 'tet', hyperparameters {} -> {'mse_weight': 0.05, 'mse_target': 1.0}\)",
        ),
    ],
    ids=str,
)
def test_resume_with_another_configuration_is_refused_and_the_difference_named(tmp_path, changed, said):
    interrupted(SMALL, tmp_path / "run", after=1)
    before = everything_in(tmp_path)
    with pytest.raises(
        ValueError, match=rf"run has another configuration {said}; resume it as it was begun, choose another"
    ):
        train(replace(SMALL, hyperparameters={}, **changed), folder=tmp_path / "run", resume=True)
    assert everything_in(tmp_path) == before


# --- what is kept ---


def test_a_run_writes_the_files_of_the_design_and_no_others(tmp_path):
    found = finished(SMALL, folder=tmp_path / "run", save_epochs=[3, 1, 3])
    kept = ["best.pt", "epoch_0001.pt", "epoch_0003.pt", "last.pt"]
    assert sorted(os.listdir(tmp_path / "run")) == sorted(
        ["checkpoints", "config.json", "metrics.csv", "resume.pt", "resume.previous.pt"]
    )
    assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == kept
    for name, epoch, kind in (("epoch_0001", 1, "epoch"), ("epoch_0003", 3, "epoch"), ("last", 4, "last")):
        checkpoint = load(tmp_path / "run" / "checkpoints" / f"{name}.pt")
        assert checkpoint.card == {**found[epoch - 1].card, "kind": kind}


def test_config_json_is_the_configuration_in_full(tmp_path):
    interrupted(BREAKS["trt"], tmp_path / "run", after=0)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == BREAKS["trt"].to_dict()


def test_metrics_has_a_row_per_epoch_in_full_precision(straight):
    with open(straight.folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    for row, checkpoint in zip(rows, straight.checkpoints, strict=True):
        assert {name: float(value) for name, value in row.items()} == checkpoint.card["metrics"]


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(finished(replace(SMALL, epochs=1))) == 1
    assert os.listdir(tmp_path) == []


def test_epochs_to_keep_are_remembered_by_a_resume_that_does_not_repeat_them(tmp_path):
    interrupted(SMALL, tmp_path / "run", after=2, save_epochs=[1, 4])
    finished(SMALL, folder=tmp_path / "run", resume=True, save_epochs=[3])
    kept = ["best.pt", "epoch_0001.pt", "epoch_0003.pt", "epoch_0004.pt", "last.pt"]
    assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == kept


def test_an_epoch_that_is_gone_cannot_be_kept(tmp_path):
    interrupted(SMALL, tmp_path / "run", after=2, save_epochs=[2])
    said = (
        r"^save_epochs has 1, but the run in .*run is past epoch 1 and did not keep it; leave it out, or train anew in "
        r"another folder\.$"
    )
    with pytest.raises(ValueError, match=said):
        train(SMALL, folder=tmp_path / "run", resume=True, save_epochs=[1, 2, 4])
    assert [c.epoch for c in train(SMALL, folder=tmp_path / "run", resume=True, save_epochs=[2, 4])] == [3, 4]


def scripted(monkeypatch, accuracies, losses):
    """Validation accuracy and loss of the epochs to come; the test split reads 1 and 0, which must not matter."""
    script = iter([*zip(accuracies, losses, strict=True)])

    def evaluation(model, data, objective=None):
        if sum(len(labels) for _, labels in data) == 360:
            return Evaluation(0.0, 1.0, 0.1, 360)
        accuracy, loss = next(script)
        return Evaluation(loss, accuracy, 0.1, 179)

    monkeypatch.setattr(training, "evaluate", evaluation)


@pytest.mark.parametrize(
    ("accuracies", "losses", "best"),
    [
        ([0.5, 0.7, 0.6, 0.6], [1.0, 2.0, 0.1, 0.1], 2),  # accuracy decides
        ([0.7, 0.7, 0.7, 0.6], [1.0, 0.8, 0.9, 0.1], 2),  # then the lower loss
        ([0.7, 0.7, 0.7, 0.7], [1.0, 1.0, 1.0, 1.0], 1),  # then the earlier epoch
        ([0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0], 4),
        ([0.9, 0.2, 0.3, 0.4], [1.0, 0.1, 0.1, 0.1], 1),
    ],
)
@pytest.mark.parametrize("broken_after", [None, 2])
def test_best_is_the_best_on_validation_also_across_a_break(
    tmp_path, monkeypatch, accuracies, losses, best, broken_after
):
    scripted(monkeypatch, accuracies, losses)
    config = replace(SMALL, train_examples=16)
    if broken_after is not None:
        interrupted(config, tmp_path / "run", after=broken_after)
    finished(config, folder=tmp_path / "run", resume=True)
    found = load(tmp_path / "run" / "checkpoints" / "best.pt")
    assert (found.epoch, found.card["kind"]) == (best, "best")
    assert found.card["metrics"]["validation_accuracy"] == accuracies[best - 1]
    assert load(tmp_path / "run" / "checkpoints" / "last.pt").epoch == 4


# --- what is refused before anything is written ---


@pytest.mark.parametrize(
    ("changed", "options", "said"),
    [
        ({}, {"save_epochs": [0]}, r"^save_epochs is \[0\]; give whole numbers from 1 to epochs, which is 4\.$"),
        ({}, {"save_epochs": [5, 1]}, r"^save_epochs is \[1, 5\]; give whole numbers from 1 to epochs, which is 4\.$"),
        ({}, {"save_epochs": [1.5]}, r"^save_epochs is \[1\.5\]; give whole numbers from 1 to epochs, which is 4\.$"),
        ({}, {"save_epochs": [True]}, r"^save_epochs is \[True\]; give whole numbers from 1 to epochs, which is 4\.$"),
        (
            {"dataset": "mnist"},
            {},
            r"^dataset is 'mnist'; give one of 'digits', 'event-digits', 'cifar10', 'cifar100', 'imagenet', 'image-folder', 'cifar10-dvs', 'n-caltech101', 'dvs128-gesture', 'n-mnist', package\.module:name of your own, or a folder of images or frames by class\.$",
        ),
        ({"model": "vgg"}, {}, r"^model is 'vgg'; give one of 'tiny'"),
        ({"train_examples": 5000}, {}, r"^num_examples is 5000, but the train split of digits has 1258 examples; give"),
        ({"dataset": "event-digits", "num_steps": 9999}, {}, r"num_steps is 9999.*; "),
    ],
)
def test_an_impossible_run_is_refused_at_once_and_makes_no_folder(tmp_path, changed, options, said):
    with pytest.raises(ValueError, match=said):
        train(replace(SMALL, **changed), folder=tmp_path / "run", **options)
    assert os.listdir(tmp_path) == []


def test_resume_needs_a_folder():
    with pytest.raises(ValueError, match=r"^resume needs the run's folder; give folder\.$"):
        train(SMALL, resume=True)


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_an_output_folder_below_a_file_is_one_sentence(tmp_path, below):
    (tmp_path / "way").write_text("old")
    folder = tmp_path / "way" / below / "run"
    with pytest.raises(OSError, match=r"^cannot write .*\.lock: a file stands where the folder .* remove it or choose"):
        train(SMALL, folder=folder)
    assert (tmp_path / "way").read_text() == "old"


def test_a_file_as_output_folder_is_one_sentence(tmp_path):
    (tmp_path / "run").write_text("old")
    with pytest.raises(OSError, match=r"^cannot write .*\.lock: a file stands where the folder .* remove it or choose"):
        train(SMALL, folder=tmp_path / "run")


def test_a_disk_that_fills_up_during_training_loses_nothing_that_was_saved(straight, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    epochs = train(SMALL, folder=folder)
    first = next(epochs)
    before = everything_in(folder)
    with monkeypatch.context() as patch:

        def full(descriptor):
            raise OSError(28, "No space left on device")

        patch.setattr("snn_probe.machine.files.os.fsync", full)
        with pytest.raises(
            OSError, match="the disk is full or its quota is used up; free some space or choose another"
        ):
            next(epochs)
    assert everything_in(folder) == before
    assert load(folder / "checkpoints" / "last.pt").card["sha256"] == first.card["sha256"]
    finished(SMALL, folder=folder, resume=True)
    assert_same_run(straight.folder, folder)


# --- what is not finite ---

ADVICE = r"; the step was not taken and the last checkpoint is good; train anew with a lower learning_rate\.$"


@pytest.fixture
def adam_steps(monkeypatch):
    """The ``calls`` of Adam's step so far; ``then(number, adam)`` is called after each."""
    step, calls = torch.optim.Adam.step, []

    def counted(self, *arguments, **options):
        found = step(self, *arguments, **options)
        calls.append(self)
        if counted.then is not None:
            counted.then(len(calls), self)
        return found

    counted.then, counted.calls = None, calls
    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    return counted


def poison(monkeypatch, spoil):
    """SDT whose fifth call, the second step of the second epoch, gives ``spoil(loss, params)``."""
    calls = []

    @dataclass(frozen=True)
    class Poisoned(SDT):
        def __call__(self, logits, labels, params=None):
            loss = super().__call__(logits, labels, params)
            calls.append(loss.item())
            return spoil(loss, params) if len(calls) == STEPS + 2 else loss

    monkeypatch.setitem(OBJECTIVES, "sdt", Poisoned)


SPOILT = {
    "loss": (lambda loss, params: loss * math.nan, r"the loss is not finite \(loss nan\) in"),
    "infinite loss": (lambda loss, params: loss * math.inf, r"the loss is not finite \(loss inf\) in"),
    "gradient": (
        lambda loss, params: loss + (0 * params["net.conv2.weight"]).sum().sqrt(),
        r"the gradient of 'net\.conv2\.weight' is not finite in",
    ),
    "norm": (lambda loss, params: loss * 1e30, r"the norm of the gradient is not finite in"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_training_that_diverges_stops_before_the_step_and_keeps_the_last_checkpoint(
    straight, tmp_path, monkeypatch, adam_steps, what
):
    spoil, said = SPOILT[what]
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        poison(patch, spoil)
        with pytest.raises(TrainingDiverged, match=f"^{said} epoch 2, step 2{ADVICE}"):
            finished(SMALL, folder=folder)
    assert len(adam_steps.calls) == STEPS + 1
    last = load(folder / "checkpoints" / "last.pt")
    assert last.epoch == 1 and weights_digest(last.state_dict) == last.card["sha256"]
    assert all(tensor.isfinite().all() for tensor in last.state_dict.values())
    assert len(written_rows(folder)) == 1
    finished(SMALL, folder=folder, resume=True)  # the cause is gone
    assert_same_run(straight.folder, folder)


def test_a_weight_that_is_not_finite_is_named(tmp_path, adam_steps):
    def spoil(number, adam):
        if number == STEPS + 1:
            adam.param_groups[0]["params"][3].data[0] = math.nan

    adam_steps.then = spoil
    name = list(trainable(build_network(SMALL, network_of(SMALL))))[3]
    with pytest.raises(
        TrainingDiverged, match=rf"^parameter '{name}' is not finite (\(loss nan\) )?in epoch 2, step 2{ADVICE}"
    ):
        finished(SMALL, folder=tmp_path / "run")
    assert len(adam_steps.calls) == STEPS + 1
    assert load(tmp_path / "run" / "checkpoints" / "last.pt").epoch == 1


def test_a_weight_that_is_not_finite_after_an_epoch_is_not_saved(tmp_path, adam_steps):
    """Neurons that read NaN stay silent, so no loss shows it."""

    def spoil(number, adam):
        if number == 2 * STEPS:
            adam.param_groups[0]["params"][0].data[0] = math.nan

    adam_steps.then = spoil
    name = next(iter(trainable(build_network(SMALL, network_of(SMALL)))))
    said = (
        rf"^'{name}' is not finite after epoch 2; nothing of this epoch was saved and the last checkpoint is good; "
        r"train anew with a lower learning_rate\.$"
    )
    with pytest.raises(TrainingDiverged, match=said):
        finished(SMALL, folder=tmp_path / "run", save_epochs=[2])
    assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == ["best.pt", "last.pt"]
    assert load(tmp_path / "run" / "checkpoints" / "last.pt").epoch == 1
    assert len(written_rows(tmp_path / "run")) == 1


def test_inputs_that_are_not_finite_are_noticed(tmp_path, monkeypatch, adam_steps):
    def spoilt(config, split, **options):
        data = load_split(config, split, **options)
        data.inputs[7] = math.nan
        return data

    monkeypatch.setattr(training, "load_split", spoilt)
    with pytest.raises(TrainingDiverged, match=r"^the inputs are not finite in epoch 1, step [123];"):
        finished(SMALL, folder=tmp_path / "run")
    assert len(adam_steps.calls) < STEPS
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_absurd_learning_rate_is_noticed_within_the_epoch(adam_steps):
    with pytest.raises(
        TrainingDiverged,
        match=rf"^the result of layer 'net\.conv2' is not finite \(loss inf\) in epoch 1, step 2{ADVICE}",
    ):
        finished(replace(SMALL, learning_rate=3e37))
    assert len(adam_steps.calls) == 1


def test_an_absurd_learning_rate_is_noticed_after_the_last_step_of_an_epoch(tmp_path):
    config = replace(SMALL, learning_rate=3e37, batch_size=40)
    said = (
        r"^the validation loss is not finite after epoch 1; nothing of this epoch was saved and the last checkpoint is "
        r"good; train anew with a lower learning_rate\.$"
    )
    with pytest.raises(TrainingDiverged, match=said):
        finished(config, folder=tmp_path / "run")
    assert os.listdir(tmp_path / "run") == ["config.json"]
    with pytest.raises(TrainingDiverged, match=said):
        finished(config)


# --- evaluate ---


def small_model(dataset="digits", num_steps=3):
    """A network whose layers all spike."""
    config = RunConfig(dataset=dataset, num_steps=num_steps)
    model = build_network(config, network_of(config))
    inputs = load_data(dataset, "train", num_steps=num_steps, num_examples=50).inputs
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the running statistics become those of this one pass, so that eval mode spikes too
    with torch.no_grad():
        model.train()(inputs)
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


@pytest.mark.parametrize("dataset", ["digits", "event-digits"])
@pytest.mark.parametrize("objective", [None, SDT(), TET(0.5), TRT(strength=0.1)], ids=str)
def test_evaluation_is_that_of_a_plain_loop_with_a_ragged_last_batch(dataset, objective):
    model, data = small_model(dataset), load_data(dataset, "test", num_steps=3, num_examples=50)
    loss, hits = [], 0
    with torch.no_grad():
        for n in range(50):
            logits = model(data.inputs[n : n + 1])
            loss.append(float((objective or SDT())(logits, data.labels[n : n + 1], dict(model.named_parameters()))))
            hits += int(logits.mean(0).argmax() == data.labels[n])
    found = evaluate(model, batches(data, 16), objective)
    assert found.loss == pytest.approx(sum(loss) / 50, rel=1e-5)
    assert (found.accuracy, found.num_examples) == (hits / 50, 50)
    assert evaluate(model, batches(data, 50), objective).loss == pytest.approx(found.loss, rel=1e-5)


def test_firing_rate_is_spikes_per_neuron_timestep_and_example():
    model, data = small_model(), load_data("digits", "test", num_examples=50)
    spikes, places = 0.0, 0
    x = data.inputs.unsqueeze(0).repeat(3, 1, 1, 1, 1)
    with torch.no_grad():
        for layer in model.net:
            x = layer(x)
            if hasattr(layer, "surrogate_function"):
                assert set(x.unique().tolist()) == {0.0, 1.0}
                spikes, places = spikes + float(x.sum()), places + x.numel()
    found = evaluate(model, batches(data, 16))
    assert places == 3 * 50 * (32 * 8 * 8 + 64 * 4 * 4)
    assert found.firing_rate == pytest.approx(spikes / places, rel=1e-9)


def test_a_model_without_spikes_has_no_firing_rate():
    class Plain(nn.Module):
        def forward(self, inputs):
            return inputs.flatten(1)[None, :, :10]

    found = evaluate(Plain(), batches(load_data("digits", "test", num_examples=5), 5))
    assert math.isnan(found.firing_rate)


class Interrupted(Exception):
    pass


def stops_half_way(data):
    yield next(iter(data))
    raise Interrupted


@pytest.mark.parametrize("fails", [False, True])
def test_evaluation_leaves_the_model_as_it_was(fails):
    model, data = small_model(), batches(load_data("digits", "test", num_examples=40), 16)
    model.train()
    model.net.bn2.eval()
    model.net.conv1.weight.requires_grad_(False)
    model.net.conv2.weight.grad = torch.ones_like(model.net.conv2.weight)
    lif = model.net.lif1
    lif.v = torch.full((2, 3), 0.5)
    torch.manual_seed(3)
    random, weights = torch.get_rng_state(), weights_digest(model.state_dict())
    flags = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    grad = model.net.conv2.weight.grad
    if fails:
        with pytest.raises(Interrupted):
            evaluate(model, stops_half_way(data))
    else:
        evaluate(model, data)
    assert weights_digest(model.state_dict()) == weights
    assert [module.training for module in model.modules()] == flags
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert [p.requires_grad for p in model.parameters()] == [False, *[True] * (len(list(model.parameters())) - 1)]
    assert model.net.conv2.weight.grad is grad and torch.equal(grad, torch.ones_like(grad))
    assert model.net.conv1.weight.grad is None
    assert torch.equal(lif.v, torch.full((2, 3), 0.5))
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()


def test_evaluation_builds_no_graph():
    class Watching(SDT):
        def __call__(self, logits, labels, params=None):
            assert not logits.requires_grad
            return super().__call__(logits, labels, params)

    assert (
        evaluate(small_model(), batches(load_data("digits", "test", num_examples=5), 5), Watching()).num_examples == 5
    )


def test_evaluation_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^batches is empty; give at least one batch \(inputs, labels\)\.$"):
        evaluate(small_model(), [])


# --- the first convolution of a static image ---


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_first_convolution_of_a_static_image_runs_once_with_unchanged_results(mode):
    T, N = 5, 7
    data = load_data("digits", "test", num_examples=N)
    model = small_model(num_steps=T).train(mode == "train")
    repeated = from_spikingjelly(copy.deepcopy(model.net), None)
    seen = {name: [] for name in ("conv1", "conv2")}
    for name, found in seen.items():
        model.net.get_submodule(name).register_forward_hook(
            lambda layer, args, out, f=found: f.append(args[0].shape[:-3].numel())
        )
    logits = model(data.inputs)
    assert seen == {"conv1": [N], "conv2": [T * N]}
    assert sum(float(v) for v in logits.detach().std(0).flatten()) > 0  # time matters
    expected = repeated(data.inputs.unsqueeze(1).expand(-1, T, -1, -1, -1))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    for one in (logits, expected):
        F.cross_entropy(one.mean(0), data.labels).backward()
    for (name, p), q in zip(model.net.named_parameters(), repeated.net.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5, msg=name)
    for (name, p), q in zip(model.net.named_buffers(), repeated.net.buffers(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6, msg=name)


def test_a_run_computes_the_first_convolution_once_per_example(monkeypatch):
    counted = {"conv1": 0, "conv2": 0}

    def watched_network(*arguments):
        model = build_network(*arguments)
        for name in counted:

            def note(layer, args, out, name=name):
                counted[name] += args[0].shape[:-3].numel()

            model.net.get_submodule(name).register_forward_hook(note)
        return model

    monkeypatch.setattr(training_state, "build_network", watched_network)
    finished(replace(SMALL, epochs=1, num_steps=3))
    examples = 40 + 179 + 360
    assert counted == {"conv1": examples, "conv2": 3 * examples}


def test_progress_is_told_of_each_epoch_and_its_batches():
    told = []

    def progress(steps, label):
        told.append((label, len(steps)))
        return steps

    finished(replace(SMALL, epochs=2), progress=progress)
    assert told == [("epoch 1/2", STEPS), ("epoch 2/2", STEPS)]


def test_a_run_begun_before_a_key_existed_is_resumed(straight, tmp_path):
    folder = tmp_path / "run"
    interrupted(SMALL, folder, after=2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in ("width", "stages")}))
    state = torch.load(folder / "resume.pt", weights_only=True)
    state.pop("scaler")
    torch.save(state, folder / "resume.pt")
    rest = finished(SMALL, folder=folder, resume=True)
    assert [c.card["sha256"] for c in rest] == [c.card["sha256"] for c in straight.checkpoints[2:]]


def test_an_epoch_whose_every_step_overflows_in_fp16_is_told_and_survives(tmp_path):
    """A loss so large that its scaled gradients leave the range of fp16: no step is taken, the scale is halved."""
    config = replace(SMALL, method="tet", hyperparameters={"mse_weight": 1.0, "mse_target": 300.0}, amp="fp16",
                     epochs=1, train_examples=16, width=0.25, eval_examples=8)  # fmt: skip
    (found,) = finished(config, folder=tmp_path / "run")
    before = build_network(config, network_of(config))
    assert found.card["metrics"]["gradient_norm"] is None and written_rows(tmp_path / "run")[0]["gradient_norm"] == ""
    for name, p in before.named_parameters():
        assert torch.equal(p, found.state_dict[name])


def test_metrics_of_the_first_examples_alone():
    config = replace(SMALL, epochs=1, eval_examples=300)
    (found,) = finished(config)
    row = found.card["metrics"]
    model = build_model(found)
    validation, test = (load_data("digits", split) for split in ("validation", "test"))
    assert row["validation_loss"] == pytest.approx(evaluate(model, batches(validation, 64)).loss)  # it has 179
    expected = evaluate(model, [(test.inputs[:300], test.labels[:300])])
    assert (row["test_loss"], row["test_accuracy"]) == (pytest.approx(expected.loss), expected.accuracy)
    assert (
        len(test) == 360
        and row["train_loss"] == next(train(replace(config, eval_examples=None))).card["metrics"]["train_loss"]
    )
