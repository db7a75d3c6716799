"""The loss along lines and on planes through the weights: L(theta + alpha d1 + beta d2).

This is the loss itself, piecewise constant in most weights of a spiking network, sampled at the points given; nothing
is differentiated. Where directions come from is said in :mod:`snn_probe.probes.directions`.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import nn

from snn_probe.distributed import gathered, leads, together
from snn_probe.machine.interrupts import unbroken
from snn_probe.neurons.sharing import order_kept
from snn_probe.neurons.values_only import values_only
from snn_probe.parameters import Predicate, trainable
from snn_probe.probes import record
from snn_probe.probes.batching import check_labels, check_whole, device_of
from snn_probe.probes.directions import Direction
from snn_probe.probes.examples import Examples, digest
from snn_probe.probes.memory_order import best_order
from snn_probe.probes.moved import MovedWeights
from snn_probe.probes.point import (
    Objective,
    Point,
    described,
    measure,
    named_objectives,
    source_digest,
    watched_currents,
)
from snn_probe.results import Result
from snn_probe.tables.shards import PROBE, Coordinates, Shard, check_shard, differing, own_points
from snn_probe.temporal import Batches, check_temporal, probing

_ZERO = 1e-12  # share of the largest coordinate up to which a coordinate is a rounded 0
_COLUMNS = ("objective", "alpha", "beta", "loss", "accuracy", "finite")


def loss_slice(
    model: nn.Module,
    batches: Batches,
    objectives: Mapping[str, Objective] | Sequence[Objective],
    *,
    alphas: Iterable[float],
    betas: Iterable[float] = (0.0,),
    directions: Direction | Sequence[Direction] | None = None,
    params: Predicate | None = None,
    seed: int = 0,
    shard: Shard | None = None,
    elsewhere: Mapping[str, Result] | None = None,
    resume: Result | None = None,
    save: Callable[[Result], None] | None = None,
    save_every: float = 10.0,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None = None,
) -> Result:
    """Loss and accuracy at theta + alpha d1 + beta d2: columns objective, alpha, beta, loss, accuracy, finite.

    In eval mode, means over all examples: (0, 0) is the evaluation of the model itself. ``objectives``: {name: function
    of (logits, labels, params)} or a list of SDT(), TET(), TRT(); all share each forward pass. One that has
    ``without_penalty`` (TRT) is taken without its penalty. One beta, the default, is a 1-D slice.

    ``directions``: one or two dicts by parameter name, taken as they are; alpha and beta are in their units. They may
    name buffers too. None draws random filter-normalized ones from ``seed``: there 1 moves each filter by its own
    length, and biases and batch norm stay. theta are the trainable parameters, or those that ``params`` selects.
    Coordinates within rounding of 0 are taken as 0.

    ``finite`` is False where the loss, a weight or an input current of a spiking layer is not finite; the loss stays as
    measured. ``save(result so far)`` is called about every ``save_every`` seconds and when measuring ends, also by an
    error or an interrupt; ``resume`` takes such a result, and only the other points are measured. ``progress(points,
    label)`` may wrap the points to show how far it is. Where processes share the work the first alone calls ``save``
    and ``progress``, and its ``resume`` and ``elsewhere`` count. The model's own weights never move.

    ``shard`` (i, n) measures the i-th of n parts of the grid alone, equal in size, scattered over it and the same for
    every call with this grid; ``elsewhere``, {name for messages: result of other shards, of any n}, says which of them
    need no measuring any more. :mod:`snn_probe.tables.shards` puts the results together.

    Raises ValueError for a bad argument, directions of another network, a ``resume`` or ``elsewhere`` of other
    settings, weights or examples, and for a model or batches that break their contracts.
    """
    began = time.perf_counter()
    objectives = named_objectives(objectives)
    alphas, betas = _axis("alphas", alphas), _axis("betas", betas)
    check_whole("seed", seed, low=0)
    if shard is not None:
        check_shard(shard)
    with probing(model):
        with together():
            chosen = {name: p.detach() for name, p in trainable(model, params=params).items()}
            weights = MovedWeights(model, chosen, directions, plane=betas != [0.0], seed=seed)
            examples = Examples(batches, device_of(model))
            settings = {
                "objectives": {name: described(objective) for name, objective in objectives.items()},
                "alphas": alphas,
                "betas": betas,
                "params": "all trainable" if params is None else sorted(chosen),
                **_origin(weights, seed),
                "weights_sha256": digest(model.state_dict()),
                "code_sha256": source_digest([model, *objectives.values()]),
                "examples_sha256": examples.sha256,
                "num_examples": examples.count,
                "num_steps": check_temporal(model, examples.first),
            }
            with torch.no_grad():
                check_labels("A batch", torch.stack(examples.extremes), model(examples.first).shape[-1])
            examples.store(best_order(model, examples.first))
            known = _measured("resume", resume, settings)
            others = {at for name, result in (elsewhere or {}).items() for at in _measured(name, result, settings)}
            seconds = float(resume.environment.get("seconds") or 0.0) if resume is not None else 0.0
        found, others, seconds = gathered((known, others, seconds))[0]

        def so_far() -> Result:
            rows = _rows(found, objectives, alphas, betas)
            result = record.result(PROBE, rows, settings, model=model, began=began - seconds)
            return result if rows else replace(result, table=pd.DataFrame(columns=list(_COLUMNS)))

        points = [(a, b) for a in alphas for b in betas]
        points = points if shard is None else own_points(points, shard)
        missing = [at for at in points if at not in found and at not in others]
        with (
            torch.no_grad(),
            values_only(model),
            order_kept(),
            watched_currents(model) as currents,
            _saving(save if leads() else None, so_far, save_every) as keep,
        ):
            for at in progress(missing, PROBE) if progress is not None and leads() else missing:
                found[at] = measure(model, examples, objectives, weights.at(*at), currents)
                with together():
                    keep()
    return so_far()


def _axis(name: str, values: Iterable[float]) -> list[float]:
    """The coordinates, checked: at least one, finite, each once."""
    try:
        axis = [float(value) for value in values]
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {values!r}; give a list of numbers.") from None
    if not axis:
        raise ValueError(f"{name} is empty; give at least one number, 0 among them to have the model itself.")
    if wrong := [value for value in axis if not math.isfinite(value)]:
        raise ValueError(f"{name} contains {wrong[0]}; give finite numbers.")
    largest = max(map(abs, axis))
    axis = [0.0 if abs(value) <= _ZERO * largest else value for value in axis]
    if twice := [value for value in axis if axis.count(value) > 1]:
        raise ValueError(f"{name} contains {twice[0]:g} twice; give each coordinate once.")
    return axis


def _origin(weights: MovedWeights, seed: int) -> dict[str, Any]:
    """Where the directions come from, their Euclidean norms, and the cosine between them (None for one)."""
    norms = [math.sqrt(sum(float(d.double().square().sum()) for d in w.values())) for w in weights.directions]
    sha256 = digest({f"{i}.{name}": d for i, w in enumerate(weights.directions) for name, d in w.items()})
    cosine = None
    if len(norms) == 2:
        first, second = weights.directions
        product = sum(float((first[n].double() * second[n].double()).sum()) for n in first if n in second)
        cosine = product / (norms[0] * norms[1])
    return {
        "directions": f"random, filter-normalized, seed {seed}" if weights.random else f"given, {sha256[:8]}",
        "seed": seed if weights.random else None,
        "directions_sha256": sha256,
        "direction_norms": norms,
        "direction_cosine": cosine,
    }


def _measured(name: str, result: Result | None, settings: dict[str, Any]) -> dict[Coordinates, Point]:
    """The points of another, perhaps unfinished, result of the same settings; ``name`` is for messages."""
    if result is None:
        return {}
    if not isinstance(result, Result) or result.probe != PROBE:
        raise ValueError(f"{name} is no result of loss_slice; give one that save received, or None to start anew.")
    if other := differing(settings, result.settings):
        instead = "None to start anew" if name == "resume" else "remove it"
        raise ValueError(
            f"{name} was measured with other {', '.join(other)}; give the same arguments, network and examples, "
            f"or {instead}."
        )
    found = {}
    for at, rows in result.table.groupby(["alpha", "beta"], sort=False):
        losses = dict(zip(rows["objective"], rows["loss"].astype(float), strict=True))
        finite = dict(zip(rows["objective"], rows["finite"].astype(bool), strict=True))
        if losses.keys() == settings["objectives"].keys():
            found[at] = Point(losses, float(rows["accuracy"].iloc[0]), finite)
    return found


def _rows(found: Mapping[Coordinates, Point], objectives: Iterable[str], alphas, betas) -> list[dict[str, Any]]:
    return [
        {
            "objective": name,
            "alpha": alpha,
            "beta": beta,
            "loss": point.losses[name],
            "accuracy": point.accuracy,
            "finite": point.finite[name],
        }
        for name in objectives
        for alpha in alphas
        for beta in betas
        if (point := found.get((alpha, beta))) is not None
    ]


@contextmanager
def _saving(save: Callable[[Result], None] | None, so_far: Callable[[], Result], every: float):
    """A function to call after each point. What it has not saved by the end is saved then, whatever the end is."""
    last, fresh = time.perf_counter(), False

    def keep() -> None:
        nonlocal last, fresh
        fresh = time.perf_counter() - last < every
        if not fresh:
            give()
            last = time.perf_counter()

    def give() -> None:
        if save is not None:
            with unbroken():
                save(so_far())

    try:
        yield keep
    finally:
        if fresh:
            give()
