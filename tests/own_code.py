"""Modules that a user might write, for the tests of what is named as package.module:name."""

import sys

import pytest

NETWORK = """
from pathlib import Path
import torch
from torch import nn
from spikingjelly.activation_based import layer, neuron, surrogate
from snn_probe.temporal import from_spikingjelly

Path("imported").write_text("the module ran")


def build(num_steps, num_classes, input_shape):
    features = input_shape[0] * input_shape[1] * input_shape[2]
    lif = neuron.LIFNode(decay_input=False, v_threshold=0.5, surrogate_function=surrogate.ATan())
    net = nn.Sequential(layer.Flatten(), layer.Linear(features, 12), lif, layer.Linear(12, num_classes))
    return from_spikingjelly(net, num_steps)


network = nn.Linear(2, 2)
number = 3


def raises():
    raise KeyError("hidden")


def needs(hidden):
    return nn.Linear(hidden, 2)


def no_module():
    return 3


def without_time(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))


def another_size(num_steps, num_classes):
    return build(num_steps, num_classes, (1, 4, 4))


class Linear(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = nn.Linear(3, num_classes)

    def forward(self, x):
        return self.layer(x)


def nine_classes(num_steps, input_shape):
    return build(num_steps, 9, input_shape)
"""

DATA = """
import numpy as np
import torch
from torch.utils.data import TensorDataset


def examples(n, seed, *shape):
    x = torch.rand(n, *shape or (1, 8, 8), generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(n) % 4


def load():
    return {"train": examples(40, 1), "test": examples(12, 2), "classes": ["a", "b", "c", "d"]}


def changed(**given):
    return {**load(), **given}


def streams(num_steps):
    return {"train": examples(40, 1, num_steps, 2, 4, 4), "test": examples(12, 2, num_steps, 2, 4, 4)}


def five_frames():
    return streams(5)


def datasets():
    return {split: TensorDataset(*pair) for split, pair in load().items() if split != "classes"}


def arrays():
    return {split: (x.numpy().astype("float64"), y.numpy().astype("int32")) for split, (x, y) in
            (pair for pair in load().items() if pair[0] != "classes")}


def raises():
    raise OSError("no such disk")


def pair():
    return examples(4, 1)


def unknown_key():
    return changed(valid=examples(4, 1))


def out_of_range():
    return changed(test=(examples(4, 1)[0], torch.tensor([0, 1, 2, 4])))


def negative():
    return changed(test=(examples(4, 1)[0], torch.tensor([0, 1, 2, -1])))


def float_labels():
    return changed(train=(examples(4, 1)[0], torch.rand(4)))


def one_hot():
    return changed(train=(examples(4, 1)[0], torch.eye(4).long()))


def lengths():
    return changed(train=(examples(4, 1)[0], torch.arange(3)))


def nan():
    return changed(train=(torch.full((4, 1, 8, 8), float("nan")), torch.arange(4)))


def other_shapes():
    return changed(test=examples(4, 1, 1, 4, 4))


def one_class():
    return {"train": (examples(4, 1)[0], torch.zeros(4).long())}


def iterator():
    return changed(train=iter([]))


def broken_dataset():
    return changed(train=[(torch.rand(1, 8, 8), 0), (torch.rand(1, 4, 4), 1)])


def words():
    return changed(classes="abcd")


def temporal_word():
    return changed(temporal="yes")


def train_alone():
    return {"train": examples(40, 1)}
"""


@pytest.fixture(name="place")
def own_place(tmp_path, monkeypatch):
    """The current folder, with mynet.py and mydata.py in it that nobody has imported yet."""
    (tmp_path / "mynet.py").write_text(NETWORK)
    (tmp_path / "mydata.py").write_text(DATA)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("snn_probe.own._allowed", {})
    own = ("mynet", "mydata", "broken", "leaving", "lacking", "own_objective")
    for name in own:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name in own:
        sys.modules.pop(name, None)
    from snn_probe.data.own import _called

    _called.cache_clear()
