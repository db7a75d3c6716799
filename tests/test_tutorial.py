"""The lesson in analyses/tutorial.py, run as printed: its files, and that its numbers are those of the trained network."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from commands import whole_file

from snn_probe.data import load as load_data
from snn_probe.results import load
from snn_probe.temporal import from_spikingjelly

SCRIPT = Path(__file__).parents[1] / "analyses" / "tutorial.py"
T = 4


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """Its folder, and the module."""
    folder = tmp_path_factory.mktemp("lesson")
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", str(SCRIPT), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=threads)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(folder / "two_panels.png"), str(folder / "two_panels.pdf")]
    return folder


@pytest.fixture
def tutorial(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import tutorial

    return tutorial


@pytest.fixture
def trained(lesson, tutorial):
    """The network that it ended with, wrapped."""
    net = tutorial.network()
    net.load_state_dict(torch.load(lesson / "weights.pt", weights_only=True))
    return from_spikingjelly(net, num_steps=T).eval()


def results(folder, epoch):
    return [load(folder / f"{probe}-epoch{epoch}.json") for probe in ("fisher_trace", "timestep_accuracy")]


def test_it_leaves_results_weights_and_figures(lesson):
    names = {f"{probe}-epoch{epoch}.json" for probe in ("fisher_trace", "timestep_accuracy") for epoch in ("01", "10")}
    assert {path.name for path in lesson.iterdir()} == {*names, "weights.pt", "two_panels.png", "two_panels.pdf"}
    assert whole_file(lesson / "two_panels.png") and whole_file(lesson / "two_panels.pdf")


def test_its_network_has_learned(lesson):
    """On 256 test digits, whose standard error at 95 % is 1.4 points."""
    (_, early), (_, late) = results(lesson, "01"), results(lesson, "10")
    first, last = (result.table["accuracy"].iloc[-1] for result in (early, late))
    assert first < 0.7 and last > 0.9


def test_its_fisher_traces_are_those_of_a_loop_over_single_examples(lesson, trained):
    """The whole trace of every t from the first 256 training digits, a backward pass for each example and t."""
    table = load(lesson / "fisher_trace-epoch10.json").table
    split = load_data("digits", "train", num_examples=256)
    squares = oracles.fisher_traces(trained, split.inputs, split.labels)
    for t in range(1, T + 1):
        layers = [values for (_, at), values in squares.items() if at == t]
        expected = float(np.mean(np.sum(layers, axis=0)))
        found = table[(table["layer"] == "all") & (table["timestep"] == t)]["trace"].item()
        assert found == pytest.approx(expected, rel=1e-4)


def test_its_accuracies_are_those_of_the_mean_of_the_first_logits(lesson, trained):
    table = load(lesson / "timestep_accuracy-epoch10.json").table
    split = load_data("digits", "test", num_examples=256)
    with torch.no_grad():
        logits = trained(split.inputs)
    for t in range(1, T + 1):
        right = (logits[:t].mean(0).argmax(1) == split.labels).float().mean().item()
        assert table.loc[table["timestep"] == t, "accuracy"].item() == pytest.approx(right, abs=1e-6)


def test_its_figure_shows_the_stored_numbers(lesson, tutorial):
    early, late = results(lesson, "01"), results(lesson, "10")
    figure = tutorial.draw([early[0], late[0]], [early[1], late[1]])
    for ax, column, factor in zip(figure.axes, ("trace", "accuracy"), (1, 100), strict=True):
        lines = {line.get_label(): line for line in ax.get_lines()}
        for result, label in zip((early, late), ("epoch 1", "epoch 10"), strict=True):
            table = next(one.table for one in result if column in one.table)
            rows = table[table["layer"] == "all"] if "layer" in table else table
            np.testing.assert_allclose(lines[label].get_ydata(), factor * rows[column])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["epoch 1", "epoch 10"]
