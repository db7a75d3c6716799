"""Lanczos iterations with full reorthogonalisation: top eigenpairs (thick restart) and Gauss quadrature."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Matvec = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Eigenpairs:
    """Largest first: values (k,), vectors (k, P), residuals |Av - lambda v| / |lambda_1| (k,), converged (k,)."""

    values: np.ndarray
    vectors: Tensor
    residuals: np.ndarray
    converged: np.ndarray
    products: int


def top_eigenpairs(matvec: Matvec, start: Tensor, *, k: int, tol: float, max_products: int, basis: int) -> Eigenpairs:
    """The k algebraically largest eigenpairs of a symmetric operator, by Lanczos with thick restart (Wu & Simon 2000).

    ``start`` (P,) begins the iteration, ``basis`` bounds the vectors held at a time. The projected matrix is formed
    from the coefficients of a complete orthogonalisation, done twice, so a restart needs no case of its own.
    Stops when every residual is at most ``tol`` relative to the largest eigenvalue's size, or after ``max_products``.
    Raises ValueError, naming the iteration, when a product is not finite.
    """
    size = start.numel()
    basis = min(basis, size)
    vectors = torch.empty(basis, size, dtype=start.dtype, device=start.device)
    projected = np.zeros((basis, basis))
    following, used, products, before = start / start.norm(), 0, 0, None
    while True:
        vectors[used] = following
        used += 1
        image = matvec(following)
        products += 1
        if not image.isfinite().all():
            raise ValueError(f"Product {products} of the eigenvalue iteration is not finite; the curvature overflows.")
        scale = float(image.norm())
        image, coefficients = orthogonalized(image, vectors[:used])
        projected[:used, used - 1] = projected[used - 1, :used] = coefficients
        beta = float(image.norm())
        values, mix = np.linalg.eigh(projected[:used, :used])
        order = np.argsort(values)[::-1]
        values, mix = values[order], mix[:, order]
        exhausted = beta <= 100 * torch.finfo(start.dtype).eps * scale or used == size
        residuals = np.zeros(used) if exhausted else beta * np.abs(mix[-1]) / max(abs(values[0]), 1e-300)
        found = min(k, used)
        done = used >= k and bool((residuals[:k] <= tol).all())
        if exhausted and used < size:  # a repeated eigenvalue shows in the complement only: look there once more
            done = done and before is not None and np.allclose(values[:k], before, rtol=tol, atol=tol * abs(values[0]))
            before = values[:k] if used >= k else None
        if done or products >= max_products or (exhausted and used == size):
            top = torch.as_tensor(mix[:, :found].T.copy(), dtype=start.dtype, device=start.device) @ vectors[:used]
            return Eigenpairs(values[:found], top, residuals[:found], residuals[:found] <= tol, products)
        if exhausted:
            generator = torch.Generator().manual_seed(used)
            image = torch.randn(size, generator=generator).to(start)
            image, _ = orthogonalized(image, vectors[:used])
            beta = float(image.norm())
        following = image / beta
        if used == basis:
            keep = min(k + (basis - k) // 2, basis - 1)
            kept = torch.as_tensor(mix[:, :keep].T.copy(), dtype=start.dtype, device=start.device) @ vectors[:used]
            vectors[:keep] = kept
            projected[:] = 0.0
            projected[range(keep), range(keep)] = values[:keep]
            used = keep
            following, _ = orthogonalized(following, vectors[:used])
            following = following / following.norm()


def quadrature(matvec: Matvec, start: Tensor, *, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Gauss quadrature of v.f(A)v, v = ``start`` of unit norm, from ``num_steps`` products."""
    size = start.numel()
    steps = min(num_steps, size)
    vectors = torch.empty(steps, size, dtype=start.dtype, device=start.device)
    projected = np.zeros((steps, steps))
    following = start / start.norm()
    for j in range(steps):
        vectors[j] = following
        image = matvec(following)
        if not image.isfinite().all():
            raise ValueError(f"Product {j + 1} of the Lanczos iteration is not finite; the curvature overflows.")
        scale = float(image.norm())
        image, coefficients = orthogonalized(image, vectors[: j + 1])
        projected[: j + 1, j] = projected[j, : j + 1] = coefficients
        beta = float(image.norm())
        if beta <= 100 * torch.finfo(start.dtype).eps * scale:
            projected = projected[: j + 1, : j + 1]
            break
        following = image / beta
    nodes, mix = np.linalg.eigh(projected)
    return nodes, mix[0] ** 2


def orthogonalized(image: Tensor, vectors: Tensor) -> tuple[Tensor, np.ndarray]:
    """``image`` less its part in the span of the orthonormal rows of ``vectors``, twice for rounding; and that part."""
    first = vectors @ image
    image = image - vectors.T @ first
    second = vectors @ image
    return image - vectors.T @ second, (first + second).double().cpu().numpy()
