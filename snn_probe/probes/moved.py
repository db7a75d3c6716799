"""The weights theta + alpha d1 + beta d2 of a model, made beside the model's own."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from snn_probe.probes.directions import Direction, check_alike, filter_normalized, random_direction


class MovedWeights:
    """Weights on the line or plane through the model's own; ``at(alpha, beta)`` gives those that move, by name.

    ``given``: None for random filter-normalized directions of the parameters ``chosen`` (from ``seed``), else one or
    two dicts. Each must name all of ``chosen``, and may name buffers and frozen parameters too. ``plane`` says whether
    a second direction is needed. Raises ValueError for directions that do not fit, are not finite or move nothing.
    """

    def __init__(self, model: nn.Module, chosen: Direction, given, *, plane: bool, seed: int):
        self.tensors = {n: t.detach() for n, t in [*model.named_parameters(), *model.named_buffers()]}
        self.random = given is None
        directions: list[Direction]
        if self.random:
            drawn = (random_direction(chosen, seed=seed, index=i) for i in range(1 + plane))
            directions = [filter_normalized(direction, chosen) for direction in drawn]
        else:
            directions = _listed(given, plane)
            directions = [self._fitted(f"directions[{i}]", d, model, chosen) for i, d in enumerate(directions)]
        self.directions = [_finite(f"directions[{i}]", d, self.random) for i, d in enumerate(directions)]

    def at(self, alpha: float, beta: float) -> dict[str, Tensor]:
        """At (0, 0) these are the model's own values, bit for bit."""
        weights: dict[str, Tensor] = {}
        for direction, amount in zip(self.directions, (alpha, beta), strict=False):
            for name, d in direction.items():
                weights[name] = torch.add(weights.get(name, self.tensors[name]), d, alpha=amount)
        return weights

    def _fitted(self, what: str, direction: Direction, model: nn.Module, chosen: Direction) -> dict[str, Tensor]:
        """The part of ``direction`` that can move: no whole numbers, no second name of a shared tensor."""
        aliases = {name for name, _ in model.named_parameters(remove_duplicate=False)} - set(self.tensors)
        direction = {n: d for n, d in direction.items() if n not in aliases and torch.is_floating_point(d)}
        left_out = {name for name, p in model.named_parameters() if p.requires_grad} - set(chosen)
        if moved := sorted(left_out & set(direction)):
            raise ValueError(f"{what} moves {moved[0]!r}, which params leaves out; leave it out of the direction too.")
        extra = {name: t for name, t in self.tensors.items() if name in direction and name not in chosen}
        check_alike(what, direction, {**chosen, **extra})
        return {name: d.detach().to(self.tensors[name]) for name, d in direction.items()}


def _listed(given, plane: bool) -> list[Direction]:
    listed = [given] if isinstance(given, Mapping) else list(given) if isinstance(given, list | tuple) else []
    if len(listed) not in (1, 2) or not all(isinstance(direction, Mapping) for direction in listed):
        raise ValueError("directions must be one dict of tensors by parameter name, or a list of one or two of them.")
    if plane and len(listed) == 1:
        raise ValueError("betas has values other than 0 but there is only one direction; give two, or leave out betas.")
    return listed[: 1 + plane]


def _finite(what: str, direction: Direction, random: bool) -> dict[str, Tensor]:
    """The tensors of a direction that are not zero."""
    if bad := [name for name, d in direction.items() if not d.isfinite().all()]:
        if random:  # scaled by the weights' norms
            raise ValueError(
                f"The model's weights are not finite in {bad[0]!r}; probe a checkpoint from before training diverged."
            )
        raise ValueError(f"{what} is not finite in {bad[0]!r}; give finite tensors.")
    moving = {name: d for name, d in direction.items() if d.any()}
    if not moving:
        cause = "No weight with two or more axes is other than zero" if random else f"{what} is zero everywhere"
        raise ValueError(f"{cause}, so nothing would move; give a direction that moves a weight.")
    return moving
