"""Figures of curvature from stored tables: data, labels, and what is marked as doubtful."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from snn_probe import figures as gallery
from snn_probe.drawing import curvature as curvature_figures
from snn_probe.drawing.style import figure_bytes

EIGENVALUES = pd.DataFrame(
    {"rank": [1, 2, 3], "eigenvalue": [9.0, 4.0, 1.0], "residual": [0, 1e-4, 0.2], "converged": [True, True, False], "products": 7}
)  # fmt: skip


def test_eigenvalues_against_rank_unconverged_hollow():
    ax = curvature_figures.eigenvalues(EIGENVALUES, Figure().subplots(), said="hessian, spiking forward")
    line, hollow = ax.lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2, 3], [9, 4, 1])
    assert (list(hollow.get_xdata()), hollow.get_markerfacecolor()) == ([3], "white")
    assert ax.get_ylabel() == "Eigenvalue\n(hessian, spiking forward)" and ax.get_ylim()[0] == 0


def test_density_keeps_a_single_outlier_among_many():
    x = np.linspace(-1, 100, 512)
    table = pd.DataFrame({"eigenvalue": x, "density": np.exp(-(x**2)) + 1e-6 * np.exp(-((x - 90) ** 2))})
    ax = curvature_figures.spectral_density(table, Figure().subplots(), said="ggn, relaxed forward")
    drawn = ax.lines[0].get_ydata()
    assert np.isfinite(drawn[np.abs(x - 90) < 1]).all() and np.isnan(drawn[np.abs(x - 50) < 10]).all()
    assert (ax.get_yscale(), ax.get_xlabel()) == ("log", "Eigenvalue\n(ggn, relaxed forward)")


@pytest.mark.parametrize("width", [3.25, 6.75])
def test_whole_figures_by_name(width):
    assert gallery.figure_names("hessian_eigenvalues", EIGENVALUES) == ["eigenvalues"]
    figure = gallery.draw("eigenvalues", EIGENVALUES, width=width, title="A title", said="hessian, relaxed forward")
    assert figure.get_figwidth() == width and figure_bytes(figure, "png").startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="there is no figure 'spectrum'"):
        curvature_figures.draw("spectrum", EIGENVALUES)
