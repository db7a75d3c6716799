"""Per-example gradients of small parameters of any module: each example is given a copy of its own.

Where a parameter meets tensors (N, ...) element by element, as a leak or a threshold meets membrane potentials, N copies
of it, shaped (N, 1, ..., *shape), may take its place: the network computes the same, and the gradient of a loss summed
over examples holds at each copy what that example's own loss gives. Whether a parameter is used so is not assumed but
found by trying: see ``alone``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

MOST = 1 << 16
"""Elements of a module's parameters up to which copies are tried."""

RANKS = (2, 3, 4, 5)
"""Axes that the tensors (N, ...) may have which a parameter meets."""


@dataclass
class Copied:
    """A module's own parameters, of which each example is given a copy; ``rank``: axes of the tensors they meet.

    ``places``: for each parameter the dicts of parameters, of this module and others, that hold it, and its name there.
    """

    name: str
    module: Any  # an nn.Module
    places: list[list[tuple[dict, str]]]
    rank: int
    group_size: int
    edges: list[Tensor] = field(default_factory=list)  # the copies of the present forward pass

    def clear(self) -> None:
        self.edges.clear()

    def squared_norms(self, gradients: tuple[Tensor | None, ...]) -> Tensor | None:
        """Per group of ``group_size`` examples, the squared norm of the gradient: (groups,) float64; None for zero."""
        known = [g.reshape(-1, self.group_size, g[0].numel()).sum(1) for g in gradients if g is not None]
        return torch.stack([g.square().sum(1, dtype=torch.float64) for g in known]).sum(0) if known else None

    def alone(self, gradients: tuple[Tensor | None, ...], example: int) -> bool:
        """Whether these gradients, of one example's loss, reach its own copies and no other example's."""
        reached = [g.flatten(1).any(1).nonzero().flatten().tolist() for g in gradients if g is not None]
        return {copy for copies in reached for copy in copies} == {example}


@contextmanager
def copied(layers: Sequence[Copied], num_examples: int) -> Iterator[None]:
    """Within this context the copies, fresh ones, stand in the place of the parameters."""
    own = [(*place, place[0][place[1]]) for layer in layers for places in layer.places for place in places]
    try:
        for layer in layers:
            layer.clear()
            for places in layer.places:
                parameters, name = places[0]
                layer.edges.append(_repeated(parameters[name].detach(), num_examples, layer.rank))
                for parameters, name in places:
                    parameters[name] = layer.edges[-1]
        yield
    finally:
        for parameters, name, parameter in own:
            parameters[name] = parameter


def places_of(model: nn.Module, parameter: Tensor) -> list[tuple[dict, str]]:
    """Every dict of parameters in the model that holds ``parameter``, and under which name."""
    everything = [(module._parameters, name) for module in model.modules() for name in module._parameters]
    return [(parameters, name) for parameters, name in everything if parameters[name] is parameter]


def _repeated(one: Tensor, num_examples: int, rank: int) -> Tensor:
    """``num_examples`` copies of a parameter that broadcasts against tensors (N, ...) with ``rank`` axes."""
    shape = one.shape[1:] if one.ndim == rank and one.shape[0] == 1 else one.shape  # (1, C, 1, 1) has an axis for N
    gap = [1] * max(0, rank - 1 - len(shape))
    return one.reshape(1, *gap, *shape).repeat(num_examples, *gap, *[1] * len(shape)).requires_grad_()
