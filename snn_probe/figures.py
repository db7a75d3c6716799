"""Figures: a table and an Axes in, the Axes out; one function per figure, and all of them by name.

Nothing is measured here, no file is read or written. Each function draws into the Axes it is given and labels its lines;
``draw`` makes a whole figure for print, with the legend below the axes. How lines look and are named is said in
:mod:`snn_probe.drawing.style`.
"""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from snn_probe.drawing import curvature, curves, landscape_panels, over_time
from snn_probe.drawing.activity import energy, firing_rate
from snn_probe.drawing.curvature import eigenvalues, spectral_density
from snn_probe.drawing.curves import fisher_trace, information_centroid, learning_curves
from snn_probe.drawing.landscape import loss_contour, loss_line, loss_surface
from snn_probe.drawing.over_time import gradient_map, gradient_norms, timestep_accuracy
from snn_probe.drawing.style import figure_bytes
from snn_probe.results import Result

__all__ = [
    "draw", "eigenvalues", "energy", "figure_bytes", "figure_names", "figure_options", "firing_rate", "fisher_trace", "gradient_map",
    "gradient_norms", "information_centroid", "learning_curves", "loss_contour", "loss_line", "loss_surface",
    "spectral_density", "timestep_accuracy",
]  # fmt: skip

_LANDSCAPE = ("loss_line", "loss_contour", "loss_surface")


def figure_names(probe: str, table: pd.DataFrame) -> list[str]:
    """The figures that a table of this probe's results (or "metrics") has the rows for."""
    if probe == "loss_slice":
        return landscape_panels.figure_names(table)
    for module in (curves, over_time, curvature):
        if probe in module.FIGURES:
            return module.figure_names(probe, table)
    return []


def draw(
    name: str, table: pd.DataFrame, *, width: float = 3.25, title: str | None = None, measured_on: str = "", **options
) -> Figure:
    """The figure ``name``, ``width`` inches wide, ``measured_on`` below it; ``options`` go to its function.

    Raises ValueError for an unknown name, and what the figure's function raises.
    """
    if name in _LANDSCAPE:
        return landscape_panels.draw(name, table, width=width, title=title, measured_on=measured_on, **options)
    for module in (over_time, curvature):
        if name in {known for entries in module.FIGURES.values() for known, _ in entries}:
            return module.draw(name, table, width=width, title=title, measured_on=measured_on, **options)
    return curves.draw(name, table, width=width, title=title, measured_on=measured_on, **options)


def figure_options(name: str, results: list[Result]) -> dict[str, Any]:
    """What a figure must say of how the numbers were estimated and on which examples; refuses to mix estimators."""
    return {**_estimated(name, results), "measured_on": _examples(results)}


def _estimated(name: str, results: list[Result]) -> dict[str, Any]:
    if name == "fisher_trace":
        size, labels, readout = _common(results, ("group_size", "labels", "readout"))
        said = ["empirical" if labels == "true" else "sampled labels"]
        said += [f"batch mean of {size}"] * (size > 1) + [readout] * (readout != "prefix")
        return {"estimator": ", ".join(said)}
    if results[0].probe.startswith("hessian_"):
        operator, forward = _common(results, ("operator", "forward"))
        return {"said": ", ".join([f"{operator}, {forward} forward", *_objective(results), *_layer(results)])}
    if name in ("loss_line", "loss_contour", "loss_surface"):
        return _of_plane(name, results) or _of_directions(results)
    return {}


def _examples(results: list[Result]) -> str:
    """The numbers of examples and their splits: "256 examples of train", or "400 of train, 60 of test"."""
    known = [
        (one.settings["num_examples"], one.settings.get("split")) for one in results if "num_examples" in one.settings
    ]
    said = [f"{count} examples" + (f" of {split}" if split else "") for count, split in dict.fromkeys(known)]
    return said[0] if len(said) == 1 else ", ".join(text.replace(" examples", "") for text in said)


def _objective(results: list[Result]) -> list[str]:
    """The loss that was differentiated, where it is one for all results."""
    names = {str(result.settings.get("objective", "")).partition("(")[0] for result in results}
    return [*names] if len(names) == 1 and "" not in names else []


def _layer(results: list[Result]) -> list[str]:
    """The layer whose weights alone were measured, where it is one for all results."""
    chosen = [result.settings.get("params") for result in results]
    layers = {name.rpartition(".")[0] for names in chosen for name in (names if isinstance(names, list) else [""])}
    return [*layers] if len(layers) == 1 and "" not in layers else []


def _of_directions(results: list[Result]) -> dict[str, Any]:
    """What the axes of a slice are, where its directions are not random ones."""
    said = {str(result.settings.get("directions", "")).partition(" ")[0] for result in results}
    alpha, beta = r"$\alpha$", r"$\beta$"
    if said == {"top"}:
        return {"labels": (f"{alpha} (eigenvector 1)", f"{beta} (eigenvector 2)")}
    if said == {"line"}:
        return {"labels": (f"{alpha} (0: this network, 1: the other)", beta)}
    return {}


def _of_plane(name: str, results: list[Result]) -> dict[str, Any]:
    """The trajectory of a run on the plane of its principal components, and their shares for the axes."""
    settings = [result.settings for result in results]
    if not any(one.get("trajectory") for one in settings):
        return {}
    if len(results) > 1:
        raise ValueError("Every run has a plane of its own; draw planes of principal components one at a time.")
    shares = [f"PC {i} ({share:.0%})" for i, share in enumerate(settings[0]["explained"], 1)]
    trajectory = {"trajectory": pd.DataFrame(settings[0]["trajectory"])} if name == "loss_contour" else {}
    return {"labels": shares, **trajectory}


def _common(results: list[Result], names: tuple[str, ...]) -> tuple[Any, ...]:
    """The settings that all results must share to stand on one axis."""
    try:
        kinds = {tuple(r.settings[name] for name in names) for r in results}
        apart = [name for name in names if len({str(r.settings[name]) for r in results}) > 1]
    except KeyError as error:
        raise ValueError(f"A {results[0].probe} result does not say its {error}; measure it again.") from None
    if len(kinds) > 1:
        raise ValueError(
            f"These {results[0].probe} results differ in {', '.join(apart)}, so they cannot share an axis; "
            "draw them in separate figures."
        )
    return kinds.pop()
