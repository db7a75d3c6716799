"""Parameters by name and as one vector."""

import pytest
import torch
from torch import nn

from snn_probe.parameters import flatten, trainable, unflatten


def test_there_and_back():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    params = trainable(model)
    vector = flatten(params)
    assert vector.shape == (11,)
    back = unflatten(vector, params)
    assert list(back) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert all(torch.equal(back[n], params[n]) for n in params)


def test_frozen_and_unselected_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    model[0].bias.requires_grad_(False)
    assert list(trainable(model)) == ["0.weight", "1.weight", "1.bias"]
    assert list(trainable(model, params=lambda name: name.startswith("1"))) == ["1.weight", "1.bias"]


def test_wrong_length():
    with pytest.raises(ValueError, match=r"vector has shape \(3,\); these parameters need \(2,\)"):
        unflatten(torch.zeros(3), {"a": torch.zeros(2)})
