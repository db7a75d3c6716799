"""Two processes against one: probes, their commands, training; errors in one of them; the real torchrun."""

import json
import os
import socket
import subprocess
import sys

import networks
import pytest
import torch
import torch.nn.functional as F
import two_processes
from commands import SMALL, run
from two_processes import PROBES, RUN, SIZES

from snn_probe import distributed, probes
from snn_probe.config import RunConfig, derived_seed
from snn_probe.data import batches, load
from snn_probe.evaluation import evaluate
from snn_probe.objectives import SDT
from snn_probe.system import build_network, network_of
from snn_probe.training import train

VARYING = {"products", "residual"}  # how an iteration went, not what it found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a checkpoint in ``run``."""
    folder = tmp_path_factory.mktemp("processes")
    run("train", "--method", "tet", "--out", folder / "checkpoint", *SMALL)
    return folder


@pytest.fixture(scope="module")
def checkpoint(place):
    return place / "checkpoint" / "checkpoints" / "last.pt"


@pytest.fixture(scope="module")
def both(place, checkpoint):
    """What each of the two processes found; see two_processes."""
    return two_processes.both(place, checkpoint)


def equal(found, wanted, *, within=1e-10):
    """The same table, numbers up to ``within`` (relative, and absolute below 1)."""
    assert list(found) == list(wanted) and len(found) == len(wanted) > 0
    for column in set(wanted) - VARYING:
        a, b = found[column], wanted[column]
        if b.dtype.kind == "f":
            assert a.to_numpy() == pytest.approx(b.to_numpy(), rel=within, abs=within, nan_ok=True), column
        else:
            assert a.equals(b), column


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", PROBES)
def test_two_processes_give_the_answer_of_one_and_both_know_it(both, name, sizes):
    alone = PROBES[name](networks.convolutional(), two_processes.batches(SIZES[sizes]))
    for found in both:
        together = found[name, sizes]
        equal(together["table"], alone.table)
        assert together["pure"]
        assert together["environment"]["processes"] == 2 and alone.environment["processes"] == 1
        for key, value in alone.settings.items():
            assert together["settings"][key] == pytest.approx(value, abs=1e-6) if key in ("asymmetry", "broadening") \
                else together["settings"][key] == value, key  # fmt: skip
    assert both[0][name, sizes]["table"].equals(both[1][name, sizes]["table"])  # to the last bit


@pytest.mark.parametrize("name", two_processes.SEVERAL)
def test_each_process_does_a_part_of_the_work(both, name):
    alone = two_processes.calls(PROBES[name])
    assert all(found[name, "calls"] < alone for found in both)


@pytest.mark.parametrize("name", ["fisher", "one eigenvalue"])
def test_in_single_precision_they_agree_to_a_millionth(both, name):
    examples = two_processes.batches((4, 3, 3), dtype=torch.float32)
    alone = PROBES[name](networks.convolutional(double=False), examples)
    equal(both[0][name, "single precision"]["table"], alone.table, within=1e-6)


def test_the_second_process_has_batches_of_its_own_that_count(both):
    """With the first process's batches alone the answer is another, so equality says that all are there."""
    every = two_processes.batches(SIZES["ragged"])
    for name in ("fisher", "gradients", "timesteps", "activity", "landscape", "trace"):
        half = PROBES[name](networks.convolutional(), every[::2]).table
        column = {"fisher": "trace", "gradients": "norm", "activity": "energy_pj"}.get(name) or half.columns[-2]
        column = "loss" if "loss" in half else "trace" if name == "trace" else column
        found = both[0][name, "ragged"]["table"][column]
        assert (half[column] - found).abs().max() > 1e-4 * found.abs().max(), name


@pytest.mark.parametrize("name", two_processes.SEVERAL)
def test_an_error_in_one_process_ends_the_probe_in_both(both, name):
    """Batches 2 and 3 are those of the first and of the second process."""
    for (kind, bad), first in both[0][name, "failing"].items():
        second = both[1][name, "failing"][kind, bad]
        assert first["pure"] and second["pure"]
        if kind == "error":
            own = ["KeyError: 'planted'", f"RuntimeError: Process {bad - 2} stopped with KeyError: 'planted'"]
            assert [first["error"], second["error"]] == (own if bad == 2 else own[::-1])
        elif name == "landscape":  # the loss stays as measured
            assert not first["table"]["finite"].any() and second["table"].equals(first["table"])
        else:
            assert first["error"] == second["error"] and "not finite" in first["error"]


def test_a_slice_goes_on_from_what_the_first_process_knows_and_that_alone_saves(both):
    table, fresh, saved = both[0]["resumed"]
    wanted = probes.loss_slice(networks.convolutional(), two_processes.batches((3, 3, 2)), [SDT()],
                               alphas=(0.0, 1.0, 0.5, 2.0), seed=2).table.set_index("alpha")["loss"]  # fmt: skip
    assert table["loss"].tolist() == [pytest.approx(wanted[0.0], rel=1e-10), 123.0]
    assert fresh["loss"].tolist() == pytest.approx([wanted[0.5], wanted[2.0]], rel=1e-10)
    other_table, other_fresh, other_saved = both[1]["resumed"]
    assert other_table.equals(table) and other_fresh.equals(fresh)
    assert saved >= 1 and other_saved == 0


def test_a_probe_that_one_process_calls_by_itself_measures_all_it_is_given(both):
    alone = PROBES["timesteps"](networks.convolutional(), two_processes.batches((3, 2)))
    equal(both[1]["alone"]["table"], alone.table, within=0.0)
    assert both[0]["members outside"] == both[1]["members outside"] == 1


def test_without_other_processes_dealing_changes_nothing():
    with distributed.dealing():
        assert (distributed.members(), distributed.leads()) == (1, True)
        found = PROBES["trace"](networks.convolutional(), two_processes.batches((3, 2)))
        with pytest.raises(ValueError, match="planted"), distributed.together():
            raise ValueError("planted")
    equal(found.table, PROBES["trace"](networks.convolutional(), two_processes.batches((3, 2))).table, within=0.0)


def test_commands_of_two_processes_write_the_files_of_one_once(both, place, checkpoint):
    printed = two_processes.all_commands(checkpoint, place / "one")
    wanted, found = (
        sorted(path.relative_to(place / folder) for path in (place / folder).rglob("*") if path.is_file())
        for folder in ("one", "two")
    )
    assert len(wanted) == 8 and wanted == found
    for path in wanted:
        if path.suffix == ".json":
            one, two = (json.loads((place / folder / path).read_text()) for folder in ("one", "two"))
            close(two["table"], one["table"], str(path))
            assert two["settings"]["num_examples"] == 12 and two["source"] == one["source"]
            assert (one["environment"]["processes"], two["environment"]["processes"]) == (1, 2)
    for name, said in printed.items():
        if name != "activity":  # prints seconds
            assert both[0]["commands"][name] == said.replace(str(place / "one"), str(place / "two")), name
        assert len(both[1]["commands"][name].splitlines()) <= 1, name


def close(found, wanted, where):
    """Equal tables as JSON, numbers to a millionth."""
    assert found.keys() == wanted.keys()
    for column, values in wanted.items():
        for a, b in zip(found[column], values, strict=True):
            if column not in VARYING:
                assert a == (pytest.approx(b, rel=1e-6, abs=1e-6) if isinstance(b, float) else b), (where, column)


def test_a_command_that_cannot_write_fails_in_both(both):
    for rank, found in enumerate(both):
        prefix = "Error: Process 0 stopped with OSError: " if rank else "Error: "
        assert found["failing command"].startswith(f"{prefix}cannot write")


def trained_by_hand(worlds):
    """Weights and metrics of each epoch, ``worlds[e]`` processes simulated one after the other in epoch e.

    Each process's share of a batch goes through a network of the same weights and the first one's batch-norm
    statistics; gradients are averaged, weighted by the shares; Adam follows the cosine.
    """
    config = RunConfig(**RUN)
    model = build_network(config, network_of(config)).train()
    objective, params = config.schedule()[0].objective(), dict(model.named_parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    data, found = load("digits", "train", num_examples=config.train_examples), []
    for epoch, world in enumerate(worlds):
        generator = torch.Generator().manual_seed(derived_seed(config.seed, f"order of epoch {epoch + 1}"))
        optimizer.param_groups[0]["lr"] = config.learning_rate * (1.0, 0.5)[epoch]
        row = {"objective": 0.0, "train_loss": 0.0, "train_accuracy": 0.0}
        for indices in torch.randperm(len(data), generator=generator).split(config.batch_size):
            total, statistics = [torch.zeros_like(p) for p in params.values()], {}
            before = {name: b.clone() for name, b in model.named_buffers()}
            for rank in range(world):
                own = indices[rank::world]
                if len(own) == 0:
                    continue
                for name, b in model.named_buffers():
                    b.copy_(before[name])
                inputs, labels = data.take(own)
                logits = model(inputs)
                loss = objective(logits, labels, params)
                gradients = torch.autograd.grad(loss * len(own) / len(indices), list(params.values()))
                total = [a + g for a, g in zip(total, gradients, strict=True)]
                statistics = statistics or {name: b.clone() for name, b in model.named_buffers()}
                mean, share = logits.mean(0), len(own) / len(data)
                row["objective"] += loss.item() * share
                row["train_loss"] += F.cross_entropy(mean, labels).item() * share
                row["train_accuracy"] += (mean.argmax(-1) == labels).float().mean().item() * share
            for name, b in model.named_buffers():
                b.copy_(statistics[name])
            for p, g in zip(params.values(), total, strict=True):
                p.grad = g
            optimizer.step()
        for split in ("validation", "test"):
            seen = evaluate(model, batches(load("digits", split), 256))
            row |= {f"{split}_loss": seen.loss, f"{split}_accuracy": seen.accuracy}
        found.append((row, {name: t.clone() for name, t in model.state_dict().items()}))
    return found


def same_training(epochs, wanted):
    for (metrics, weights, _), (row, hand) in zip(epochs, wanted, strict=True):
        for name, value in row.items():
            assert metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
        for name, tensor in hand.items():
            assert torch.allclose(weights[name], tensor, rtol=1e-4, atol=1e-5), name


def test_training_with_two_processes_is_what_two_simulated_by_hand_give(both):
    wanted = trained_by_hand([2, 2])
    for found in both:
        same_training(found["trained"]["epochs"], wanted)
        assert [processes for *_, processes in found["trained"]["epochs"]] == [2, 2]
    alone = trained_by_hand([1, 1])  # batch norm makes it another network, so equality above says something
    assert not torch.allclose(wanted[-1][1]["net.conv1.weight"], alone[-1][1]["net.conv1.weight"], atol=1e-4)


def test_each_example_is_seen_once_per_epoch_by_one_process(both):
    first, second = (found["trained"]["shares"] for found in both)
    seen, examples = [], RUN["train_examples"]
    for (batch, own, factor), (other_batch, other_own, other_factor) in zip(first, second, strict=True):
        assert torch.equal(batch, other_batch) and factor + other_factor == pytest.approx(2.0)
        seen += [*own.tolist()] * (factor > 0) + [*other_own.tolist()] * (other_factor > 0)
    assert len(seen) == 2 * examples
    assert sorted(seen[:examples]) == sorted(seen[examples:]) == list(range(examples))


def test_both_processes_report_the_metrics_of_all_examples_and_one_folder_is_written(both, place):
    first, second = ([{**m, "seconds": 0} for m, *_ in found["trained"]["epochs"]] for found in both)
    assert first == second
    written = sorted(path.name for path in (place / "run").rglob("*") if path.is_file())
    assert written == ["best.pt", "config.json", "last.pt", "metrics.csv", "resume.previous.pt", "resume.pt"]
    assert len((place / "run" / "metrics.csv").read_text().splitlines()) == 1 + RUN["epochs"]


def test_a_run_goes_on_with_another_number_of_processes(both, place):
    two_to_one = trained_by_hand([2, 1])
    epochs = train(RunConfig(**RUN), folder=place / "from two to one", resume=True)
    same_training([(c.card["metrics"], c.state_dict, None) for c in epochs], two_to_one[1:])
    for found in both:
        same_training(found["from one to two"]["epochs"], trained_by_hand([1, 2])[1:])


def test_a_folder_that_is_taken_stops_both(both):
    for found in both:
        assert found["taken"]["error"].startswith("ValueError: ") and "already holds a run" in found["taken"]["error"]


def test_a_command_under_torchrun(place, checkpoint):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "snn_probe"]
    given = ["timesteps", checkpoint, "--num-examples", 12, "--batch-size", 5, "--no-figure", "--out"]
    command = [str(part) for part in [*launch, *given, place / "torchrun"]]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("t=2: accuracy") == 1 and done.stdout.count("timesteps_last.json") == 1
    found = json.loads((place / "torchrun" / "timesteps_last.json").read_text())
    run(*given, place / "plain")
    close(found["table"], json.loads((place / "plain" / "timesteps_last.json").read_text())["table"], "torchrun")
    assert found["environment"]["processes"] == 2


ENDING = """
import os, sys
from pathlib import Path
from snn_probe.cli import main
try:
    main()
except SystemExit as stopped:
    threads = [Path("/proc/self/task", t, "comm").read_text() for t in os.listdir("/proc/self/task")]
    print("threads", sum("gloo" in name for name in threads), flush=True)
    raise
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="the names of threads are read from /proc")
@pytest.mark.parametrize(
    "given", [["timesteps", "--num-examples", "4"], ["train", *map(str, SMALL)]], ids=["timesteps", "train"]
)
def test_nothing_of_the_group_is_left_when_a_command_ends(given, tmp_path, checkpoint):
    """Its threads would abort the program, now and then, while Python ends."""
    given = [*given, str(checkpoint)] if given[0] == "timesteps" else given
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    command = [sys.executable, "-c", ENDING, *given, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | alone, timeout=120)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "threads 0", done.stdout + done.stderr


def _free_port():
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]
