"""Curvature of ``tiny`` on 256 digits, T = 4: top five Hessian eigenvalues at tolerance 1e-3 against three peers, and
the spectral density against PyHessian with the same number of vectors and Lanczos steps.

The reference is ARPACK at a tolerance of 1e-6 on products taken by plain automatic differentiation of the model as it
is, so it shares neither our iteration nor our derivatives.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from cases import digits_case
from contests import Contest, Work
from scipy.sparse.linalg import LinearOperator, eigsh

from snn_probe.objectives import SDT
from snn_probe.probes import hessian_density, hessian_eigenvalues
from snn_probe.results import Result

K, TOL = 5, 1e-3
VECTORS, STEPS = 2, 30
WHAT = "Hessian top 5, tiny, 256 digits, T=4, tol 1e-3"
ERROR = "largest error of the five over the largest eigenvalue; reference: ARPACK, tolerance 1e-6, plain autograd"

Peer = Callable[[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]], Callable[[], np.ndarray]]


def plain_products(model, batch) -> LinearOperator:
    leaves = list(model.parameters())
    gradients = torch.autograd.grad(SDT()(model(batch[0]), batch[1]), leaves, create_graph=True)

    def product(v):
        pieces = torch.from_numpy(v.astype(np.float32).reshape(-1)).split([p.numel() for p in leaves])
        pieces = [piece.view(p.shape) for piece, p in zip(pieces, leaves, strict=True)]
        found = torch.autograd.grad(gradients, leaves, pieces, retain_graph=True)
        return torch.cat([g.reshape(-1) for g in found]).numpy()

    size = sum(p.numel() for p in leaves)
    return LinearOperator((size, size), matvec=product, dtype=np.float32)


def arpack(model, batch, tol: float = TOL) -> np.ndarray:
    start = np.random.default_rng(0).standard_normal(sum(p.numel() for p in model.parameters()))
    return eigsh(plain_products(model, batch), k=K, which="LA", tol=tol, v0=start.astype(np.float32))[0]


def scipy_peer(model, batch):
    return lambda: arpack(model, batch)


def pyhessian_peer(model, batch):
    from pyhessian import hessian

    def peer():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its backward(create_graph=True)
            found = hessian(model, lambda z, y: SDT()(z, y), data=batch, cuda=False).eigenvalues(top_n=K, tol=TOL)[0]
        model.zero_grad()
        return np.array(found)

    return peer


def torch_eig(matrix, eigenvectors):
    """``torch.eig``, which torch has removed and PyHessian 0.1 calls: of a symmetric matrix, as it is used there."""
    values, vectors = torch.linalg.eigh(matrix)
    return torch.stack([values, torch.zeros_like(values)], 1), vectors


def density_prepared(count: int = 256) -> Callable[[bool], Work]:
    def prepare(small: bool) -> Work:
        from pyhessian import hessian

        torch.manual_seed(0)
        model, batch = digits_case(2 if small else count)
        exact = None

        def peer():
            torch.eig = torch_eig
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = hessian(model, lambda z, y: SDT()(z, y), data=batch, cuda=False).density(STEPS, VECTORS)
            finally:
                del torch.eig
            model.zero_grad()
            return float(np.max(found[0]))

        def ours():
            found = hessian_density(model, [batch], SDT(), num_probes=VECTORS, num_steps=STEPS)
            return found.table["eigenvalue"].max() - 4 * found.settings["broadening"]

        def error(largest) -> float:
            nonlocal exact
            exact = arpack(model, batch, tol=1e-6).max() if exact is None else exact
            return abs(largest - exact) / exact

        return Work(peer, ours, error)

    return prepare


def eigenthings_peer(model, batch):
    """Its Lanczos runs a fixed number of products; we give it the smallest multiple of 10 that converges."""
    from hessian_eigenthings import HessianOperator, lanczos

    operator = HessianOperator(model, [batch], lambda model, batch: SDT()(model(batch[0]), batch[1]))

    def run(products):
        return lanczos(operator, k=K, max_iter=products, tol=TOL, which="LA", seed=0)

    enough = next((m for m in range(10, 101, 10) if bool(run(m).converged.all())), None) if len(batch[1]) > 2 else 10
    if enough is None:
        raise RuntimeError("100 products do not converge")
    return lambda: run(enough).eigenvalues.numpy()


def prepared(peer: Peer, count: int = 256) -> Callable[[bool], Work]:
    def prepare(small: bool) -> Work:
        torch.manual_seed(0)
        model, batch = digits_case(2 if small else count)
        exact = None

        def error(answer) -> float:
            nonlocal exact
            if exact is None:
                exact = np.sort(arpack(model, batch, tol=1e-6))
            values = answer.table["eigenvalue"].to_numpy() if isinstance(answer, Result) else answer
            return float(np.abs(np.sort(values) - exact).max() / exact[-1])

        return Work(peer(model, batch), lambda: hessian_eigenvalues(model, [batch], SDT(), k=K, tol=TOL), error)

    return prepare


CONTESTS = [
    Contest("hessian-pyhessian", WHAT, "PyHessian", prepared(pyhessian_peer), ERROR, "pyhessian"),
    Contest(
        "hessian-eigenthings", WHAT, "hessian-eigenthings", prepared(eigenthings_peer), ERROR, "hessian-eigenthings"
    ),
    Contest(
        "density-pyhessian", f"spectral density, {VECTORS} vectors, {STEPS} steps, tiny, 256 digits, T=4",
        "PyHessian with torch.eig put back", density_prepared(),
        "largest node over the largest eigenvalue; reference: ARPACK, tolerance 1e-6, plain autograd", "pyhessian",
    ),
    Contest("hessian-eigsh", WHAT, "eigsh on a kept graph, scipy", prepared(scipy_peer), ERROR, "scipy"),
]  # fmt: skip
