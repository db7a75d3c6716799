"""A lesson: from a network of your own to a figure of two panels. Half a minute on one core.

    python analyses/tutorial.py [FOLDER]          # default: reports/tutorial

Steps 1 and 2 are what you have already: a network and a loop that trains it. Steps 3 to 6 are all there is to learn.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from snn_probe import probes
from snn_probe.data import load
from snn_probe.drawing import curves as figures
from snn_probe.drawing import over_time as time_figures
from snn_probe.drawing.style import Handles, add_legend, style
from snn_probe.results import Result, combine, save
from snn_probe.temporal import check_temporal, from_spikingjelly

T = 4


# 1. Your network, as you wrote it. For one of snnTorch step 3 says from_snntorch; nothing else changes.
def network() -> nn.Module:
    spikes = {"tau": 2.0, "decay_input": False, "surrogate_function": surrogate.ATan(), "step_mode": "m"}
    net = nn.Sequential(
        layer.Conv2d(1, 16, 3, padding=1, bias=False), layer.BatchNorm2d(16), neuron.LIFNode(**spikes),
        layer.AvgPool2d(2), layer.Flatten(), layer.Linear(16 * 4 * 4, 32), neuron.LIFNode(**spikes),
        layer.Linear(32, 10),  # the logits are what this layer says at every timestep: no neuron behind it
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    return net


# 2. Your training loop, as you wrote it: every image is shown T times, states are reset after every batch.
def train(net: nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    split = load("digits", "train")  # 1258 images (1, 8, 8); any tensors will do
    for chosen in (part for _ in range(epochs) for part in torch.randperm(len(split)).split(64)):
        logits = net(split.inputs[chosen].expand(T, -1, -1, -1, -1))  # (T, N, 10)
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits.mean(0), split.labels[chosen]).backward()
        optimizer.step()
        functional.reset_net(net)


def measure(net: nn.Module, epoch: int, folder: Path) -> list[Result]:
    # 3. Wrap it: inputs (N, ...) to logits (T, N, C), from rest at every call. Streams (N, T, ...) give no num_steps.
    model = from_spikingjelly(net, num_steps=T)
    # 4. Ask whether that is true of it. If not, a ValueError says in one sentence what is wrong and what to do.
    check_temporal(model, load("digits", "train").inputs[:8])
    # 5. Probe. Batches are pairs (inputs, labels) in a fixed order. The source is what figures call a line by.
    found = []
    for probe, split in (probes.fisher_trace, "train"), (probes.timestep_accuracy, "test"):
        examples = load("digits", split, num_examples=256)
        result = probe(model, list(zip(examples.inputs.split(64), examples.labels.split(64), strict=True)))
        found.append(replace(result, source={"run": "tutorial", "epoch": epoch, "config": {"method": "sdt"}}))
        save(found[-1], folder / f"{result.probe}-epoch{epoch:02d}.json")  # snn_probe.results.load reads it again
    return found


# 6. Draw: a panel takes a table and an Axes of matplotlib; combine makes one table of several results.
def draw(traces: list[Result], accuracies: list[Result]) -> Figure:
    with style():
        figure = Figure(figsize=(6.75, 2.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        figures.fisher_trace(combine(traces), left)
        time_figures.timestep_accuracy(combine(accuracies), right)
        add_legend(figure, Handles([left, right]), 6.75)
    return figure


def main(folder: Path) -> None:
    torch.manual_seed(0)
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    train(net, optimizer, epochs=1)
    early = measure(net, 1, folder)
    train(net, optimizer, epochs=9)  # probes leave weights, modes, states and the random state as they were
    late = measure(net, 10, folder)
    torch.save(net.state_dict(), folder / "weights.pt")
    for path in folder / "two_panels.png", folder / "two_panels.pdf":
        draw([early[0], late[0]], [early[1], late[1]]).savefig(path, dpi=300)
        print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "reports/tutorial"))
