"""The figures of a study, from its stored tables alone: each as PDF and PNG, and a CSV of exactly what it plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from snn_probe.drawing import study_numbers as numbers
from snn_probe.drawing.effects import draw_effects, effects
from snn_probe.drawing.study_maps import draw_bars, draw_gradient_map, draw_planes
from snn_probe.drawing.study_numbers import Tables
from snn_probe.drawing.study_panels import Curves, draw_curves
from snn_probe.drawing.style import METHODS, fewer_colors, figure_bytes
from snn_probe.machine.files import write_atomically

_DPI = 150  # of PNG, which the report holds once more; the PDF is for print
WIDTHS = (3.25, 6.75)  # inches: one column of a journal, two


@dataclass(frozen=True)
class StudyFigure:
    """A figure: its file name, the table it needs, what it plots of the tables, how, and its caption.

    The caption says what is seen; the report adds estimator, forward mode, examples and seeds from the results.
    """

    name: str
    table: str
    numbers: Callable[[Tables], pd.DataFrame]
    draw: Callable[[pd.DataFrame, float], Figure]
    title: str
    caption: str


def _words(column: str, value: Any) -> str:
    if column == "objective":
        return f"loss: {METHODS[value][0] if value in METHODS else value}"
    return f"epoch {int(value)}" if column == "epoch" else str(value)


def _curves(**how) -> Callable[[pd.DataFrame, float], Figure]:
    chosen = Curves(words=_words, **how)
    return lambda table, width: draw_curves(table, chosen, width)


_TRACE = dict(x="timestep", xlabel="Timestep", panel="arm", line="epoch", log_from=100, whole=True)


def _fisher_curves(plotted: pd.DataFrame, width: float) -> Figure:
    """Fisher traces, called empirical (true labels) unless the table states that labels were sampled."""
    sampled = "labels" in plotted and set(plotted["labels"]) == {"sampled"}
    return _curves(ylabel="Fisher trace\n(sampled labels)" if sampled else "Empirical Fisher trace", **_TRACE)(
        plotted, width
    )


FIGURES = (
    StudyFigure(
        "effects", "claims", lambda tables: effects(tables["claims"]), draw_effects, "All claims",
        "Each claim's effect and its 95 % interval over seeds, in its own unit. Grey: effects too small to matter, as "
        "named in advance.",
    ),
    StudyFigure(
        "learning_curves", "metrics", numbers.learning_curves,
        _curves(
            x="epoch", xlabel="Epoch", panel="quantity", dash="split", whole=True, said="solid: held-out examples; dashed, hollow: training",
            ylabel={"accuracy": "Accuracy (%)", "loss": "Loss", "gap": "Accuracy gap\n(points)"},
        ),
        "Learning curves",
        "Accuracy and loss (cross-entropy of the time-mean logits) on held-out examples (solid) and on the training "
        "ones (dashed; means over the epoch, in training mode), and the difference in accuracy, the generalisation "
        "gap.",
    ),
    StudyFigure(
        "fisher_trace", "fisher", numbers.fisher, _fisher_curves,
        "Fisher information over time",
        "Trace of the Fisher information of the first t logits about all weights, for the epochs that were probed.",
    ),
    StudyFigure(
        "fisher_batch_mean", "fisher_batch_mean", partial(numbers.fisher, name="fisher_batch_mean"),
        _curves(ylabel="Squared batch gradient", **_TRACE), "The published estimator",
        "What published programs call the Fisher trace: the squared norm of the mean gradient of a batch.",
    ),
    StudyFigure(
        "information_centroid", "fisher", numbers.centroids,
        _curves(x="epoch", xlabel="Epoch", ylabel="Information centroid\n(timestep)", whole=True),
        "Information centroid",
        "The timestep around which the Fisher information is gathered: sum of t times trace over sum of traces.",
    ),
    StudyFigure(
        "landscape_line", "landscape", numbers.lines,
        _curves(x="alpha", xlabel=r"$\alpha$", ylabel="Loss", panel="objective", log_from=10), "Loss along a line",
        "The loss along random filter-normalized directions from the trained weights: at 1 each filter has moved by "
        "its own length. All arms and seeds share the directions.",
    ),
    StudyFigure(
        "landscape_plane", "plane", numbers.planes, draw_planes, "Loss on a plane",
        "The loss on the plane of two random filter-normalized directions, of one network per arm: the lowest seed.",
    ),
    StudyFigure(
        "landscape_surface", "plane", numbers.planes, partial(draw_planes, surface=True), "The same as a surface",
        "The planes above as surfaces.",
    ),
    StudyFigure(
        "eigenslice", "eigenslice", partial(numbers.lines, name="eigenslice"),
        _curves(x="alpha", xlabel="Distance along the\ntop eigenvector", ylabel="Loss", panel="objective", log_from=10),
        "Loss along the top eigenvector",
        "The loss that is really sampled along the top eigenvector, a unit vector, of each network's Hessian.",
    ),
    StudyFigure(
        "eigenvalues", "eigenvalues", numbers.eigenvalues,
        _curves(x="rank", xlabel="Rank", ylabel="Eigenvalue", whole=True, log_from=100),
        "Top eigenvalues", "The largest eigenvalues of the Hessian of the loss with respect to all weights.",
    ),
    StudyFigure(
        "hessian_trace", "hessian_trace", numbers.traces,
        _curves(x="epoch", xlabel="Epoch", ylabel="Hessian trace", whole=True, log_from=100), "Trace of the Hessian",
        "The sum of all eigenvalues, estimated with random vectors.",
    ),
    StudyFigure(
        "spectral_density", "density", numbers.densities,
        _curves(x="eigenvalue", xlabel="Eigenvalue", ylabel="Density", panel="arm", line="seed", log_from=1,
                said="a line per seed"),
        "Spectral density", "Density of the eigenvalues of the Hessian, estimated by Lanczos quadrature.",
    ),
    StudyFigure(
        "gradient_norms", "gradients", numbers.gradients,
        _curves(x="timestep", xlabel="Timestep", ylabel="Gradient norm", panel="arm", line="layer", dash="path",
                log_from=3, whole=True, said="dashed, hollow: path through time cut"),
        "Temporal gradients",
        "Norm of the gradient of an example's loss at the input current of each spiking layer, mean over examples.",
    ),
    StudyFigure(
        "gradient_map", "gradients", numbers.gradients, draw_gradient_map, "The same as a map",
        "The solid lines above, layers downwards and timesteps to the right.",
    ),
    StudyFigure(
        "timestep_accuracy", "timesteps", numbers.timesteps,
        _curves(x="timestep", xlabel="Timesteps read, t", ylabel="Accuracy (%)", whole=True, mark="num_steps",
                said="dotted: T of training"),
        "Accuracy against time",
        "Accuracy of the mean of the first t logits, without training again.",
    ),
    StudyFigure(
        "firing_rate", "activity", numbers.firing_rates,
        partial(draw_bars, ylabel="Firing rate\n(spikes per timestep)"), "Firing rates",
        "Spikes per neuron and timestep in every spiking layer, mean over timesteps.",
    ),
    StudyFigure(
        "energy", "activity", numbers.energies, partial(draw_bars, ylabel="Energy per example"), "Energy",
        "4.6 pJ a multiply-accumulate in the first layer, 0.9 pJ an accumulate elsewhere (45 nm): only ratios mean "
        "something.",
    ),
)  # fmt: skip
"""All figures of a study in the order of its report."""


def draw_study(
    tables: Tables, folder: str | Path, *, width: float = 6.75, formats: Sequence[str] = ("pdf", "png")
) -> list[Path]:
    """Draw every figure that ``tables`` has the rows for into ``folder``; the paths written.

    ``tables``: by name, each with the probe's columns, those of ``combine``, ``arm`` and ``group``; "claims" is the
    ledger. A table whose name has something behind a dash, "eigenvalues-relaxed", gives the same figures as
    "eigenvalues", with that behind their names. ``width`` in inches, ``formats`` of "pdf", "png" and "svg". Beside each
    figure lies ``<name>.csv`` with exactly the numbers it plots. Raises ValueError, naming the figure, for a table that
    cannot be drawn.
    """
    folder, written = Path(folder), []
    for figure in FIGURES:
        for name in tables:
            if name.partition("-")[0] == figure.table and not tables[name].empty:
                plotted, drawn = _drawn(figure, {**tables, figure.table: tables[name]}, width)
                stem = figure.name + name.removeprefix(figure.table)
                written += _written(folder / stem, plotted, drawn, formats)
    return written


def _drawn(figure: StudyFigure, tables: Tables, width: float) -> tuple[pd.DataFrame, Figure | None]:
    try:
        plotted = figure.numbers(tables)
        return plotted, None if plotted.empty else figure.draw(plotted, width)
    except KeyError as error:
        raise ValueError(f"the figure {figure.name} needs the column {error} in the table {figure.table!r}") from error
    except ValueError as error:
        raise ValueError(f"the figure {figure.name} cannot be drawn: {error}") from error


def _written(stem: Path, plotted: pd.DataFrame, drawn: Figure | None, formats: Sequence[str]) -> list[Path]:
    if drawn is None:
        return []
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in (*formats, "csv")]
    for path, suffix in zip(paths, formats, strict=False):
        picture = figure_bytes(drawn, suffix, dpi=_DPI)
        write_atomically(path, fewer_colors(picture) if suffix == "png" else picture)
    write_atomically(paths[-1], plotted.to_csv(index=False))
    return paths
