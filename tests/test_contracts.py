"""What every probe must keep: purity, determinism, independence of the batches' sizes."""

import networks
import pytest
import torch
from spikingjelly.activation_based import surrogate
from test_temporal import same, snapshot
from torch import nn

from snn_probe import probes
from snn_probe.objectives import SDT, TET

PROBES = {
    "fisher_trace": lambda model, batches: probes.fisher_trace(model, batches, labels="sampled"),
    "hessian_eigenvalues": lambda model, batches: probes.hessian_eigenvalues(model, batches, SDT(), k=2, tol=1e-6),
    "hessian_trace": lambda model, batches: probes.hessian_trace(
        model, batches, SDT(), num_probes=3, forward="relaxed"
    ),
    "hessian_density": lambda model, batches: probes.hessian_density(
        model, batches, TET(), num_probes=2, num_steps=5, operator="ggn"
    ),
    "loss_slice": lambda model, batches: probes.loss_slice(
        model, batches, [SDT(), TET()], alphas=(-1.0, 0.0, 1.0), betas=(0.0, 0.5)
    ),
    "spiking_activity": lambda model, batches: probes.spiking_activity(model, batches),
    "temporal_gradient_norms": lambda model, batches: probes.temporal_gradient_norms(model, batches, TET()),
    "timestep_accuracy": lambda model, batches: probes.timestep_accuracy(model, batches),
}
TABLES = {"energy_ratio", "gradient_ratio", "information_centroid"}  # functions of a result, not probes
RENAMED = {"hessian_eigenvectors"}  # the same measurement as hessian_eigenvalues, with the vectors


def test_every_probe_is_listed_here():
    assert set(PROBES) == set(probes.__all__) - TABLES - RENAMED


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
        PROBES[name](model, [networks.examples(2, seed=i) for i in range(12)])
    assert same(before, snapshot(model))
    handle.remove()


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_is_deterministic(name):
    x, y = networks.examples(6)
    tables = [PROBES[name](networks.convolutional(), [(x, y)]).table for _ in range(2)]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("name", PROBES)
def test_any_split_into_batches_gives_the_same_answer(name):
    x, y = networks.examples(6)
    whole, parts = (
        PROBES[name](networks.convolutional(), list(zip(x.split(n), y.split(n), strict=True))) for n in (6, 4)
    )
    assert list(whole.table) == list(parts.table) and len(whole.table) == len(parts.table)
    for column in set(whole.table) - {"products", "residual"}:
        a, b = whole.table[column], parts.table[column]
        if a.dtype.kind == "f":
            assert a.to_numpy() == pytest.approx(b.to_numpy(), rel=1e-7, abs=1e-10, nan_ok=True), column
        else:
            assert a.equals(b), column


class Merged(nn.Module):
    """A static image shown five times; every layer sees (N * T, F), examples first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inward, self.spiking, self.outward = nn.Linear(6, 9), MergedSpikes(), nn.Linear(9, 4)

    def forward(self, inputs):
        repeated = inputs.unsqueeze(1).expand(-1, 5, -1).flatten(0, 1)
        return self.outward(self.spiking(self.inward(repeated))).view(-1, 5, 4).transpose(0, 1)


class MergedSpikes(nn.Module):
    def __init__(self):
        super().__init__()
        self.surrogate_function = surrogate.ATan()

    def forward(self, x):
        v, spikes = 0.0, []
        for current in x.view(-1, 5, x.shape[-1]).unbind(1):
            v = 0.5 * v + current
            spikes.append(self.surrogate_function(v - 0.3))
            v = v * (1 - spikes[-1])
        return torch.stack(spikes, 1).flatten(0, 1)


@pytest.mark.parametrize("name", ["fisher_trace", "spiking_activity", "temporal_gradient_norms"])
def test_merged_examples_first_and_a_first_batch_of_one(name):
    g = torch.Generator().manual_seed(3)
    x, y = 2 * torch.rand(10, 6, generator=g, dtype=torch.float64), torch.randint(0, 4, (10,), generator=g)
    tables = [
        PROBES[name](Merged().double(), list(zip(x.split(n), y.split(n), strict=True))).table for n in ([10], [1, 9])
    ]
    for column in tables[0].select_dtypes("float"):
        assert tables[0][column].to_numpy() == pytest.approx(tables[1][column].to_numpy(), rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", PROBES)
def test_results_say_what_made_them(name):
    result = PROBES[name](networks.convolutional(), [networks.examples(3)])
    assert result.probe == name
    assert result.settings["num_examples"] == 3
    assert result.environment["device"] == "cpu" and result.environment["seconds"] > 0
