"""Squared norms of per-example gradients, layer by layer, from one shared forward pass.

For a layer with input a and output z, the gradient of example n's loss is a contraction of a with g = dL/dz over the
layer's own uses: timesteps and positions. Because examples do not influence each other in eval mode, g of the summed
loss holds every example's g. So a batch needs one backward pass for the g of all layers; each layer's per-example
gradient is formed, squared and dropped, never kept for the whole network.

Exact for Linear, Conv1d/2d/3d, BatchNorm (eval), LayerNorm and GroupNorm; ``supported`` says which, the caller takes
the rest another way.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from snn_probe.probes import gram
from snn_probe.probes.layouts import BATCH_NORM, CONV, GROUP_NORM, LAYER_NORM, LINEAR, by_example, settled
from snn_probe.probes.weight_norms import (
    BLOCK,
    convolution,
    convolution_one_by_one,
    linear,
    numeric_padding,
    sum_of_squares,
)

NORM = (*BATCH_NORM, *LAYER_NORM, *GROUP_NORM)


@dataclass
class Layer:
    """One module and what the forward pass left for it: per use, its input and the place of its output in the graph."""

    name: str
    module: Any  # an nn.Module, whose attributes torch declares as Tensor or Module
    selected: frozenset[str]  # of its own parameters, by local name
    inputs: list[Tensor] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    edges: list[GradientEdge] = field(default_factory=list)
    layout: str = ""  # how its uses order time and examples, one of LAYOUTS
    event: int = 0  # how many of the last axes are one event's: channels and space
    cancels: bool = False  # so that Gram matrices, found to lose digits, are left alone

    def settle(self, gradients: tuple[Tensor | None, ...], *, num_steps: int, num_examples: int) -> None:
        """Find layout and event, from output gradients of a loss of the first example alone (see ``settled``)."""
        found = settled(self.name, self.module, gradients, num_steps=num_steps, num_examples=num_examples)
        self.layout, self.event = found

    def clear(self) -> None:
        for kept in (self.inputs, self.versions, self.edges):
            kept.clear()


def own_parameters(model: nn.Module, chosen: dict[str, Tensor]) -> dict[str, list[str]]:
    """Module name -> the chosen parameters' names that belong to it directly, in the model's order; each parameter of
    the model itself stands alone, under its own name."""
    owners: dict[str, list[str]] = {}
    for name in chosen:
        owners.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return owners


def uses_in_graph(loss: Tensor, named: dict[str, Tensor]) -> dict[str, int]:
    """How often the graph of ``loss`` takes each of these parameters, by name: 0 for those it does not reach.

    A use in a module's own forward is one; more than a module's calls means that other code uses its parameter too.
    """
    counts: dict[int, int] = {}
    seen, ahead = {loss.grad_fn}, [loss.grad_fn]
    while ahead:
        for node, _ in getattr(ahead.pop(), "next_functions", ()):
            variable = getattr(node, "variable", None)
            if variable is not None:
                counts[id(variable)] = counts.get(id(variable), 0) + 1
            elif node is not None and node not in seen:
                seen.add(node)
                ahead.append(node)
    return {name: counts.get(id(parameter), 0) for name, parameter in named.items()}


def supported(module: nn.Module, names: list[str], model: nn.Module) -> bool:
    """Whether this file has a closed form for the gradient with respect to all of these parameters of ``module``."""
    if type(module) not in _known_types():
        return False
    if {n.rpartition(".")[2] for n in names} - {"weight", "bias"}:
        return False
    users = [m for m in model.modules() for p in m.parameters(recurse=False) if p is module.weight or p is module.bias]
    if any(user is not module for user in users):
        return False  # a tied parameter: its gradient is a sum over modules
    if isinstance(module, CONV):
        return module.padding_mode == "zeros" and numeric_padding(module) is not None
    return not isinstance(module, BATCH_NORM) or module.running_mean is not None


def _known_types() -> set[type]:
    """Exact types: a subclass may compute something else from the same parameters."""
    from spikingjelly.activation_based import layer

    plain = (*LINEAR, *CONV, *NORM)
    return {*plain, *(getattr(layer, kind.__name__) for kind in plain if hasattr(layer, kind.__name__))}


@contextmanager
def recorded(layers: list[Layer]) -> Iterator[None]:
    """Within this context each use of a layer is recorded in it."""

    def hook(layer: Layer):
        def record(module, args, named, result):
            if result.requires_grad:  # else no loss depends on this use
                x = args[0] if args else next(iter(named.values()))
                layer.inputs.append(x.detach())
                layer.versions.append(x._version)
                layer.edges.append(get_gradient_edge(result))

        return record

    for layer in layers:
        layer.clear()
    handles = [layer.module.register_forward_hook(hook(layer), with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Contraction:
    """The inputs of one layer over all its uses, arranged once, to be contracted with many sets of output gradients.

    ``num_steps``, ``num_examples`` tell time from examples where a use merges them as (T*N, ...); ``group_size`` G
    consecutive examples form a group, whose gradients are summed before squaring.
    Raises ValueError where the arrangement is not understood; the caller then takes the layer the slow way.
    """

    def __init__(self, layer: Layer, *, num_steps: int, num_examples: int, group_size: int):
        self.layer, self.group_size = layer, group_size
        self.axes = (num_steps, num_examples)
        self.kind = next(k for k in (LINEAR, CONV, NORM) if isinstance(layer.module, k))
        if any(x._version != v for x, v in zip(layer.inputs, layer.versions, strict=True)):
            raise ValueError(f"an input of layer {layer.name!r} was changed in place")
        pieces = [self._arrange(x) for x in layer.inputs]
        if len({p.shape[1:] for p in pieces}) > 1:
            raise ValueError(f"layer {layer.name!r} is used at different sizes")
        self.bounds = list(accumulate((len(p) for p in pieces), initial=0))
        self.inputs: Any = [self._normalized(p) for p in pieces] if self.kind is NORM else pieces and self._join(pieces)
        self.gram: Tensor | None = None

    def squared_norms(self, gradients: tuple[Tensor | None, ...]) -> Tensor | None:
        """Per group, the squared norm of the gradient of this layer's selected parameters: (groups,) float64.

        ``gradients``: one per use, None where the loss does not depend on it. None if it depends on no use.
        """
        known = {i: g for i, g in enumerate(gradients) if g is not None}
        if not known:
            return None
        used, pieces = list(known), [self._arrange(g) for g in known.values()]
        if self.kind is NORM:
            found = self._norm_gradients(used, pieces)
            return torch.stack([sum_of_squares(found[name]) for name in self.layer.selected]).sum(0)
        g = self._join(pieces)
        time = 1 if self._example_major else 0
        total = torch.zeros(g.shape[1 - time], dtype=torch.float64, device=g.device)
        if "weight" in self.layer.selected:
            total += self._weight_norms(used, g, time)
        if "bias" in self.layer.selected:
            over = (time, 2) if self.kind is LINEAR else (time, *range(3, g.ndim))
            total += sum_of_squares(g.sum(over))
        return total

    def _weight_norms(self, used: list[int], g: Tensor, time: int) -> Tensor:
        """Of the weight of a linear layer or a convolution, (groups,)."""
        if self.kind is CONV and self._gram_pays(g):
            if self.gram is None:
                self.gram = gram.of_inputs(self.inputs, self.layer.module, numeric_padding(self.layer.module))
            positions = math.prod(g.shape[3:])
            taken = self._taken(self._taken(self.gram, used, 1, positions), used, 2, positions)
            found, sound = gram.squared_norms(taken, g)
            if sound:
                return found
            self.layer.cancels, self.gram = True, None
        x = self._taken(self.inputs, used, time)
        if self.kind is LINEAR:
            return linear(x, g)
        return (convolution_one_by_one if self._example_major else convolution)(x, g, self.layer.module)

    def _gram_pays(self, g: Tensor) -> bool:
        steps, calls = self.axes[0], len(self.bounds) - 1
        return (
            not self.layer.cancels
            and self._example_major
            and gram.pays(
                self.layer.module,
                uses=self.bounds[-1],
                positions=math.prod(g.shape[3:]),
                losses=steps,
                prefixes=calls == steps,
            )
        )

    def _taken(self, x: Tensor, used: list[int], axis: int, each: int = 1) -> Tensor:
        """What belongs to these uses along an axis of x, on which every use of an example takes ``each`` places."""
        bounds = [each * bound for bound in self.bounds]
        if all(b == a + 1 for a, b in pairwise(used)):
            first, last = bounds[used[0]], bounds[used[-1] + 1]
            return x.narrow(axis, first, last - first)
        return torch.cat([x.narrow(axis, bounds[i], bounds[i + 1] - bounds[i]) for i in used], axis)

    def _norm_gradients(self, used: list[int], gradients: list[Tensor]) -> dict[str, Tensor]:
        """sum g x_hat and sum g over uses and positions: the gradients of scale and shift, each (groups, C)."""
        pairs = [(self.inputs[i], g) for i, g in zip(used, gradients, strict=True)]
        return {
            "weight": sum((x * g).sum((0, 3)) for x, g in pairs),
            "bias": sum(g.sum((0, 3)) for _, g in pairs),
        }

    @property
    def _example_major(self) -> bool:
        """Large convolutions are contracted example by example, so each example's uses lie together: (n, S, ...)."""
        return self.kind is CONV and 2 * self.layer.module.weight.numel() > BLOCK

    def _join(self, pieces: list[Tensor]) -> Tensor:
        if self._example_major:
            return torch.cat([p.transpose(0, 1) for p in pieces], 1).contiguous()
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _arrange(self, x: Tensor) -> Tensor:
        """To (uses, groups, ...): convolutions (S, n, C, *space), linear (S, n, L, C), norms (S, n, C, L)."""
        x, rest = by_example(x, self.layer.event, self.layer.layout, *self.axes)
        steps, examples = x.shape[:2]
        if self.kind is LINEAR:
            x = x.reshape(steps, examples, -1, x.shape[-1])
        elif isinstance(self.layer.module, LAYER_NORM):
            x = x.reshape(steps, examples, -1, math.prod(self.layer.module.normalized_shape)).transpose(2, 3)
        elif rest:
            raise ValueError(f"layer {self.layer.name!r} has axes beside time and examples")
        elif self.kind is NORM:
            x = x.reshape(steps, examples, x.shape[2], -1)
        if self.group_size == 1:
            return x
        grouped = x.unflatten(1, (-1, self.group_size)).transpose(1, 2)
        return grouped.reshape(steps * self.group_size, -1, *x.shape[2:])

    def _normalized(self, x: Tensor) -> Tensor:
        """What the norm multiplies by its scale, (S, n, C, L)."""
        norm = self.layer.module
        if isinstance(norm, LAYER_NORM):
            return F.layer_norm(x.transpose(2, 3), x.shape[2:3], eps=norm.eps).transpose(2, 3)
        if isinstance(norm, GROUP_NORM):
            return F.group_norm(x.flatten(0, 1), norm.num_groups, eps=norm.eps).view_as(x)
        mean = norm.running_mean.detach().view(-1, 1)
        return (x - mean) * (norm.running_var.detach().view(-1, 1) + norm.eps).rsqrt()
