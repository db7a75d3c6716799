"""Directions in weight space for loss slices: random, to another checkpoint, and the plane of a training run.

A direction is a dict of tensors by name, each of the shape of the weight it moves; an eigenvector of
:func:`~snn_probe.probes.hessian.hessian_eigenvectors` is one as it is. Names may be those of parameters, and of
floating-point buffers such as batch norm's running statistics. Whole numbers (``num_batches_tracked``) never move.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from snn_probe.probes.batching import check_whole

Direction = Mapping[str, Tensor]

_RANK = 1e-12  # share of the trajectory's squared length below which a second direction is rounding, not a direction


def random_direction(params: Direction, *, seed: int, index: int = 0) -> dict[str, Tensor]:
    """Standard Gaussian entries for every tensor of ``params``; a seed has several directions, told apart by ``index``.

    Drawn in float64 from a private CPU generator in the order of ``params``, then given their types and devices: the
    same seed gives the same numbers for every network of this shape, on every device.
    """
    check_whole("seed", seed, low=0)
    check_whole("index", index, low=0)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(index + 1):
        drawn = {name: torch.randn(p.shape, generator=generator, dtype=torch.float64) for name, p in params.items()}
    return {name: drawn[name].to(p) for name, p in params.items()}


def filter_normalized(direction: Direction, params: Direction) -> dict[str, Tensor]:
    """``direction`` with each filter scaled to the norm of the weights' filter; biases and batch norm get zero.

    A filter is one index of a tensor's first axis (an output channel or neuron; for transposed convolutions an input
    channel). Tensors with fewer than two axes get zero, as does a filter that is zero in either argument. At alpha = 1
    every filter is thus moved by its own length. (Li et al., NeurIPS 2018, arXiv 1712.09913.)
    Raises ValueError for other names or shapes.
    """
    check_alike("direction", direction, params)
    found = {}
    for name, p in params.items():
        if p.ndim < 2:
            found[name] = torch.zeros_like(p)
            continue
        d, w = (t.detach().cpu().double().flatten(1) for t in (direction[name], p))
        lengths = d.norm(dim=1, keepdim=True)
        scale = torch.where(lengths > 0, w.norm(dim=1, keepdim=True) / lengths, 0.0)
        found[name] = (d * scale).view(p.shape).to(p)
    return found


def direction_between(params: Direction, other: Direction) -> dict[str, Tensor]:
    """``other`` - ``params``: along it alpha = 0 is ``params`` and alpha = 1 is ``other``.

    Give two dicts of parameters, or two ``state_dict()``: with parameters alone batch norm keeps the first network's
    running statistics, so alpha = 1 is not yet the other network as it is evaluated. Whole-number tensors are left out.
    Raises ValueError for networks of different names or shapes, and for equal ones.
    """
    params, other = _floating(params), _floating(other)
    check_alike("other", other, params)
    found = {name: (other[name].detach().to(p) - p.detach()) for name, p in params.items()}
    if not any(d.any() for d in found.values()):
        raise ValueError("The two checkpoints are equal, so there is no line between them; give two different ones.")
    return found


@dataclass(frozen=True)
class Plane:
    """A plane through the last of several checkpoints; made by :func:`pca_plane`."""

    directions: tuple[dict[str, Tensor], dict[str, Tensor]]
    coordinates: pd.DataFrame
    explained: tuple[float, float]


def pca_plane(checkpoints: Sequence[Direction]) -> Plane:
    """The plane through the last checkpoint in which most of the way to it lies.

    With D the matrix of theta_i - theta_last, ``directions`` are its first two right singular vectors: orthonormal
    over all tensors together, each signed so that the checkpoint farthest along it has a positive coordinate.
    ``coordinates`` has a row per checkpoint in the order given: ``checkpoint`` (from 0), ``alpha`` and ``beta``, which
    are Euclidean distances in weight space along the directions, the last (0, 0), and ``distance``, from the plane.
    ``explained`` is each direction's share of the sum of squared distances from the last checkpoint, the share that
    the picture shows. (Li et al., arXiv 1712.09913, centre D first: theirs is of the variance about the mean.)

    Pass ``directions`` to ``loss_slice`` on the last checkpoint's network and ``coordinates`` to the contour figure.
    Raises ValueError for fewer than three checkpoints, other names or shapes, or a trajectory on one line.
    """
    if len(checkpoints) < 3:
        raise ValueError(f"checkpoints has {len(checkpoints)} entries; a plane needs at least 3 of one network.")
    states = [_floating(checkpoint) for checkpoint in checkpoints]
    last = states[-1]
    for i, state in enumerate(states):
        check_alike(f"checkpoints[{i}]", state, last)
    gram = torch.zeros(len(states), len(states), dtype=torch.float64)
    for name in last:
        d = _differences(states, name)
        gram += d @ d.T
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp_min(0.0), vectors.flip(1)
    total = gram.trace()
    if values[1] <= _RANK * total:
        raise ValueError(
            "The checkpoints lie on one line (or are all equal), so they span no plane; "
            "use direction_between and a slice along it."
        )
    lengths = values[:2].sqrt()
    coordinates = vectors[:, :2] * lengths
    signs = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True)).sign().squeeze(0)
    coordinates = coordinates * signs
    mixing = vectors[:, :2] * signs / lengths  # direction k = sum_i mixing[i, k] D_i
    directions: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for name, p in last.items():
        both = mixing.T @ _differences(states, name)
        for k, direction in enumerate(directions):
            direction[name] = both[k].view(p.shape).to(p)
    table = pd.DataFrame(coordinates.numpy(), columns=["alpha", "beta"])
    table.insert(0, "checkpoint", range(len(states)))
    table["distance"] = (gram.diagonal() - coordinates.square().sum(1)).clamp_min(0.0).sqrt().numpy()
    table.loc[len(states) - 1, ["alpha", "beta", "distance"]] = 0.0
    return Plane(directions, table, tuple((values[:2] / total).tolist()))


def check_alike(what: str, tensors: Direction, params: Direction) -> None:
    """ValueError, in one sentence, unless both have the same names and shapes."""
    missing = [name for name in params if name not in tensors]
    unknown = [name for name in tensors if name not in params]
    if missing or unknown:
        problem = f"lacks {missing[0]!r}" if missing else f"has {unknown[0]!r}, which the weights do not have"
        raise ValueError(f"{what} {problem}; give tensors of one and the same network, by parameter name.")
    for name, p in params.items():
        if tensors[name].shape != p.shape:
            raise ValueError(
                f"{what} has shape {tuple(tensors[name].shape)} for {name!r} where the weights have {tuple(p.shape)}; "
                "give tensors of one and the same network."
            )


def _floating(tensors: Direction) -> dict[str, Tensor]:
    return {name: t for name, t in tensors.items() if t.is_floating_point()}


def _differences(states: list[dict[str, Tensor]], name: str) -> Tensor:
    """theta_i - theta_last of one tensor, (checkpoints, numel) in float64 on the CPU."""
    flat = torch.stack([state[name].detach().cpu().double().flatten() for state in states])
    return flat - flat[-1]
