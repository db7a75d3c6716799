"""The iterations against matrices whose spectrum is known; the defining equations, not stored numbers."""

import numpy as np
import pytest
import torch

from snn_probe.probes.lanczos import quadrature, top_eigenpairs


def matrix(values, seed=0):
    g = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=g, dtype=torch.float64))
    return q @ torch.diag(torch.as_tensor(values, dtype=torch.float64)) @ q.T


def start(n, seed=1):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SPECTRA = {
    "decaying": np.r_[10.0, 8.0, 5.0, 4.0, 3.5, np.linspace(1, 0, 95)],
    "indefinite": np.r_[np.linspace(-50, 0, 60), np.linspace(0, 3, 60)],
    "close": np.r_[1.0, 0.999, 0.998, np.linspace(0.9, -0.9, 77)],
    "negative": np.linspace(-9, -1, 30),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("basis", [12, 200])
def test_largest_eigenpairs_with_and_without_restart(name, basis):
    a = matrix(SPECTRA[name])
    found = top_eigenpairs(a.__matmul__, start(len(a)), k=3, tol=1e-9, max_products=3000, basis=basis)
    truth = np.sort(SPECTRA[name])[::-1][:3]
    assert found.converged.all()
    assert found.values == pytest.approx(truth, rel=1e-8)
    for value, vector, residual in zip(found.values, found.vectors, found.residuals, strict=True):
        assert float(vector.norm()) == pytest.approx(1.0, abs=1e-10)
        true_residual = float((a @ vector - value * vector).norm()) / abs(found.values[0])
        assert true_residual == pytest.approx(residual, abs=1e-11)


def test_unconverged_is_said():
    a = matrix(SPECTRA["close"])
    found = top_eigenpairs(a.__matmul__, start(len(a)), k=3, tol=1e-9, max_products=6, basis=40)
    assert found.products == 6 and not found.converged.any()
    assert (found.values <= np.sort(SPECTRA["close"])[::-1][:3] + 1e-12).all()  # Ritz values are lower bounds


def test_invariant_subspaces_and_repeated_eigenvalues():
    a = torch.diag(torch.tensor([5.0, 5.0, 5.0, 2.0, 2.0, 0.0, 0.0], dtype=torch.float64))
    found = top_eigenpairs(a.__matmul__, start(7), k=5, tol=1e-8, max_products=100, basis=7)
    assert found.values == pytest.approx([5, 5, 5, 2, 2], abs=1e-9)
    zero = top_eigenpairs(lambda v: 0 * v, start(4), k=2, tol=1e-6, max_products=20, basis=4)
    assert zero.values == pytest.approx([0, 0], abs=1e-12)


def test_quadrature_integrates_polynomials_exactly():
    """m nodes integrate v.A^j v exactly up to degree 2m - 1."""
    a, v = matrix(SPECTRA["decaying"] / 10), start(100)
    v = v / v.norm()
    nodes, weights = quadrature(a.__matmul__, v, num_steps=5)
    power = v.clone()
    for degree in range(10):
        assert (weights * nodes**degree).sum() == pytest.approx(float(v @ power), rel=1e-9), degree
        power = a @ power


def test_nan_stops_with_its_iteration():
    a = matrix(SPECTRA["decaying"])
    calls = []

    def broken(v):
        calls.append(1)
        return a @ v * (float("nan") if len(calls) == 4 else 1.0)

    with pytest.raises(ValueError, match="Product 4 of the eigenvalue iteration is not finite"):
        top_eigenpairs(broken, start(100), k=2, tol=1e-9, max_products=50, basis=30)
    calls.clear()
    with pytest.raises(ValueError, match="Product 4 of the Lanczos iteration is not finite"):
        quadrature(broken, start(100), num_steps=10)
