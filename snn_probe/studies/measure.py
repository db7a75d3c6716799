"""The probes of a recipe, carried out on a checkpoint: each kind is one function (network, batches, options) -> Result.

    fisher, fisher_batch_mean    fisher_trace, per example or (as published) of the mean over ``group_size``
    eigenvalues, hessian_trace, density    curvature of ``objective``; "own" is the one the checkpoint was trained with
    landscape    loss along ``num_directions`` random filter-normalized directions, seeds from ``seed`` on
    plane        loss on the plane of two such directions
    eigenslice   loss along the top eigenvector of the spiking Hessian; columns eigenvalue and converged are its own
    gradients, timesteps, activity    temporal_gradient_norms, timestep_accuracy, spiking_activity

Directions and examples depend on the settings alone, so all arms and seeds share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from snn_probe import probes
from snn_probe.checkpoint import Checkpoint, build_model
from snn_probe.config import RunConfig, Stage
from snn_probe.data import Examples, batches, load
from snn_probe.distributed import own_device
from snn_probe.machine.memory import halving
from snn_probe.objectives import OBJECTIVES
from snn_probe.own import is_own
from snn_probe.own.objective import own_objective
from snn_probe.results import Result
from snn_probe.studies.plan import Measurement
from snn_probe.studies.recipe_probes import ALL, Probe
from snn_probe.unfinished import continued

_TIMED = ("date", "seconds")


def measure(
    wanted: Measurement, checkpoint: Checkpoint, *, data_root: Path | None, device: str, path: Path | None = None
) -> Result:
    """The result of one measurement, with what makes it in its source and without anything that differs between two
    runs of the same program: dates and seconds are in the study's own record. ``path`` is where it will be saved;
    slices of the loss keep their points beside it as they come (:mod:`snn_probe.unfinished`)."""
    found = measure_probe(wanted.probe, checkpoint, data_root=data_root, device=device, path=path)
    card = {
        **checkpoint.card,
        "metrics": _without_times(checkpoint.card["metrics"]),
        "environment": _without_times(checkpoint.card["environment"]),
    }
    source = {**card, "kind": "epoch", "stage": asdict(checkpoint.stage), "arm": wanted.run.arm,
              "group": wanted.run.group, "made_from": wanted.made_from}  # fmt: skip
    return replace(found, source=source, environment=_without_times(found.environment))


def measure_probe(
    probe: Probe,
    checkpoint: Checkpoint,
    *,
    data_root: Path | None,
    device: str,
    most: int | None = None,
    path: Path | None = None,
) -> Result:
    """The probe on its examples, at most ``most`` of them; ``path`` as in :func:`measure`."""
    model = build_model(checkpoint).to(own_device(device))
    data = examples(probe, checkpoint.config, checkpoint.stage, data_root, most)
    own = checkpoint.stage.objective()

    def measured(at_once: int) -> Result:
        if probe.kind in _SLICES:
            return _SLICES[probe.kind](model, batches(data, at_once), own, dict(probe.options), path)
        return _MEASURES[probe.kind](model, batches(data, at_once), own, dict(probe.options))

    found = halving(measured, min(probe.batch_size, len(data)), probe.name)
    return replace(found, settings={**found.settings, "split": probe.split, "num_examples": len(data)})


def examples(
    probe: Probe, config: RunConfig, stage: Stage, data_root: Path | None, most: int | None = None
) -> Examples:
    """The first examples of the probe's split, of the training split only what was trained on.

    Raises ValueError where the split has fewer than the recipe says.
    """
    trained_on = config.train_examples if probe.split == "train" else None
    wanted = None if probe.num_examples == ALL else probe.num_examples
    limits = [limit for limit in (wanted, trained_on, most) if limit is not None]
    return _loaded(config.dataset, probe.split, stage.num_steps, min(limits, default=None), data_root,
                   config.image_size, config.classes)  # fmt: skip


@lru_cache(maxsize=8)
def _loaded(dataset, split, num_steps, count, data_root, image_size, classes) -> Examples:
    return load(dataset, split, num_steps=num_steps, num_examples=count, root=data_root, image_size=image_size,
                classes=classes)  # fmt: skip


def _objective(name: str, own: Any) -> Any:
    """The loss of this name, with its default hyperparameters; "own" is what the network was trained with."""
    if is_own(name):
        return own_objective(name, {}, option="--objective")
    return own if name == "own" else OBJECTIVES[name]()


def _fisher(model: nn.Module, data: Any, own: Any, options: dict[str, Any]) -> Result:
    return probes.fisher_trace(model, data, **options)


def _eigenvalues(model: nn.Module, data: Any, own: Any, options: dict[str, Any]) -> Result:
    return probes.hessian_eigenvalues(model, data, _objective(options.pop("objective"), own), **options)


def _trace(model: nn.Module, data: Any, own: Any, options: dict[str, Any]) -> Result:
    return probes.hessian_trace(model, data, _objective(options.pop("objective"), own), **options)


def _density(model: nn.Module, data: Any, own: Any, options: dict[str, Any]) -> Result:
    return probes.hessian_density(model, data, _objective(options.pop("objective"), own), **options)


def _landscape(model: nn.Module, data: Any, own: Any, options: dict[str, Any], path: Path | None) -> Result:
    """Slices along several directions in one table, told apart by its column directions."""
    losses, alphas = [_objective(name, own) for name in options["objectives"]], _axis(options)
    seeds = range(options["seed"], options["seed"] + options["num_directions"])
    found = [continued(path, seed, model, data, losses, alphas=alphas, seed=seed) for seed in seeds]
    table = pd.concat([one.table.assign(directions=one.settings["directions"]) for one in found], ignore_index=True)
    return replace(found[0], table=table, settings={**found[0].settings, "num_directions": len(found)})


def _plane(model: nn.Module, data: Any, own: Any, options: dict[str, Any], path: Path | None) -> Result:
    losses, axis, seed = [_objective(name, own) for name in options["objectives"]], _axis(options), options["seed"]
    return continued(path, seed, model, data, losses, alphas=axis, betas=axis, seed=seed)


def _eigenslice(model: nn.Module, data: Any, own: Any, options: dict[str, Any], path: Path | None) -> Result:
    """Loss along the unit top eigenvector, beside the eigenvalue that surrogate derivatives promise there."""
    loss = _objective(options["objective"], own)
    top, (vector,) = probes.hessian_eigenvectors(model, data, loss, k=1, tol=options["tol"], seed=options["seed"])
    found = continued(path, options["seed"], model, data, [loss], alphas=_axis(options), directions=vector)
    row = top.table.iloc[0]
    table = found.table.assign(eigenvalue=row["eigenvalue"], converged=bool(row["converged"]))
    said = {"directions": "top eigenvector of the Hessian, spiking forward", "operator": "hessian",
            "forward": "spiking", "seed": options["seed"], "tol": options["tol"]}  # fmt: skip
    return replace(found, table=table, settings={**found.settings, **said})


def _gradients(model: nn.Module, data: Any, own: Any, options: dict[str, Any]) -> Result:
    return probes.temporal_gradient_norms(model, data, _objective(options["objective"], own))


def _timesteps(model: nn.Module, data: Any, own: Any, options: dict[str, Any]) -> Result:
    return probes.timestep_accuracy(model, data, **options)


def _activity(model: nn.Module, data: Any, own: Any, options: dict[str, Any]) -> Result:
    return probes.spiking_activity(model, data)


_MEASURES: dict[str, Callable[..., Result]] = {
    "fisher": _fisher,
    "fisher_batch_mean": _fisher,
    "eigenvalues": _eigenvalues,
    "hessian_trace": _trace,
    "density": _density,
    "gradients": _gradients,
    "timesteps": _timesteps,
    "activity": _activity,
}
_SLICES: dict[str, Callable[..., Result]] = {"landscape": _landscape, "plane": _plane, "eigenslice": _eigenslice}
"""These take a long time point by point, and also where their points may be kept."""


def _axis(options: Mapping[str, Any]) -> list[float]:
    """So many equidistant coordinates from -range to range."""
    return np.linspace(-options["range"], options["range"], options["points"]).tolist()


def _without_times(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in _TIMED}
