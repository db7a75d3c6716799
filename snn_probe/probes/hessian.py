"""Curvature of the training objective: top eigenvalues, trace and density of the Hessian or Gauss-Newton matrix.

What is differentiated, and how the two forward modes differ, is said in :mod:`snn_probe.probes.operator`. Everything is
measured in eval mode on the batches given; all of P, or the parameters that ``params`` selects (a layer, say).
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from snn_probe.distributed import together
from snn_probe.parameters import Predicate, trainable, unflatten
from snn_probe.probes import record
from snn_probe.probes.batching import check_choice, check_labels, check_whole, device_of, on_device
from snn_probe.probes.lanczos import Eigenpairs, quadrature, top_eigenpairs
from snn_probe.probes.operator import FORWARDS, OPERATORS, CurvatureOperator, asymmetry, spikes_as
from snn_probe.probes.second_order import second_order
from snn_probe.probes.surrogates import check_twice_differentiable, warn_of_flat_surrogates
from snn_probe.results import Result
from snn_probe.temporal import Batches, check_temporal, probing

Objective = Callable[..., Tensor]

_GRID = 512  # points of a spectral density
_BROADENING = 0.01  # width of the Gaussians of a density, relative to the range of the eigenvalues


def hessian_eigenvalues(
    model: nn.Module,
    batches: Batches,
    objective: Objective,
    *,
    k: int = 5,
    tol: float = 1e-3,
    max_products: int | None = None,
    operator: str = "hessian",
    forward: str = "spiking",
    params: Predicate | None = None,
    seed: int = 0,
) -> Result:
    """The k algebraically largest eigenvalues: columns rank, eigenvalue, residual, converged, products.

    residual = |Hv - lambda v| / |lambda_1|; ``converged`` where it is at most ``tol``; ``products`` used in all
    (``max_products`` bounds them, default 20 k + 100). An unconverged value is a lower bound, kept and marked. A
    repeated eigenvalue may stand there once: one start vector does not see its copies.
    Not the curvature of the sampled loss unless ``forward="relaxed"``. Raises ValueError for a bad argument, k larger
    than the number of parameters, and a model or batches that break their contracts.
    """
    return _eigenvalues(model, batches, objective, k, tol, max_products, operator, forward, params, seed)[0]


def hessian_eigenvectors(
    model: nn.Module, batches: Batches, objective: Objective, **options
) -> tuple[Result, list[dict[str, Tensor]]]:
    """The result of :func:`hessian_eigenvalues` (same options) and its unit eigenvectors, each by parameter name."""
    defaults = dict(k=5, tol=1e-3, max_products=None, operator="hessian", forward="spiking", params=None, seed=0)
    return _eigenvalues(model, batches, objective, **{**defaults, **options})


def _eigenvalues(model, batches, objective, k, tol, max_products, operator, forward, params, seed):
    began = time.perf_counter()
    check_whole("k", k, low=1)
    if not isinstance(tol, int | float) or not 0 < tol < 1:
        raise ValueError(f"tol is {tol!r}; give a number between 0 and 1.")
    limit = 20 * k + 100 if max_products is None else max_products
    check_whole("max_products", limit, low=1)
    with _prepared(model, batches, objective, operator, forward, params, seed) as (curvature, settings):
        if k > curvature.size:
            raise ValueError(f"k is {k}, but only {curvature.size} parameters are selected; give k from 1 to that.")

        def work() -> tuple[Eigenpairs, float]:
            start, basis = _gaussian(curvature, seed), max(2 * k + 20, 40)
            pairs = top_eigenpairs(curvature.__matmul__, start, k=k, tol=tol, max_products=limit, basis=basis)
            found = _asymmetry(curvature, pairs, seed)
            return replace(pairs, vectors=pairs.vectors.cpu()), found

        pairs, asymmetric = curvature.driven(work)
        settings |= {
            "k": k,
            "tol": tol,
            "max_products": limit,
            "which": "algebraically largest",
            "asymmetry": asymmetric,
        }
        rows = [
            {
                "rank": i + 1,
                "eigenvalue": float(pairs.values[i]),
                "residual": float(pairs.residuals[i]),
                "converged": bool(pairs.converged[i]),
                "products": pairs.products,
            }
            for i in range(len(pairs.values))
        ]
        vectors = [unflatten(v.to(curvature.zeros()), curvature.params) for v in pairs.vectors]
    return record.result("hessian_eigenvalues", rows, settings, model=model, began=began), vectors


def hessian_trace(
    model: nn.Module,
    batches: Batches,
    objective: Objective,
    *,
    num_probes: int = 30,
    operator: str = "hessian",
    forward: str = "spiking",
    params: Predicate | None = None,
    seed: int = 0,
) -> Result:
    """Trace by Hutchinson's estimator, mean of u.Hu over ``num_probes`` random sign vectors: trace, stderr, n_probes.

    Unbiased; ``stderr`` is the standard error over the probes. (Hutchinson 1990.)
    """
    began = time.perf_counter()
    check_whole("num_probes", num_probes, low=2)
    with _prepared(model, batches, objective, operator, forward, params, seed) as (curvature, settings):
        values = curvature.driven(lambda: _sign_products(curvature, num_probes, seed))
        settings |= {"num_probes": num_probes}
    stderr = float(np.std(values, ddof=1) / math.sqrt(num_probes))
    rows = [{"trace": float(np.mean(values)), "stderr": stderr, "n_probes": num_probes}]
    return record.result("hessian_trace", rows, settings, model=model, began=began)


def hessian_density(
    model: nn.Module,
    batches: Batches,
    objective: Objective,
    *,
    num_probes: int = 10,
    num_steps: int = 40,
    operator: str = "hessian",
    forward: str = "spiking",
    params: Predicate | None = None,
    seed: int = 0,
) -> Result:
    """Density of all P eigenvalues by stochastic Lanczos quadrature: columns eigenvalue, density (integral 1).

    Each of ``num_probes`` random vectors gives ``num_steps`` nodes and weights; their mean is drawn as Gaussians whose
    standard deviation is 1 % of the range (``broadening`` in the settings). The extremes are exact, the bulk is an
    estimate; peaks narrower than the broadening are not resolved. (Ghorbani et al., ICML 2019.)
    """
    began = time.perf_counter()
    check_whole("num_probes", num_probes, low=1)
    check_whole("num_steps", num_steps, low=2)
    with _prepared(model, batches, objective, operator, forward, params, seed) as (curvature, settings):
        nodes, weights = curvature.driven(lambda: _nodes(curvature, num_probes, num_steps, seed))
        span = float(np.ptp(nodes)) or max(abs(float(nodes[0])), 1e-12)
        width = _BROADENING * span
        grid = np.linspace(nodes.min() - 4 * width, nodes.max() + 4 * width, _GRID)
        bumps = np.exp(-0.5 * ((grid[:, None] - nodes) / width) ** 2) / (width * math.sqrt(2 * math.pi))
        settings |= {
            "num_probes": num_probes,
            "num_steps": num_steps,
            "broadening": width,
            "products": curvature.products,
        }
    rows = [{"eigenvalue": float(x), "density": float(y)} for x, y in zip(grid, bumps @ weights, strict=True)]
    return record.result("hessian_density", rows, settings, model=model, began=began)


def _sign_products(curvature: CurvatureOperator, num_probes: int, seed: int) -> list[float]:
    """u.Hu for random sign vectors u."""
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(num_probes):
        signs = torch.randint(0, 2, (curvature.size,), generator=generator) * 2 - 1
        u = signs.to(curvature.zeros())
        values.append(float((u * (curvature @ u)).sum(dtype=torch.float64)))
    return values


def _nodes(curvature: CurvatureOperator, num_probes: int, num_steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the quadratures of all random vectors; the weights add up to 1."""
    generator = torch.Generator().manual_seed(seed)
    nodes, weights = [], []
    for _ in range(num_probes):
        start = torch.randn(curvature.size, generator=generator, dtype=torch.float64).to(curvature.zeros())
        x, w = quadrature(curvature.__matmul__, start, num_steps=num_steps)
        nodes.append(x)
        weights.append(w / num_probes)
    return np.concatenate(nodes), np.concatenate(weights)


@contextmanager
def _prepared(model, batches, objective, operator, forward, params, seed) -> Iterator[tuple[CurvatureOperator, dict]]:
    """The checked operator, and the settings that every curvature result carries."""
    check_choice("operator", operator, OPERATORS)
    check_choice("forward", forward, FORWARDS)
    check_whole("seed", seed, low=0)
    if not callable(objective) or isinstance(objective, type):
        raise ValueError(
            f"objective is {objective!r}; give SDT(), TET(), TRT() or a function of (logits, labels, params)."
        )
    with probing(model):
        with together():
            chosen = trainable(model, params=params)
            held = list(on_device(batches, device_of(model)))
            steps = check_temporal(model, held[0][0][:2])
            _check_labels(model, held)
        with spikes_as(model, forward), second_order(model):
            with together():
                check_twice_differentiable(model)
                flat = warn_of_flat_surrogates(model) if operator == "hessian" else []
                curvature = CurvatureOperator(model, held, objective, chosen, operator=operator)
            settings = {
                "objective": repr(objective),
                "operator": operator,
                "forward": forward,
                "params": "all trainable" if params is None else sorted(chosen),
                "num_parameters": curvature.size,
                "num_examples": curvature.count,
                "num_steps_simulated": steps,
                "seed": seed,
                "graphs_kept": curvature.kept,
                "examples_at_once": curvature.examples_at_once,
                "without_second_derivative": flat,
            }
            yield curvature, settings


def _check_labels(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        classes = model(batches[0][0][:1]).shape[-1]
    for i, (_, labels) in enumerate(batches):
        check_labels(f"Batch {i}", labels, classes)


def _gaussian(curvature: CurvatureOperator, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(curvature.size, generator=generator, dtype=torch.float64).to(curvature.zeros())


def _asymmetry(curvature: CurvatureOperator, pairs: Eigenpairs, seed: int) -> float:
    """u.Hv against v.Hu, with v a random vector and u the top eigenvector plus another; two products."""
    v = _gaussian(curvature, seed + 1)
    u = _gaussian(curvature, seed + 2) / math.sqrt(curvature.size) + pairs.vectors[0]
    return asymmetry(curvature, u, v, curvature @ v)
