"""How much work a landscape is: its points, and first the products for eigenvectors if it lies along these."""

from collections.abc import Callable
from functools import partial
from typing import Any

from snn_probe.costs.curvature_efforts import curvature_effort
from snn_probe.measurement import Effort, Job
from snn_probe.probes import hessian_eigenvalues, loss_slice


def landscape_efforts(
    losses: Callable[[Job], dict[str, Any]], directions: Callable[[Job], Any] | None, *, points: int, plane: bool
) -> tuple[Effort, ...]:
    """The efforts of a slice of so many points. ``losses(job)``: the objectives by name; ``directions(job)``: those of
    the slice; None: eigenvectors of the first objective, in whose place the calibration takes random directions."""

    def measure(job: Job, few: int) -> Any:
        alphas, betas = [(i + 1) / few for i in range(few)], [0.5 if plane else 0.0]
        way = None if directions is None else directions(job)
        return loss_slice(job.model, job.batches, losses(job), directions=way, alphas=alphas, betas=betas)

    slices = Effort(measure, lambda settings, count, batch: (count, 0, 0), repeats=points, what="points", keeps=True)
    if directions is not None:
        return (slices,)
    return _eigenvectors(losses, 2 if plane else 1), slices


def _eigenvectors(losses: Callable[[Job], dict[str, Any]], k: int) -> Effort:
    def measure(job: Job, **fewer: Any) -> Any:
        objective = next(iter(losses(job).values()))
        return hessian_eigenvalues(job.model, job.batches, objective, **{"k": k, **fewer})

    return curvature_effort(
        "eigenvalues", partial(measure), k=k, num_probes=None, operator="hessian", name="eigenvectors"
    )
