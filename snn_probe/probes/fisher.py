"""Exact empirical Fisher traces for every prefix of the timesteps, from one forward pass per batch.

    I_t = (1/M) sum_m || (1/G) sum_{n in group m} grad_theta log p(y_n | z_n(t)) ||^2,  z_n(t) = (1/t) sum_{s<=t} O_n(s)

(Kim et al., AAAI 2023, arXiv 2211.14406.) G = 1 is the empirical Fisher trace; G > 1 averages gradients over a group
before squaring, which is what published programs compute (about I_t/G plus the squared mean gradient).
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_probe.centroid import information_centroid
from snn_probe.distributed import dealt, gathered, pooled, together
from snn_probe.parameters import Predicate, trainable
from snn_probe.probes import record
from snn_probe.probes.batching import check_choice, check_whole, device_of, on_device, regrouped
from snn_probe.probes.per_example import Contraction, Layer, own_parameters, recorded, settle_layout, supported
from snn_probe.results import Result
from snn_probe.temporal import Batches, check_temporal, probing, unrolled

__all__ = ["fisher_trace", "information_centroid"]

LABELS = ("true", "sampled")
READOUTS = ("prefix", "instantaneous")
_CHECKED_EXAMPLES = 2  # how many examples of the first batch the run-time checks use


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
    counted in the settings. No per-example gradient of the whole network is ever held: Linear, Conv and BatchNorm
    layers are contracted one by one, others take a loop over examples (listed in the settings as ``looped_layers``).
    On the first examples the contractions are compared with autograd; a layer that disagrees joins the loop.

    Not the Fisher information matrix, not comparable between different G, and with true labels not the Fisher of the
    model's own distribution. Raises ValueError for a bad argument, a model that breaks the temporal contract, and
    batches that are empty or not finite.
    """
    began = time.perf_counter()
    check_choice("labels", labels, LABELS)
    check_choice("readout", readout, READOUTS)
    check_whole("group_size", group_size, low=1)
    read = _Reading(group_size=group_size, labels=labels, readout=readout)
    with together(), probing(model):
        chosen = trainable(model, params=params)
        counted = _Counted(on_device(batches, device_of(model)))
        stream = regrouped(counted, group_size)
        first = next(stream, None)
        if first is None:
            raise ValueError(
                f"group_size is {group_size} but there are only {counted.examples} examples; give at least one group."
            )
        plan = _plan(model, chosen, *first, read)
        sums = _Sums(plan)
        for inputs, targets, uniform in dealt(_with_draws(chain([first], stream), labels, seed)):
            sums.add(_squared_norms(model, chosen, plan, inputs, targets, read, uniform))
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
        "one_graph_per_step": plan.unrolled,
    }
    return record.result("fisher_trace", sums.rows(), settings, model=model, began=began)


@dataclass(frozen=True)
class _Reading:
    group_size: int
    labels: str
    readout: str

    def logits(self, steps: tuple[Tensor, ...]) -> list[Tensor]:
        """What is read out at t = 1..T, each (N, C)."""
        if self.readout == "instantaneous":
            return list(steps)
        read, total = [], None
        for t, step in enumerate(steps, 1):
            total = step if total is None else total + step
            read.append(total / t)
        return read

    def losses(self, logits: Tensor, labels: Tensor, uniform: Tensor | None) -> Tensor:
        """Per example -log p(label)/G (N,): its gradients, summed over a group, are the group's mean gradient."""
        if uniform is not None:
            cumulative = logits.detach().double().softmax(-1).cumsum(-1)
            labels = (cumulative < uniform.to(logits.device).unsqueeze(-1)).sum(-1).clamp_max(logits.shape[-1] - 1)
        return F.cross_entropy(logits, labels, reduction="none") / self.group_size


@dataclass
class _Plan:
    """What the run-time checks settled: T, the way forward is run, and how each layer is taken."""

    num_steps: int
    unrolled: bool
    layers: list[Layer]
    looped: dict[str, list[str]]  # module name -> parameter names
    order: list[str]


def _plan(model: nn.Module, chosen: dict[str, Tensor], inputs: Tensor, labels: Tensor, read: _Reading) -> _Plan:
    num_steps = check_temporal(model, inputs[:_CHECKED_EXAMPLES])
    n = -(-_CHECKED_EXAMPLES // read.group_size) * read.group_size
    n += read.group_size * (n == num_steps)  # so that shapes tell examples from timesteps
    index = torch.arange(n, device=labels.device) % len(labels)
    inputs, labels = inputs[index], labels[index]
    owners = own_parameters(model, chosen)
    modules = dict(model.named_modules())
    fast = [name for name, names in owners.items() if supported(modules[name], names, model)]
    layers = [Layer(name, modules[name], frozenset(p.rpartition(".")[2] for p in owners[name])) for name in fast]
    plan = _Plan(num_steps, False, layers, {}, [name or owners[name][0] for name in owners])
    plan.unrolled = _unrolls(model, inputs)
    steps = _forward(model, plan, inputs)
    losses = read.losses(read.logits(steps)[-1], labels, None)
    exact = _parameter_norms(losses[: read.group_size].sum(), chosen, owners, retain=True)
    total = sum(exact.values())
    lone = list(_output_gradients(losses[0], layers, retain=True))  # in all layers before the next pass
    for layer, gradients in zip(layers, _output_gradients(losses.sum(), layers, retain=False), strict=True):
        first = lone[layers.index(layer)]
        if not _agrees(layer, first, gradients, exact[layer.name], total, plan, n, read):
            plan.looped[layer.name] = owners[layer.name]
    for name in owners:
        if name not in fast:
            plan.looped[name] = owners[name]
    plan.layers = [layer for layer in layers if layer.name not in plan.looped]
    for layer in layers:
        layer.clear()
    return plan


def _unrolls(model: nn.Module, inputs: Tensor) -> bool:
    """Whether the step-by-step forward exists and gives the model's own logits.

    A spike at the threshold may flip between the two orders of summation, so not every example has to agree.
    """
    with torch.no_grad():
        steps = unrolled(model, inputs)
        if steps is None or any(step.shape != steps[0].shape for step in steps):
            return False
        whole, steps = model(inputs), torch.stack(steps)
        if whole.shape != steps.shape:
            return False
        apart = (whole - steps).abs().amax((0, 2))
        return bool(apart.median() <= 1e-4 * whole.abs().max())


def _parameter_norms(loss: Tensor, chosen: dict[str, Tensor], owners: dict[str, list[str]], *, retain: bool):
    names = [name for group in owners.values() for name in group]
    gradients = torch.autograd.grad(loss, [chosen[n] for n in names], retain_graph=retain, allow_unused=True)
    squared = {n: 0.0 if g is None else float(g.double().square().sum()) for n, g in zip(names, gradients, strict=True)}
    return {module: sum(squared[name] for name in group) for module, group in owners.items()}


def _agrees(layer: Layer, first, gradients, exact: float, total: float, plan: _Plan, n: int, read: _Reading) -> bool:
    try:
        settle_layout(layer, first, num_steps=plan.num_steps, num_examples=n)
        found = Contraction(layer, num_steps=plan.num_steps, num_examples=n, group_size=read.group_size).squared_norms(
            gradients
        )
    except ValueError:
        return False
    value = 0.0 if found is None else float(found[0])
    double = next(layer.module.parameters()).dtype == torch.float64
    return abs(value - exact) <= (1e-8 if double else 1e-3) * exact + 1e-12 * total


def _forward(model: nn.Module, plan: _Plan, inputs: Tensor) -> tuple[Tensor, ...]:
    with recorded(plan.layers):
        return unrolled(model, inputs) if plan.unrolled else model(inputs).unbind(0)


def _output_gradients(loss: Tensor, layers: list[Layer], *, retain: bool) -> Iterator[tuple[Tensor | None, ...]]:
    """For each layer the gradients of ``loss`` at its outputs, one per use; each set is released when taken."""
    edges = [edge for layer in layers for edge in layer.edges]
    if not edges:
        return
    found = list(torch.autograd.grad(loss, edges, retain_graph=retain, allow_unused=True))
    found.reverse()
    for layer in layers:
        yield tuple(found.pop() for _ in layer.edges)


def _squared_norms(model, chosen, plan: _Plan, inputs, labels, read: _Reading, uniform) -> Tensor:
    """Squared norms (layers, T, groups) in float64, layers in the plan's order."""
    n = len(inputs)
    groups = n // read.group_size
    steps = _forward(model, plan, inputs)
    if not torch.stack([step.detach() for step in steps]).isfinite().all():
        raise ValueError("The model's logits are not finite; probe a checkpoint from before training diverged.")
    contractions = [
        Contraction(layer, num_steps=plan.num_steps, num_examples=n, group_size=read.group_size)
        for layer in plan.layers
    ]
    squared = torch.zeros(len(plan.order), plan.num_steps, groups, dtype=torch.float64)
    row = {name: i for i, name in enumerate(plan.order)}
    for t, logits in enumerate(read.logits(steps)):
        losses = read.losses(logits, labels, uniform)
        if plan.looped:
            for m, group in enumerate(losses.split(read.group_size)):
                for name, value in _parameter_norms(group.sum(), chosen, plan.looped, retain=True).items():
                    squared[row[name or plan.looped[name][0]], t, m] = value
        last = t == plan.num_steps - 1
        gradients = _output_gradients(losses.sum(), plan.layers, retain=not last)
        for contraction, found in zip(contractions, gradients, strict=False):
            norms = contraction.squared_norms(found)
            if norms is not None:
                squared[row[contraction.layer.name], t] = norms.cpu()
    for layer in plan.layers:
        layer.clear()
    return squared


def _with_draws(batches: Iterator[tuple[Tensor, Tensor]], labels: str, seed: int):
    """Each batch with the random numbers of its examples, which follow from their place among all; None if unused."""
    generator = torch.Generator().manual_seed(seed)
    for inputs, targets in batches:
        sampled = labels == "sampled"
        yield inputs, targets, torch.rand(len(targets), generator=generator, dtype=torch.float64) if sampled else None


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

    def __init__(self, plan: _Plan):
        self.plan, self.groups = plan, 0
        shape = (len(plan.order) + 1, plan.num_steps)
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
            for i, name in enumerate([*self.plan.order, "all"])
            for t in range(self.plan.num_steps)
        ]
