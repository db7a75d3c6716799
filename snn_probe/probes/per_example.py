"""Squared norms of per-example gradients, layer by layer, from one shared forward pass.

For a layer with input a and output z, the gradient of example n's loss is a contraction of a with g = dL/dz over the
layer's own uses: timesteps and positions. Because examples do not influence each other in eval mode, g of the summed
loss holds every example's g. So a batch needs one backward pass for the g of all layers; each layer's per-example
gradient is formed, squared and dropped, never kept for the whole network.

Exact for Linear, Conv1d/2d/3d and BatchNorm (eval); ``recorded`` takes what it knows, the caller loops over the rest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

LINEAR = (nn.Linear,)
CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

LAYOUTS = ("TN", "1N", "T*N", "N*T", "N")  # two axes, merged time first, merged examples first, examples alone

_BLOCK = (
    1 << 17
)  # elements of per-example gradients formed at a time; larger blocks measured slower, as they leave the cache


@dataclass
class Layer:
    """One module and what the forward pass left for it: per use, its input and the place of its output in the graph."""

    name: str
    module: nn.Module
    selected: frozenset[str]  # of its own parameters, by local name
    inputs: list[Tensor] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    edges: list[GradientEdge] = field(default_factory=list)
    layout: str = ""  # how its uses order time and examples, one of LAYOUTS; found by settle_layout

    def clear(self) -> None:
        for kept in (self.inputs, self.versions, self.edges):
            kept.clear()


def own_parameters(model: nn.Module, chosen: dict[str, Tensor]) -> dict[str, list[str]]:
    """Module name -> the chosen parameters' names that belong to it directly, in the model's order."""
    owners: dict[str, list[str]] = {}
    for name in chosen:
        owners.setdefault(name.rpartition(".")[0], []).append(name)
    return owners


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
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return not isinstance(module, NORM) or module.running_mean is not None


def _known_types() -> set[type]:
    """Exact types: a subclass may compute something else from the same parameters."""
    from spikingjelly.activation_based import layer

    plain = (*LINEAR, *CONV, *NORM)
    return {*plain, *(getattr(layer, kind.__name__) for kind in plain)}


@contextmanager
def recorded(layers: list[Layer]) -> Iterator[None]:
    """Within this context each use of a layer is recorded in it."""

    def hook(layer: Layer):
        def record(module, args, result):
            layer.inputs.append(args[0].detach())
            layer.versions.append(args[0]._version)
            layer.edges.append(get_gradient_edge(result))

        return record

    for layer in layers:
        layer.clear()
    handles = [layer.module.register_forward_hook(hook(layer)) for layer in layers]
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
        if self.kind is NORM:
            self.inputs = [self._normalized(p) for p in pieces]
        else:
            self.inputs = self._join(pieces)

    def squared_norms(self, gradients: tuple[Tensor | None, ...]) -> Tensor | None:
        """Per group, the squared norm of the gradient of this layer's selected parameters: (groups,) float64.

        ``gradients``: one per use, None where the loss does not depend on it. None if it depends on no use.
        """
        used = [i for i, g in enumerate(gradients) if g is not None]
        if not used:
            return None
        pieces = [self._arrange(gradients[i]) for i in used]
        if self.kind is NORM:
            found = self._norm_gradients(used, pieces)
            return sum(_sum_of_squares(found[name]) for name in self.layer.selected)
        g = self._join(pieces)
        time = 1 if self._example_major else 0
        if all(b == a + 1 for a, b in pairwise(used)):
            first, last = self.bounds[used[0]], self.bounds[used[-1] + 1]
            x = self.inputs.narrow(time, first, last - first)
        else:
            x = torch.cat(
                [self.inputs.narrow(time, self.bounds[i], self.bounds[i + 1] - self.bounds[i]) for i in used], time
            )
        total = torch.zeros(x.shape[1 - time], dtype=torch.float64, device=g.device)
        if "weight" in self.layer.selected:
            if self.kind is LINEAR:
                total += _linear(x, g)
            else:
                total += (_convolution_one_by_one if self._example_major else _convolution)(x, g, self.layer.module)
        if "bias" in self.layer.selected:
            over = (time, 2) if self.kind is LINEAR else (time, *range(3, g.ndim))
            total += _sum_of_squares(g.sum(over))
        return total

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
        return self.kind is CONV and 2 * self.layer.module.weight.numel() > _BLOCK

    def _join(self, pieces: list[Tensor]) -> Tensor:
        if self._example_major:
            return torch.cat([p.transpose(0, 1) for p in pieces], 1).contiguous()
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _arrange(self, x: Tensor) -> Tensor:
        """To (uses, groups, ...): convolutions (S, n, C, *space), linear (S, n, L, C), batch norm (S, n, C, L)."""
        event = event_axes(self.layer.module, x, *self.axes)
        x, rest = by_example(x, event, self.layer.layout, *self.axes)
        steps, examples = x.shape[:2]
        if self.kind is LINEAR:
            x = x.reshape(steps, examples, -1, x.shape[-1])
        elif rest:
            raise ValueError(f"layer {self.layer.name!r} has axes beside time and examples")
        elif self.kind is NORM:
            x = x.reshape(steps, examples, x.shape[2], -1)
        if self.group_size == 1:
            return x
        grouped = x.unflatten(1, (-1, self.group_size)).transpose(1, 2)
        return grouped.reshape(steps * self.group_size, -1, *x.shape[2:])

    def _normalized(self, x: Tensor) -> Tensor:
        norm = self.layer.module
        mean = norm.running_mean.detach().view(-1, 1)
        return (x - mean) * (norm.running_var.detach().view(-1, 1) + norm.eps).rsqrt()


def settle_layout(layer: Layer, gradients: tuple[Tensor | None, ...], *, num_steps: int, num_examples: int) -> None:
    """Find how a layer's uses order time and examples, from output gradients of a loss of the first example alone.

    In the right layout they vanish for all other examples, and not for the first. Shapes alone cannot tell merged
    axes apart, nor (T, N) from (N, T) where T = N: ``num_examples`` must differ from ``num_steps`` here, and what is
    found holds for every batch. ValueError if nothing fits, or if the gradients vanish and shapes do not decide.
    """
    known = [g for g in gradients if g is not None]
    fitting = []
    for layout in LAYOUTS:
        try:
            pieces = [
                by_example(g, event_axes(layer.module, g, num_steps, num_examples), layout, num_steps, num_examples)[0]
                for g in known
            ]
        except ValueError:
            continue
        if not any(p[:, 1:].any() for p in pieces):
            fitting.append((layout, any(bool(p[:, 0].any()) for p in pieces)))
    sure = [layout for layout, seen in fitting if seen]
    if not sure and len(fitting) != 1:
        raise ValueError(f"how layer {layer.name!r} orders time and examples cannot be told")
    layer.layout = sure[0] if sure else fitting[0][0]


def by_example(x: Tensor, event: int, layout: str, time: int, examples: int) -> tuple[Tensor, tuple[int, ...]]:
    """``x`` as (steps, examples, *rest, *event) and rest; ValueError if the shape does not fit the layout."""
    lead, last = x.shape[: x.ndim - event], x.shape[x.ndim - event :]
    two = {"TN": (time, examples), "1N": (1, examples)}
    if layout in two and tuple(lead[:2]) == two[layout]:
        return x, tuple(lead[2:])
    if layout == "T*N" and lead and lead[0] == time * examples:
        return x.reshape(time, examples, *lead[1:], *last), tuple(lead[1:])
    if layout == "N*T" and lead and lead[0] == time * examples:
        return x.reshape(examples, time, *lead[1:], *last).transpose(0, 1), tuple(lead[1:])
    if layout == "N" and lead and lead[0] == examples:
        return x.unsqueeze(0), tuple(lead[1:])
    raise ValueError(f"shape {tuple(x.shape)} does not fit the layout {layout!r}")


def event_axes(module: nn.Module, x: Tensor, time: int, examples: int) -> int:
    """How many of the last axes of ``x`` are one event's: channels and space."""
    if isinstance(module, LINEAR):
        return 1
    if isinstance(module, CONV):
        return 1 + len(module.kernel_size)
    options = next(v for k, v in {NORM[0]: (0, 1), NORM[1]: (2,), NORM[2]: (3,)}.items() if isinstance(module, k))
    leads = ((examples,), (time * examples,), (time, examples), (1, examples))
    for space in options:
        lead = tuple(x.shape[: max(0, x.ndim - 1 - space)])
        if lead in leads and x.shape[len(lead)] == module.num_features:
            return 1 + space
    raise ValueError(f"a batch norm has an input of unexpected shape {tuple(x.shape)}")


def _sum_of_squares(x: Tensor) -> Tensor:
    """(n, ...) -> (n,), accumulated in float64."""
    return x.flatten(1).square().sum(1, dtype=torch.float64)


def _linear(x: Tensor, g: Tensor) -> Tensor:
    """||sum_s g_s x_s^T||^2 per group; through the Gram matrices of the uses where those are smaller."""
    x, g = (v.transpose(0, 1).flatten(1, 2) for v in (x, g))  # (n, S, C)
    _, uses, inward = x.shape
    outward = g.shape[2]
    if uses * (inward + outward) < inward * outward:
        return (torch.bmm(x, x.mT) * torch.bmm(g, g.mT)).sum((1, 2), dtype=torch.float64)
    size = max(1, _BLOCK // (inward * outward))
    parts = [_sum_of_squares(torch.bmm(a.mT, b)) for a, b in zip(g.split(size), x.split(size), strict=True)]
    return torch.cat(parts)


def _convolution(x: Tensor, g: Tensor, module: nn.Module) -> Tensor:
    """Weight gradients of n groups at once: one grouped convolution whose groups are the examples, summed over uses.

    x (S, n, C, *space), g (S, n, O, *space): with n folded into the channels, the ordinary weight gradient of a
    convolution with n * ``groups`` groups is the per-example gradient, and its batch axis S is the sum over uses.
    """
    size = max(1, _BLOCK // module.weight.numel())
    parts = []
    for a, b in zip(x.split(size, dim=1), g.split(size, dim=1), strict=True):
        n = a.shape[1]
        gradient = _weight_gradient(a.flatten(1, 2).contiguous(), b.flatten(1, 2).contiguous(), module, copies=n)
        parts.append(_sum_of_squares(gradient.view(n, -1)))
    return torch.cat(parts)


def _convolution_one_by_one(x: Tensor, g: Tensor, module: nn.Module) -> Tensor:
    """The same from x (n, S, C, *space) and g (n, S, O, *space), one group after the other."""
    return torch.cat([_sum_of_squares(_weight_gradient(a, b, module).view(1, -1)) for a, b in zip(x, g, strict=True)])


def _weight_gradient(x: Tensor, g: Tensor, module: nn.Module, *, copies: int = 1) -> Tensor:
    shape = (copies * module.weight.shape[0], *module.weight.shape[1:])
    _, gradient, _ = torch.ops.aten.convolution_backward(
        g,
        x,
        module.weight.new_empty(shape),
        None,
        module.stride,
        module.padding,
        module.dilation,
        False,
        [0] * len(module.kernel_size),
        copies * module.groups,
        [False, True, False],
    )
    return gradient
