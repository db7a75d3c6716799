"""How many curvature products the quantities of ``snnprobe hessian`` take, and how to take fewer for a calibration."""

import inspect
from collections.abc import Callable
from typing import Any

from snn_probe.costs.passes import CHECKS, curvature_passes
from snn_probe.measurement import Effort, Passes
from snn_probe.probes import hessian_density, hessian_trace

_NEVER = 1e-30  # a residual that is not reached, so that a calibration takes the products it is to take


def curvature_effort(
    quantity: str,
    measure: Callable[..., Any],
    *,
    k: int,
    num_probes: int | None,
    operator: str,
    name: str | None = None,
) -> Effort:
    """The effort of "eigenvalues", "trace" or "density". ``measure(job, **options)`` calls the probe with these options
    in place of its own."""
    common: dict[str, Any] = dict(what="products", least=2, keeps=True, name=name)
    if quantity == "eigenvalues":
        basis = max(2 * k + 20, 40)
        return Effort(lambda job, most: measure(job, max_products=most, tol=_NEVER), _with_checks, vectors=basis,
                      repeats=typical_products(k, operator), bound=20 * k + 100, **common)  # fmt: skip
    if quantity == "trace":
        wanted = num_probes or _default(hessian_trace, "num_probes")
        return Effort(lambda job, few: measure(job, num_probes=few), _products, repeats=wanted, **common)
    steps = _default(hessian_density, "num_steps")
    wanted = (num_probes or _default(hessian_density, "num_probes")) * steps
    return Effort(lambda job, few: measure(job, num_probes=1, num_steps=few), _products, repeats=wanted, most=steps,
                  vectors=steps, **common)  # fmt: skip


def typical_products(k: int, operator: str) -> int:
    """Products that the top k eigenvalues took as a rule, to a residual of 1e-3: the network ``tiny`` on 128
    digits, after 1, 3 and 8 epochs with SDT and TRT. k = 1, 5, 10: 11 to 35, 24 to 42, 31 to 54 of the Hessian; 8 to 12,
    14 to 17, 14 to 18 of the Gauss-Newton matrix. Other networks need others."""
    return 20 + 3 * k if operator == "hessian" else 11 + k


def _products(settings: dict[str, Any], products: int, batch: int) -> Passes:
    return curvature_passes(settings, products)


def _with_checks(settings: dict[str, Any], products: int, batch: int) -> Passes:
    return curvature_passes(settings, products + CHECKS)


def _default(function: Callable[..., Any], name: str) -> Any:
    return inspect.signature(function).parameters[name].default
