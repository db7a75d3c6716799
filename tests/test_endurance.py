"""Long work: memory that does not grow or is short, numbers that are not finite, the same bytes from the same seed."""

import gc
import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from commands import SMALL as OPTIONS
from commands import run
from networks import convolutional
from test_training import SMALL
from two_processes import batches

from snn_probe import probes, results
from snn_probe.checkpoint import load
from snn_probe.data import load as load_data
from snn_probe.machine.allocation import hand_back
from snn_probe.machine.determinism import deterministically
from snn_probe.machine.memory import halving, out_of_memory
from snn_probe.objectives import SDT
from snn_probe.runs.state import TrainingState
from snn_probe.runs.step import TrainingDiverged
from snn_probe.system import network_of
from snn_probe.training import train

MB = 2**20


def resident():
    """Bytes of this process's memory that are in use."""
    gc.collect()
    hand_back()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def grows(sizes):
    """Whether memory grew between every two of these moments by more than a megabyte. What piles up grows in each
    stretch; the allocator's arenas and caches that fill grow by more than that, but once."""
    return min(later - earlier for earlier, later in pairwise(sizes)) > MB


def test_memory_that_piles_up_is_told_from_a_cache_that_fills():
    kept, sizes = [], []
    for number in range(4):
        kept.append(torch.zeros(MB // 2).fill_(number))  # 2 MB
        sizes.append(resident())
    assert grows(sizes)
    assert not grows([0, 40 * MB, 40 * MB, 40 * MB])


def test_two_hundred_epochs_take_no_more_memory_than_fifty(tmp_path):
    config = replace(SMALL, epochs=200, train_examples=16, num_steps=1, width=0.25, eval_examples=4)
    numbered = enumerate(train(config, folder=tmp_path / "run"), 1)
    sizes = [resident() for number, _ in numbered if number % 50 == 0]
    assert len(sizes) == 4 and not grows(sizes), sizes


def test_five_hundred_points_take_no_more_memory_than_a_hundred():
    model = convolutional(double=False)
    examples = batches((4,), dtype=torch.float32)
    sizes = []

    def watched(points, label):
        for number, point in enumerate(points):
            if number and number % 100 == 0:
                sizes.append(resident())
            yield point

    axis = torch.linspace(-1, 1, 500).tolist()
    found = probes.loss_slice(model, examples, [SDT()], alphas=axis, progress=watched)
    assert len(found.table) == 500
    assert len(sizes) == 4 and not grows(sizes), sizes


# --- too little memory ---


SHORT = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
    "python": MemoryError(),
    "another process": RuntimeError("Process 1 stopped with OutOfMemoryError: CUDA out of memory."),
}


@pytest.mark.parametrize("error", SHORT)
def test_batches_are_halved_until_the_memory_holds_them(caplog, error):
    tried = []

    def work(size):
        tried.append(size)
        if size > 12:
            raise SHORT[error]
        return size

    assert halving(work, 100, "fisher last") == 12 and tried == [100, 50, 25, 12]
    assert caplog.messages == [
        f"fisher last: the memory does not hold {a} examples at a time; {b} give the same answer."
        for a, b in ((100, 50), (50, 25), (25, 12))
    ]


def test_other_errors_and_a_single_example_that_is_too_large_are_not_hidden():
    def broken(size):
        raise RuntimeError("something else")

    def short(size):
        raise SHORT["cuda"]

    with pytest.raises(RuntimeError, match="something else"):
        halving(broken, 8, "x")
    with pytest.raises(torch.OutOfMemoryError):
        halving(short, 8, "x")
    assert not out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize("probe", ["fisher", "landscape", "timesteps", "hessian"])
def test_a_probe_with_too_little_memory_gives_the_same_answer(checkpoint, tmp_path, monkeypatch, probe):
    from snn_probe.commands import measuring

    few = ["--num-examples", 24, "--batch-size", 16, "--no-figure"]
    few += {"landscape": ["--points", 3], "hessian": ["-k", 1, "--tol", 0.01]}.get(probe, [])
    run(probe, checkpoint, *few, "--out", tmp_path / "wide")
    original = measuring.batches

    class Narrow:
        """Batches of which the memory holds six examples."""

        def __init__(self, data, size):
            self.batches = original(data, size)

        def __len__(self):
            return len(self.batches)

        def __iter__(self):
            for inputs, labels in self.batches:
                if len(labels) > 6:
                    raise SHORT["cpu"]
                yield inputs, labels

    monkeypatch.setattr(measuring, "batches", Narrow)
    done = run(probe, checkpoint, *few, "--out", tmp_path / "narrow")
    assert "the memory does not hold 16 examples at a time; 8 give the same answer." in done.stderr
    assert "the memory does not hold 8 examples at a time; 4 give the same answer." in done.stderr
    for file in (tmp_path / "wide").glob("*.json"):
        one, other = results.load(file), results.load(tmp_path / "narrow" / file.name)
        for name in set(one.table.columns) - {"residual", "products"}:
            if one.table[name].dtype.kind == "f":
                wanted = one.table[name].to_numpy()
                assert other.table[name].to_numpy() == pytest.approx(wanted, rel=1e-4, abs=1e-6, nan_ok=True), name
            else:
                assert one.table[name].equals(other.table[name]), name


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run("train", *OPTIONS, "--eval-examples", 16, "--out", folder / "run")
    return folder / "run" / "checkpoints" / "last.pt"


# --- numbers that are not finite ---


def spoilt_layer(name):
    """A training step of a network in which the result of a layer becomes infinite."""
    state = TrainingState(SMALL, network_of(SMALL), [], torch.device("cpu"))
    layer = state.step.model.get_submodule(name)
    layer.register_forward_hook(lambda module, given, result: result * float("inf"))
    return state


@pytest.mark.parametrize("name", ["net.classifier", "net.conv2"])
def test_the_layer_in_which_numbers_became_infinite_is_named(name):
    state = spoilt_layer(name)
    data = load_data("digits", "train", num_steps=SMALL.num_steps, num_examples=16)
    inputs, labels = data.take(torch.arange(16))
    modules = dict(state.step.model.named_modules())
    assert name in modules
    before = [parameter.clone() for parameter in state.step.model.parameters()]
    with state.step.ready(), pytest.raises(TrainingDiverged, match=rf"^the result of layer '{name}' is not finite"):
        state.step(inputs, labels, 1.0, where="epoch 2, step 3")
    assert all(torch.equal(*pair) for pair in zip(before, state.step.model.parameters(), strict=True))


def test_inputs_that_are_not_finite_are_called_so():
    state = spoilt_layer("net.classifier")
    with (
        state.step.ready(),
        pytest.raises(TrainingDiverged, match=r"^the inputs are not finite .* in epoch 1, step 1;"),
    ):
        state.step(
            torch.full((4, 1, 8, 8), float("nan")), torch.zeros(4, dtype=torch.int64), 1.0, where="epoch 1, step 1"
        )


def huge(examples=16, size=3e5):
    """A network and inputs that float32 holds, and float16 does not."""
    config = replace(SMALL, amp="fp16")
    data = load_data("digits", "train", num_steps=config.num_steps, num_examples=examples)
    inputs, labels = data.take(torch.arange(examples))
    return TrainingState(config, network_of(config), [], torch.device("cpu")), inputs * size, labels


def test_an_overflow_of_fp16_in_the_forward_is_told_apart_at_its_step_and_layer():
    state, inputs, labels = huge()
    before = [parameter.clone() for parameter in state.step.model.parameters()]
    said = (
        r"^the result of layer 'net\.conv1' is not finite in epoch 1, step 1; the step was not taken and float32 holds "
        r"what float16 does not; train anew with amp bf16 or off, or smaller inputs\.$"
    )
    with state.step.ready(), pytest.raises(TrainingDiverged, match=said):
        state.step(inputs, labels, 1.0, where="epoch 1, step 1")
    assert all(torch.equal(*pair) for pair in zip(before, state.step.model.parameters(), strict=True))
    state, inputs, labels = huge(size=1.0)
    with state.step.ready():
        state.step(inputs, labels, 1.0, where="epoch 1, step 1")


def test_what_float32_does_not_hold_either_is_no_matter_of_fp16():
    state, inputs, labels = huge(size=1.0)
    layer = state.step.model.get_submodule("net.classifier")
    layer.register_forward_hook(lambda module, given, result: result * float("inf"))
    with state.step.ready(), pytest.raises(TrainingDiverged, match=r"'net\.classifier' is not finite .* learning_rate"):
        state.step(inputs, labels, 1.0, where="epoch 1, step 1")


# --- the same bytes ---


def without_times(text):
    def less(value):
        if isinstance(value, dict):
            return {key: less(one) for key, one in value.items() if key not in ("seconds", "date")}
        return [less(one) for one in value] if isinstance(value, list) else value

    return json.dumps(less(json.loads(text)))


def test_the_same_seed_gives_the_same_bytes_apart_from_times(tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / name
        run("train", *OPTIONS, "--augment", "--deterministic", "--out", folder / "run")
        last = folder / "run" / "checkpoints" / "last.pt"
        small = ["--num-examples", 12, "--no-figure", "--deterministic", "--out", folder]
        run("fisher", last, *small)
        run("landscape", last, "--points", 3, *small)
    for file in ("fisher_last.json", "landscape_last.json"):
        texts = [(tmp_path / name / file).read_text() for name in ("one", "two")]
        assert without_times(texts[0]) == without_times(texts[1])
        assert json.loads(texts[0])["environment"]["deterministic"] is True
    assert load(last).card["environment"]["deterministic"] is True
    assert not torch.are_deterministic_algorithms_enabled()


def test_deterministic_sets_what_cuda_needs_and_puts_it_back(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with deterministically():
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.benchmark
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
