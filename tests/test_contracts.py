"""What every probe must keep: purity, determinism, independence of the batches' sizes."""

import networks
import pytest
import torch
from test_temporal import same, snapshot

from snn_probe import probes

PROBES = {"fisher_trace": lambda model, batches: probes.fisher_trace(model, batches, labels="sampled")}


def test_every_probe_is_listed_here():
    assert set(PROBES) == set(probes.__all__) - {"information_centroid"}


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("num_steps", [None, 4])
def test_a_probe_leaves_no_trace(name, num_steps):
    model = networks.convolutional(num_steps)
    model.net[3].eval()
    model.net[4].weight.requires_grad_(False)
    model.net[0].weight.grad = torch.ones_like(model.net[0].weight)
    before = snapshot(model)
    PROBES[name](model, [networks.examples(4, num_steps)])
    assert same(before, snapshot(model))


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("calls", range(1, 12))
def test_a_probe_that_fails_leaves_no_trace(name, calls):
    """The last layer raises at its n-th use, wherever in the probe that is."""
    model = networks.convolutional()
    count = 0

    def fail(module, args):
        nonlocal count
        count += 1
        if count == calls:
            raise KeyError("planted")

    handle = model.net[-1].register_forward_pre_hook(fail)
    before = snapshot(model)
    with pytest.raises(KeyError, match="planted"):
        PROBES[name](model, [networks.examples(4)])
    assert same(before, snapshot(model))
    handle.remove()


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_is_deterministic(name):
    x, y = networks.examples(6)
    tables = [PROBES[name](networks.convolutional(), [(x, y)]).table for _ in range(2)]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("name", PROBES)
def test_results_say_what_made_them(name):
    result = PROBES[name](networks.convolutional(), [networks.examples(3)])
    assert result.probe == name
    assert result.settings["num_examples"] == 3
    assert result.environment["device"] == "cpu" and result.environment["seconds"] > 0
