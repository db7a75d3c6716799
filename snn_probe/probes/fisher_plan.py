"""How the Fisher probe takes a network: the run-time checks that settle which road each layer's parameters go."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_probe.probes.copies import MOST, RANKS, Copied, copied, places_of
from snn_probe.probes.per_example import Contraction, Layer, own_parameters, recorded, supported, uses_in_graph
from snn_probe.probes.timesteps import check_logits
from snn_probe.temporal import check_temporal, unrolled

_LIBRARIES = ("torch", "spikingjelly", "snntorch", "snn_probe")  # whose modules mean the same in either step mode
_CHECKED_EXAMPLES = 2  # how many examples of the first batch the run-time checks use


@dataclass(frozen=True)
class Reading:
    """From logits to the losses whose gradients are squared."""

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
class Plan:
    """What the run-time checks settled: T, the way forward is run, and how each layer is taken."""

    num_steps: int
    owners: dict[str, list[str]]  # layer -> parameter names, in the model's order; see own_parameters
    unrolled: bool = False
    layers: list[Layer] = field(default_factory=list)  # contracted
    copied: list[Copied] = field(default_factory=list)

    @property
    def quick(self) -> "list[Layer | Copied]":
        return [*self.layers, *self.copied]

    @property
    def looped(self) -> dict[str, list[str]]:
        """Module name -> parameter names, of what takes a loop over examples."""
        quick = {layer.name for layer in self.quick}
        return {name: names for name, names in self.owners.items() if name not in quick}

    def looped_share(self, chosen: dict[str, Tensor]) -> float:
        """Of the entries of all parameters, those that take the loop."""
        looped = sum(chosen[name].numel() for names in self.looped.values() for name in names)
        return looped / sum(p.numel() for p in chosen.values())


def planned(model: nn.Module, chosen: dict[str, Tensor], inputs: Tensor, labels: Tensor, read: Reading) -> Plan:
    """The plan for a model, from the first examples; inside :func:`snn_probe.temporal.probing`."""
    num_steps = check_temporal(model, inputs[:_CHECKED_EXAMPLES])
    n = -(-_CHECKED_EXAMPLES // read.group_size) * read.group_size
    n += read.group_size * (n == num_steps)  # so that shapes tell examples from timesteps
    index = torch.arange(n, device=labels.device) % len(labels)
    inputs, labels = inputs[index], labels[index]
    plan = Plan(num_steps, own_parameters(model, chosen))
    modules = dict(model.named_modules())
    layers = [
        Layer(name, modules.get(name, model), frozenset(name.rpartition(".")[2] for name in names))
        for name, names in plan.owners.items()
        if supported(modules.get(name, model), names, model)
    ]
    plan.layers = layers
    with _taken(plan, n):
        steps = unrolled(model, inputs)
    plan.unrolled = steps is not None and _as_whole(model, inputs, steps)
    if steps is None or not plan.unrolled:
        steps = forward(model, plan, inputs)
    check_logits(torch.stack([step.detach() for step in steps]), num_steps, labels)
    logits = read.logits(steps)
    losses = read.losses(logits[-1], labels, None)
    counts = uses_in_graph(losses.sum(), chosen)
    exact, lone = _both(losses[: read.group_size].sum(), chosen, plan.owners, layers)
    if read.group_size > 1 or read.readout != "prefix":  # of the first example alone, and of all timesteps
        every = torch.stack([read.losses(one, labels, None)[0] for one in logits]).sum()
        lone = list(edge_gradients(every, layers, retain=True))
    summed = list(edge_gradients(losses.sum(), layers, retain=False))  # what the traces are made of
    rounding = 1e-12 * sum(exact.values())
    plan.layers = [
        layer
        for layer, first, gradients in zip(layers, lone, summed, strict=True)
        if _used_by_itself_alone(plan.owners[layer.name], gradients, counts)
        and _close(layer, _contracted(layer, first, gradients, plan, n, read), exact[layer.name], rounding)
        and (exact[layer.name] > 0 or _as_written(layer.module))  # where nothing was compared
    ]
    for layer in layers:
        layer.clear()
    plan.copied = _copies(model, plan, inputs, labels, read, exact, rounding)
    return plan


def _as_whole(model: nn.Module, inputs: Tensor, steps: tuple[Tensor, ...]) -> bool:
    """Whether the step-by-step forward gave the model's own logits.

    A spike at the threshold may flip between the two orders of summation, so not every example has to agree; but in a
    network with modules of a user's own, which may mean something else in single-step mode, every one has to.
    """
    if any(step.shape != steps[0].shape for step in steps):
        return False
    with torch.no_grad():
        whole, found = model(inputs), torch.stack(steps)
    if whole.shape != found.shape:
        return False
    apart = (whole - found).abs().amax((0, 2))
    known = all(type(module).__module__.partition(".")[0] in _LIBRARIES for module in model.modules())
    return bool((apart.median() if known else apart.max()) <= 1e-4 * whole.abs().max())


def _as_written(module: nn.Module) -> bool:
    """Whether a layer of a known type computes what its type does: no hooks but ours, no forward of its own."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return not any(hooks) and "forward" not in vars(module)


def _used_by_itself_alone(names: list[str], gradients: tuple[Tensor | None, ...], counts: dict[str, int]) -> bool:
    """Whether the layer's calls are the only uses of its parameters, whatever the examples make of them."""
    calls = sum(gradient is not None for gradient in gradients)
    return all(counts[name] == calls for name in names)


def _contracted(layer: Layer, first, gradients, plan: Plan, n: int, read: Reading) -> float:
    """The squared norm of the first group by contraction; NaN where that is not understood."""
    try:
        layer.settle(first, num_steps=plan.num_steps, num_examples=n)
        one = Contraction(layer, num_steps=plan.num_steps, num_examples=n, group_size=read.group_size)
        found = one.squared_norms(gradients)
    except ValueError:
        return torch.nan
    return 0.0 if found is None else float(found[0])


def _close(layer: Layer | Copied, found: float, exact: float, rounding: float) -> bool:
    double = next(layer.module.parameters(recurse=False)).dtype == torch.float64
    return abs(found - exact) <= (1e-8 if double else 1e-3) * exact + rounding


def _copies(model: nn.Module, plan: Plan, inputs, labels, read: Reading, exact, rounding: float) -> list[Copied]:
    """Of the layers left over, those whose parameters may be given as copies, one for each example.

    First all at once, each for tensors with as many axes as its module's input has, then those that are left over one
    by one. What the loss does not reach here proves nothing and takes the loop.
    """
    modules, everything = dict(model.named_modules()), dict(model.named_parameters())

    def separate(wanted: list[Copied]) -> list[Copied]:
        last = len(inputs) - 1
        try:
            with warnings.catch_warnings(action="ignore"), copied(wanted, len(inputs)):
                steps = _steps(model, plan, inputs)
                losses = read.losses(read.logits(steps)[-1], labels, None)
                lone = [list(edge_gradients(losses[i], wanted, retain=True)) for i in (0, last)]
                group = list(edge_gradients(losses[: read.group_size].sum(), wanted, retain=False))
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError):
            return []
        return [
            one
            for one, first, other, gradients in zip(wanted, *lone, group, strict=True)
            if one.alone(first, 0)
            and one.alone(other, last)
            and (norms := one.squared_norms(gradients)) is not None
            and _close(one, float(norms[0]), exact[one.name], rounding)
        ]

    small = {
        name: Copied(
            name, modules.get(name, model), [places_of(model, everything[n]) for n in names], 0, read.group_size
        )
        for name, names in plan.looped.items()
        if sum(everything[name].numel() for name in names) <= MOST and exact[name] > 0
    }
    if not small:
        return []
    ranks = _ranks(model, small, inputs, plan)
    found = separate([replace(small[name], rank=rank) for name, rank in ranks.items()])
    for name in small.keys() - {one.name for one in found}:
        tried = (separate([replace(small[name], rank=rank)]) for rank in RANKS)
        found += next(filter(None, tried), [])
    return sorted(found, key=lambda one: list(plan.owners).index(one.name))


def _ranks(model: nn.Module, small: dict[str, Copied], inputs: Tensor, plan: Plan) -> dict[str, int]:
    """The axes of what each module works on at a timestep, (N, ...), as far as its first input says."""
    found: dict[str, int] = {}

    def hook(name: str):
        def note(module, args):
            if args and isinstance(args[0], Tensor):
                over_time = args[0].shape[:2] == (plan.num_steps, len(inputs))
                found.setdefault(name, args[0].ndim - over_time)

        return note

    handles = [one.module.register_forward_pre_hook(hook(name)) for name, one in small.items()]
    try:
        with torch.no_grad():
            _steps(model, plan, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


@contextmanager
def _taken(plan: Plan, num_examples: int) -> Iterator[None]:
    with recorded(plan.layers), copied(plan.copied, num_examples):
        yield


def forward(model: nn.Module, plan: Plan, inputs: Tensor) -> tuple[Tensor, ...]:
    """The logits of each timestep, and in the plan's layers what is needed for their gradients."""
    with _taken(plan, len(inputs)):
        return _steps(model, plan, inputs)


def _steps(model: nn.Module, plan: Plan, inputs: Tensor) -> tuple[Tensor, ...]:
    steps = unrolled(model, inputs) if plan.unrolled else None
    return model(inputs).unbind(0) if steps is None else steps


def edge_gradients(
    loss: Tensor, layers: Sequence[Layer | Copied], *, retain: bool
) -> Iterator[tuple[Tensor | None, ...]]:
    """For each layer the gradients of ``loss`` at its edges, one per use or copy; each set is released when taken."""
    edges: list[Any] = [edge for layer in layers for edge in layer.edges]
    found = torch.autograd.grad(loss, edges, retain_graph=retain, allow_unused=True) if edges else ()
    return _by_layer(list(found), layers)


def _by_layer(found: list[Tensor | None], layers: Sequence[Layer | Copied]) -> Iterator[tuple[Tensor | None, ...]]:
    found.reverse()
    for layer in layers:
        yield tuple(found.pop() for _ in layer.edges)


def parameter_norms(
    loss: Tensor, chosen: dict[str, Tensor], owners: dict[str, list[str]], *, retain: bool
) -> dict[str, float]:
    """Squared norm of the gradient by module, from automatic differentiation."""
    parameters = [chosen[name] for group in owners.values() for name in group]
    return _norms(torch.autograd.grad(loss, parameters, retain_graph=retain, allow_unused=True), owners)


def _norms(gradients: Sequence[Tensor | None], owners: dict[str, list[str]]) -> dict[str, float]:
    squared = iter(0.0 if g is None else float(g.double().square().sum()) for g in gradients)
    return {module: sum(next(squared) for _ in group) for module, group in owners.items()}


def _both(loss: Tensor, chosen: dict[str, Tensor], owners: dict[str, list[str]], layers: Sequence[Layer]):
    """:func:`parameter_norms`, and of all layers :func:`edge_gradients`, from one backward pass; the graph is kept."""
    parameters: list[Any] = [chosen[name] for group in owners.values() for name in group]
    edges: list[Any] = [edge for layer in layers for edge in layer.edges]
    found = torch.autograd.grad(loss, [*parameters, *edges], retain_graph=True, allow_unused=True)
    return _norms(found[: len(parameters)], owners), list(_by_layer(list(found[len(parameters) :]), layers))
