"""Flatness against areas and rises known by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from snn_probe.results import Result
from snn_probe.tables.flatness import flatness, flatness_spread
from snn_probe.tables.slices import combine_slices, slices


def table(loss, alphas, betas=(0.0,), objective="sdt", finite=None):
    """Rows of ``loss(alpha, beta)`` on a grid; ``finite(alpha, beta)`` marks points."""
    rows = [
        (objective, a, b, float(loss(a, b)), 0.5, bool(finite(a, b)) if finite else math.isfinite(loss(a, b)))
        for a in alphas
        for b in betas
    ]
    return pd.DataFrame(rows, columns="objective alpha beta loss accuracy finite".split())


def measured(rows, **options):
    (row,) = flatness(rows, **options).to_dict("records")
    return row


LINE = np.linspace(-2, 2, 9)
FINE = np.linspace(-1, 1, 41)


def test_a_length_is_interpolated_linearly():
    """|a| is linear between the points, so the region |a| <= 0.7 is exactly 1.4 long, of 4."""
    row = measured(table(lambda a, b: 3 + abs(a), LINE), level=0.7, radius=1.25)
    assert row == {
        "objective": "sdt", "dimensions": 1, "loss": 3.0, "extent": pytest.approx(1.4), "share": pytest.approx(0.35),
        "rise": pytest.approx(1.25), "complete": True,
    }  # fmt: skip


def test_a_line_along_beta_and_a_lopsided_one():
    assert measured(table(lambda a, b: b**2, [0.0], LINE), level=1.0, radius=2.0)["extent"] == pytest.approx(2.0)
    lopsided = measured(table(lambda a, b: 2 * a if a > 0 else -a, LINE), level=1.0, radius=1.0)
    assert lopsided["extent"] == pytest.approx(1.5) and lopsided["rise"] == pytest.approx(1.5)


def test_the_area_of_a_half_plane_is_exact_and_that_of_a_disc_nearly():
    """Linear functions are interpolated exactly. A disc of radius 0.6: the error of a chord is h^2/8R, h = 0.05."""
    plane = measured(table(lambda a, b: a + b, LINE, LINE), level=1.0, radius=1.0)
    assert plane["extent"] == pytest.approx(16 - 9 / 2, rel=1e-12)  # all but the corner above a + b = 1
    assert plane["rise"] == pytest.approx(0.0, abs=1e-12) and not plane["complete"]
    disc = measured(table(lambda a, b: 5 + a**2 + b**2, FINE, FINE), level=0.36, radius=0.8)
    assert disc["extent"] == pytest.approx(math.pi * 0.36, rel=3 * 0.05**2 / 8 / 0.6**2)
    assert disc["rise"] == pytest.approx(0.64, rel=3 * 0.05**2 / 4 / 0.64)
    assert disc["complete"] and disc["share"] == disc["extent"] / 4 and disc["dimensions"] == 2


def test_all_of_the_grid_counts_and_a_flat_one_is_full():
    flat = measured(table(lambda a, b: 1.0, LINE, LINE), level=0.1, radius=1.0)
    assert (flat["extent"], flat["share"], flat["rise"], flat["complete"]) == (16.0, 1.0, 0.0, False)
    two = measured(table(lambda a, b: min(abs(a), abs(a - 1.5)), LINE), level=0.25, radius=1.0)
    assert two["extent"] == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_points_that_are_not_finite_are_above_and_say_so(bad):
    rows = table(lambda a, b: bad if a > 1 else abs(a), LINE, LINE)
    row = measured(rows, level=0.5, radius=1.0)
    assert row["extent"] == pytest.approx(4.0) and not row["complete"]  # reaches both ends of beta
    line = table(lambda a, b: bad if a > 1 else abs(a), LINE)
    inside = measured(line, level=0.5, radius=1.0)
    assert inside["complete"] and inside["rise"] == 1.0
    reached = measured(line, level=1.0, radius=2.0)
    assert not reached["complete"] and math.isnan(reached["rise"])
    assert reached["extent"] == 2.0


def test_a_number_that_is_marked_as_not_finite_is_not_believed():
    rows = table(lambda a, b: 0.0, LINE, finite=lambda a, b: abs(a) <= 1)
    row = measured(rows, level=1.0, radius=1.0)
    assert row["extent"] == 2.0 and not row["complete"]
    lost = measured(table(lambda a, b: 0.0, LINE, finite=lambda a, b: a != 0), level=1.0, radius=1.0)
    assert math.isnan(lost["extent"]) and math.isnan(lost["rise"]) and not lost["complete"]


def test_rows_may_come_in_any_order():
    rows = table(lambda a, b: a**2 + abs(b), FINE[::4], FINE[::5])
    shuffled = rows.sample(frac=1.0, random_state=0)
    options = dict(level=0.3, radius=0.5)
    assert flatness(rows, **options).equals(flatness(shuffled, **options))
    (found,) = slices(shuffled)
    assert found.loss[2, 3] == pytest.approx(found.alphas[2] ** 2 + abs(found.betas[3]))


# Several slices


def results(widths, methods=("sdt", "trt")):
    """Losses (a / width)^2 along several directions for each method."""
    for k, method in enumerate(methods):
        for i, width in enumerate(widths):
            rows = pd.concat(
                table(lambda a, b, w=width, k=k: k + (a / w) ** 2, FINE, objective=name) for name in ("sdt", "tet")
            )
            config = {"method": method, "dataset": "digits", "model": "tiny", "seed": 0, "num_steps": 4}
            card = {"run": f"{method}-seed0", "epoch": 5, "kind": "last", "config": config}
            yield Result("loss_slice", rows, {"directions": f"random, filter-normalized, seed {i}"}, card)


def test_the_spread_over_directions():
    """Below level 0.04 the parabola (a / w)^2 is 0.4 w wide."""
    widths = [1.0, 2.0, 1.5]
    found = flatness(combine_slices(results(widths)), level=0.04, radius=0.5)
    assert len(found) == 12
    assert found["extent"].head(6).to_numpy() == pytest.approx(0.4 * np.repeat(widths, 2), rel=0.01)
    spread = flatness_spread(found)
    assert (spread["method"] + spread["objective"]).tolist() == ["sdtsdt", "sdttet", "trtsdt", "trttet"]
    assert spread["n"].tolist() == [3] * 4
    assert "directions" not in spread
    assert spread["extent"].to_numpy() == pytest.approx(0.6, rel=0.01)
    assert spread["extent_std"].to_numpy() == pytest.approx(0.2, rel=0.02)
    assert spread["loss"].tolist() == [0.0, 0.0, 1.0, 1.0] and spread["loss_std"].tolist() == [0.0] * 4
    rises = [0.25 / w**2 for w in widths]
    assert spread["rise"].to_numpy() == pytest.approx(np.mean(rises), rel=0.01)
    assert spread["rise_std"].to_numpy() == pytest.approx(np.std(rises, ddof=1), rel=0.01)
    assert spread["complete"].all()


def test_one_direction_has_no_spread():
    spread = flatness_spread(flatness(combine_slices(results([1.0])), level=0.04, radius=0.5))
    assert spread["n"].tolist() == [1] * 4 and spread["extent_std"].isna().all()


# Bad input


GRID = table(lambda a, b: abs(a), LINE)


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        (GRID, dict(level=0.0), r"flatness: level is 0\.0; give a positive number"),
        (GRID, dict(level=math.nan), r"flatness: level is nan; give a positive number"),
        (GRID, dict(radius=-1), r"flatness: radius is -1; give a positive number"),
        (GRID, dict(radius=2.5), r"flatness: radius is 2\.5, but the grid reaches 2 on its shortest side; give a sm"),
        (GRID.head(1).assign(alpha=0.0), {}, r"flatness: the grid has one point; measure a slice with at least 2 al"),
        (GRID[GRID["alpha"] != 0], {}, r"flatness: the grid has no point \(0, 0\); measure a slice with 0 among"),
        (
            table(lambda a, b: a, LINE, LINE).head(80),
            {},
            r"a slice has 80 of its 81 points; resume it to measure the others",
        ),
        (pd.concat([GRID, GRID]), {}, r"a point of a slice occurs twice; tell slices along several directions apart"),
        (GRID.drop(columns="beta"), {}, r"the table has no column 'beta'; give the table of a loss_slice result"),
        (GRID.head(0), {}, r"the table is empty; give the table of a loss_slice result"),
    ],
)
def test_bad_input_gets_one_sentence(rows, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        flatness(rows, **{"level": 1.0, "radius": 1.0, **options})


def test_a_spread_needs_something_to_spread_over():
    with pytest.raises(ValueError, match=r"flatness_spread: there is no column 'directions'; give flatness"):
        flatness_spread(flatness(GRID, level=1.0, radius=1.0))
