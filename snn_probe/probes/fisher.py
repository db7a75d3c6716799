"""Exact empirical Fisher traces for every prefix of the timesteps, from one forward pass per batch.

    I_t = (1/M) sum_m || (1/G) sum_{n in group m} grad_theta log p(y_n | z_n(t)) ||^2,  z_n(t) = (1/t) sum_{s<=t} O_n(s)

(Kim et al., AAAI 2023, arXiv 2211.14406.) G = 1 is the empirical Fisher trace; G > 1 averages gradients over a group
before squaring, which is what published programs compute (about I_t/G plus the squared mean gradient).
"""

import math
import time
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from snn_probe.distributed import dealt, gathered, pooled, together
from snn_probe.parameters import Predicate, trainable
from snn_probe.probes import record
from snn_probe.probes.batching import check_choice, check_whole, device_of, on_device, regrouped
from snn_probe.probes.fisher_plan import Plan, Reading, edge_gradients, forward, parameter_norms, planned
from snn_probe.probes.per_example import Contraction
from snn_probe.probes.timesteps import check_logits
from snn_probe.results import Result
from snn_probe.tables.centroid import information_centroid
from snn_probe.temporal import Batches, probing

__all__ = ["fisher_trace", "information_centroid"]

LABELS = ("true", "sampled")
READOUTS = ("prefix", "instantaneous")


def fisher_trace(
    model: nn.Module,
    batches: Batches,
    *,
    group_size: int = 1,
    labels: str = "true",
    readout: str = "prefix",
    params: Predicate | None = None,
    seed: int = 0,
) -> Result:
    """Trace of the empirical Fisher for t = 1..T and every layer: columns layer, timestep, trace, stderr, n_groups.

    ``layer`` is a module's name, or "all" for their sum; ``stderr`` is the standard error over groups (NaN for one
    group). ``labels``: "true", or "sampled" from the model's own prediction at each t, which estimates the Fisher
    proper (one draw an example, the same random number for every t, from ``seed``). ``readout``: "prefix" reads the
    mean of the first t logits, "instantaneous" the t-th alone. ``params`` selects parameters by name.

    Groups are ``group_size`` consecutive examples whatever the batches; a remainder at the end is left out and
    counted in the settings. No per-example gradient of the whole network is ever held: Linear, Conv and norm layers are
    contracted one by one; small parameters that work element by element, such as a neuron's leak or threshold, get a
    copy for each example; the rest takes a loop over examples, which the settings list as ``looped_layers`` and
    ``looped_parameters``, with their share of the parameters' entries, ``looped_share``. On the first examples all
    but the loop is compared with autograd; a layer that disagrees joins the loop.

    Not the Fisher information matrix, not comparable between different G, and with true labels not the Fisher of the
    model's own distribution. Raises ValueError for a bad argument, a model that breaks the temporal contract, and
    batches that are empty or not finite.
    """
    began = time.perf_counter()
    check_choice("labels", labels, LABELS)
    check_choice("readout", readout, READOUTS)
    check_whole("group_size", group_size, low=1)
    check_whole("seed", seed, low=0)
    read = Reading(group_size=group_size, labels=labels, readout=readout)
    with together(), probing(model):
        chosen = trainable(model, params=params)
        counted = _Counted(on_device(batches, device_of(model)))
        stream = regrouped(iter(counted), group_size)
        first = next(stream, None)
        if first is None:
            raise ValueError(
                f"group_size is {group_size} but there are only {counted.examples} examples; give at least one group."
            )
        plan = planned(model, chosen, *first, read)
        sums = _Sums(plan)
        for inputs, true, uniform in dealt(_with_draws(chain([first], stream), labels, seed)):
            sums.add(_squared_norms(model, chosen, plan, inputs, true, read, uniform))
    sums.pool()
    settings = {
        "group_size": group_size,
        "labels": labels,
        "readout": readout,
        "params": "all trainable" if params is None else sorted(chosen),
        "seed": seed,
        "num_steps": plan.num_steps,
        "num_examples": counted.examples,
        "examples_left_out": counted.examples - sums.groups * group_size,
        "looped_layers": list(plan.looped),
        "looped_parameters": [name for names in plan.looped.values() for name in names],
        "looped_share": plan.looped_share(chosen),
        "one_graph_per_step": plan.unrolled,
    }
    return record.result("fisher_trace", sums.rows(), settings, model=model, began=began)


def _squared_norms(model, chosen, plan: Plan, inputs, labels, read: Reading, uniform) -> Tensor:
    """Squared norms (layers, T, groups) in float64, layers in the plan's order."""
    n = len(inputs)
    groups = n // read.group_size
    steps = forward(model, plan, inputs)
    check_logits(torch.stack([step.detach() for step in steps]), plan.num_steps, labels)
    taken = [
        Contraction(layer, num_steps=plan.num_steps, num_examples=n, group_size=read.group_size)
        for layer in plan.layers
    ] + plan.copied
    squared = torch.zeros(len(plan.owners), plan.num_steps, groups, dtype=torch.float64)
    row = {name: i for i, name in enumerate(plan.owners)}
    for t, logits in enumerate(read.logits(steps)):
        losses = read.losses(logits, labels, uniform)
        if plan.looped:
            for m, group in enumerate(losses.split(read.group_size)):
                for name, value in parameter_norms(group.sum(), chosen, plan.looped, retain=True).items():
                    squared[row[name], t, m] = value
        last = t == plan.num_steps - 1
        gradients = edge_gradients(losses.sum(), plan.quick, retain=not last)
        for layer, one, found in zip(plan.quick, taken, gradients, strict=False):
            norms = one.squared_norms(found)
            if norms is not None:
                squared[row[layer.name], t] = norms.cpu()
    for layer in plan.quick:
        layer.clear()
    return squared


def _with_draws(batches: Iterator[tuple[Tensor, Tensor]], labels: str, seed: int):
    """Each batch with the random numbers of its examples, which follow from their place among all; None if unused."""
    generator = torch.Generator().manual_seed(seed)
    for inputs, true in batches:
        sampled = labels == "sampled"
        yield inputs, true, torch.rand(len(true), generator=generator, dtype=torch.float64) if sampled else None


class _Counted:
    """Passes batches on and counts their examples."""

    def __init__(self, batches: Iterator[tuple[Tensor, Tensor]]):
        self.batches, self.examples = batches, 0

    def __iter__(self):
        for inputs, labels in self.batches:
            self.examples += len(labels)
            yield inputs, labels


class _Sums:
    """Running sums over groups; divided once, at the end."""

    def __init__(self, plan: Plan):
        self.plan, self.groups = plan, 0
        shape = (len(plan.owners) + 1, plan.num_steps)
        self.first, self.second = torch.zeros(2, *shape, dtype=torch.float64)

    def add(self, squared: Tensor) -> None:
        squared = torch.cat([squared, squared.sum(0, keepdim=True)])
        self.first += squared.sum(-1)
        self.second += squared.square().sum(-1)
        self.groups += squared.shape[-1]

    def pool(self) -> None:
        """Add the groups of the other processes."""
        self.first, self.second = pooled(self.first), pooled(self.second)
        self.groups = sum(gathered(self.groups))

    def rows(self) -> list[dict]:
        m = self.groups
        mean = self.first / m
        spread = (self.second - m * mean.square()).clamp_min(0) / (m - 1) if m > 1 else torch.full_like(mean, math.nan)
        stderr = (spread / m).sqrt()
        return [
            {
                "layer": name,
                "timestep": t + 1,
                "trace": float(mean[i, t]),
                "stderr": float(stderr[i, t]),
                "n_groups": m,
            }
            for i, name in enumerate([*self.plan.owners, "all"])
            for t in range(self.plan.num_steps)
        ]
