"""All figures by name, whichever file they are in. (No torch, no files.)"""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from snn_probe import curvature_figures, figures, landscape_panels, time_figures
from snn_probe.figure_style import figure_bytes
from snn_probe.results import Result

__all__ = ["draw", "figure_bytes", "figure_names", "figure_options"]

_LANDSCAPE = ("loss_line", "loss_contour", "loss_surface")


def figure_names(probe: str, table: pd.DataFrame) -> list[str]:
    """The figures that a table of this probe's results (or "metrics") has the rows for."""
    if probe == "loss_slice":
        return landscape_panels.figure_names(table)
    for module in (figures, time_figures, curvature_figures):
        if probe in module.FIGURES:
            return module.figure_names(probe, table)
    return []


def draw(name: str, table: pd.DataFrame, *, width: float = 3.25, title: str | None = None, **options) -> Figure:
    """The figure ``name``, ``width`` inches wide; ``options`` go to its function. ValueError for an unknown name."""
    if name in _LANDSCAPE:
        return landscape_panels.draw(name, table, width=width, title=title, **options)
    for module in (time_figures, curvature_figures):
        if name in {known for entries in module.FIGURES.values() for known, _ in entries}:
            return module.draw(name, table, width=width, title=title, **options)
    return figures.draw(name, table, width=width, title=title, **options)


def figure_options(name: str, results: list[Result]) -> dict[str, Any]:
    """What the axis must say of how the numbers were estimated; refuses to mix estimators in one figure."""
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
        return {"labels": (f"{alpha} (distance along eigenvector 1)", f"{beta} (along eigenvector 2)")}
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
    except KeyError as error:
        raise ValueError(f"A {results[0].probe} result does not say its {error}; measure it again.") from None
    if len(kinds) > 1:
        raise ValueError(
            f"These {results[0].probe} results differ in {', '.join(names)}, so they cannot share an axis; "
            "draw them in separate figures."
        )
    return kinds.pop()
