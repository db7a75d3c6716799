"""Whole figures of loss slices for print: one panel per objective and checkpoint, an objective on one colour scale."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from snn_probe.drawing.landscape import loss_contour, loss_line, loss_surface
from snn_probe.drawing.loss_scale import loss_bar, rows_of, shared_norm
from snn_probe.drawing.style import Handles, add_legend, filled, series_of, style
from snn_probe.results import IDENTIFYING
from snn_probe.tables.slices import slices

_PANEL = 1.4  # inches, the least width of a plane
_EDGE = 0.05  # inches above and below the panels
_LINES = 2.2  # inches, the least width of lines with their two axes
AROUND = 0.08  # inches around a surface, whose labels the layout underestimates


def figure_names(table: pd.DataFrame) -> list[str]:
    """The figures that a table has the points for; none for a grid of one point."""
    found = slices(table)
    lines = all(len(s.betas) == 1 and len(s.alphas) > 1 for s in found)
    planes = all(len(s.betas) > 1 and len(s.alphas) > 1 for s in found)
    return ["loss_line"] * lines + ["loss_contour", "loss_surface"] * planes


def draw(
    name: str, table: pd.DataFrame, *, width: float = 3.25, title: str | None = None, measured_on: str = "", **options
) -> Figure:
    """A figure for print, "loss_line", "loss_contour" or "loss_surface", ``width`` inches wide.

    Lines: a panel per objective. Planes: a panel per objective and checkpoint, those of an objective on one colour
    scale with its bar. ``measured_on`` is said below. ``options`` go to the figure's function. Raises ValueError as that does.
    """
    if name not in (names := ("loss_line", "loss_contour", "loss_surface")):
        raise ValueError(f"draw: there is no figure {name!r}; choose one of {', '.join(names)}")
    if name == "loss_surface" and (labels := options.get("labels")):  # the edges of a surface have room for symbols
        options["labels"] = tuple(label.partition(" (")[0] for label in labels)
        measured_on = "; ".join([*filter(None, [measured_on]), *labels])
    with style():
        figure = Figure(figsize=(width, width), layout="constrained" if name == "loss_line" else "compressed")
        objectives = list(dict.fromkeys(table["objective"])) if "objective" in table else [None]
        rows = _draw_lines if name == "loss_line" else _draw_planes
        rows(figure, name, table, objectives, width, options)
        if title:
            figure.suptitle(filled(title, width - 0.2), fontsize=8)
        if name != "loss_line":
            fit_height(figure)
        add_legend(figure, Handles(figure.axes), width, said=measured_on)
    return figure


def fit_height(figure: Figure) -> None:
    """Make a figure of square panels, whose width says how large they are, as high as they are: nothing blank."""
    figure.draw_without_rendering()
    boxes = [box for artist in (*figure.axes, *figure.texts) if (box := artist.get_tightbbox()) is not None]
    used = max(box.y1 for box in boxes) - min(box.y0 for box in boxes)
    figure.set_figheight(used / figure.dpi + 2 * _EDGE)


def _draw_lines(figure, name, table, objectives, width, options) -> None:
    columns = max(1, min(len(objectives), int(width / _LINES)))
    count = -(-len(objectives) // columns)
    figure.set_figheight(count * (0.9 + 0.4 * width / columns))
    for i, objective in enumerate(objectives):
        loss_line(table, figure.add_subplot(count, columns, i + 1), objective=objective, **options)


def _draw_planes(figure, name, table, objectives, width, options) -> None:
    panels = {o: series_of(rows_of(table, o), _apart(table)) for o in objectives}
    most = max(map(len, panels.values()))
    columns = max(1, min(most, int(width / _PANEL)))
    count = -(-most // columns)
    side = min((width - 0.6) / columns, 4.0)
    figure.set_figheight(len(objectives) * count * (side + 0.25))
    projection = {"projection": "3d"} if name == "loss_surface" else {}
    if projection:
        figure.get_layout_engine().set(h_pad=AROUND, w_pad=AROUND)
    function = loss_surface if name == "loss_surface" else loss_contour
    for k, (objective, series) in enumerate(panels.items()):
        norm = options.get("norm") or shared_norm(table, objective=objective)
        places = range(k * count * columns + 1, (k + 1) * count * columns + 1)
        axes = [figure.add_subplot(len(objectives) * count, columns, i, **projection) for i in places[: len(series)]]
        for i, (ax, one) in enumerate(zip(axes, series, strict=True)):
            function(one.rows, ax, **{**options, "norm": norm})
            if projection:
                ax.set_zlabel("")
            else:
                _share(ax, left=i % columns == 0, bottom=i + columns >= len(axes))
            ax.set_title(filled(_title(one, series), side), fontsize=7.5, pad=3)
        loss_bar(figure, axes, norm, rows_of(table, objective))


def _share(ax: Axes, *, left: bool, bottom: bool) -> None:
    """One of several planes side by side: square, axes labelled at the outside only."""
    ax.set_box_aspect(1)
    ax.tick_params(labelleft=left, labelbottom=bottom)
    ax.set(xlabel=ax.get_xlabel() if bottom else "", ylabel=ax.get_ylabel() if left else "")


def _title(one, series) -> str:
    """What tells a panel apart: its label, and its directions where others have the same label."""
    alike = sum(other.label == one.label for other in series) > 1
    return ", ".join(filter(None, (one.label, str(one.rows["directions"].iloc[0]) if alike else "")))


def _apart(table: pd.DataFrame) -> list[str]:
    return [name for name in (*IDENTIFYING, "directions") if name in table]
