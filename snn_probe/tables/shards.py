"""A landscape dealt out to processes that know nothing of each other: whose a point is, the files, one result of all.

A shard is (i, n), the i-th of n from 1. Which points are its own follows from the grid and n alone. A shard's file holds
what it measured itself: files of any n fit together, as do those that an interrupted shard leaves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from snn_probe.results import Result, load

PROBE = "loss_slice"
ROUNDING = 1e-3  # share of a loss up to which two measurements may differ: rounding now and then moves a spike

Shard = tuple[int, int]
Coordinates = tuple[float, float]
T = TypeVar("T")

_FILE = re.compile(r"(.+)\.shard-([1-9][0-9]{0,8})-of-([1-9][0-9]{0,8})(\.partial)?\.json")
_KEY = ["objective", "alpha", "beta"]
_NUMBERS = ["alpha", "beta", "loss", "accuracy"]
_DERIVED = (
    "directions",
    "direction_norms",
    "direction_cosine",
    "trajectory",
    "explained",
)  # follow from the directions


# --- whose a point is ---


def shard_of(text: str, surroundings: Mapping[str, str]) -> Shard:
    """The shard that "3/8" names; "slurm": this task's of the SLURM job array that ``surroundings`` tell of.

    ValueError for anything else, and for an array whose numbers have gaps.
    """
    if text == "slurm":
        return _of_array(surroundings)
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"{text!r} is no shard; give I/N with whole numbers 1 <= I <= N, such as 3/8, or slurm.")
    return int(match[1]), int(match[2])


def _of_array(surroundings: Mapping[str, str]) -> Shard:
    """From the least number of the array on in its steps; STEP is 1 and COUNT left out where they are not set."""
    names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP", "COUNT")]
    said = {names[3]: "1"} | {name: surroundings[name] for name in names if name in surroundings}
    if missing := [name for name in names[:4] if name not in said]:
        raise ValueError(f"slurm needs {missing[0]}, which is not set; run in a job of sbatch --array, or give I/N.")
    if wrong := [name for name in said if not re.fullmatch(r"[0-9]{1,9}", said[name])]:
        raise ValueError(f"{wrong[0]} is {said[wrong[0]]!r}, which is no whole number; give I/N.")
    task, low, high, step = (int(said[name]) for name in names[:4])
    of_array = range(low, high + 1, max(step, 1))
    if task not in of_array or int(said.get(names[4], len(of_array))) != len(of_array):
        raise ValueError(
            f"the array of task {task}, from {low} to {high}, has gaps, so some shards would have no task; give "
            "sbatch --array=A-B or A-B:STEP, or I/N."
        )
    return of_array.index(task) + 1, len(of_array)


def check_shard(shard: Any) -> None:
    """ValueError, one sentence, for what is no (i, n)."""
    pair = isinstance(shard, tuple) and len(shard) == 2 and all(type(number) is int for number in shard)
    if not pair or not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"shard is {shard!r}; give (i, n) with whole numbers 1 <= i <= n, or None for all points.")


def owners(points: Sequence[Any], count: int) -> list[int]:
    """For each of a grid's points the number of its shard among ``count``: as many for each, scattered by a hash.

    What one shard of some count leaves undone is thus spread evenly over the shards of another.
    """
    order = sorted(range(len(points)), key=lambda at: sha256(f"{count} {at}".encode()).digest())
    found = [0] * len(points)
    for place, at in enumerate(order):
        found[at] = place % count + 1
    return found


def own_points(points: Sequence[T], shard: Shard) -> list[T]:
    """The points of a grid that are this shard's, in their order."""
    return [point for point, owner in zip(points, owners(points, shard[1]), strict=True) if owner == shard[0]]


# --- files ---


def shard_path(path: Path, shard: Shard) -> Path:
    """The shard's part of the result ``path``: NAME.shard-3-of-8.json for NAME.json."""
    return path.with_name(f"{path.stem}.shard-{shard[0]}-of-{shard[1]}.json")


def shard_files(folder: Path) -> dict[str, dict[Shard, list[Path]]]:
    """The shards' files in a folder by the name of their result: what each wrote, and what it left when interrupted."""
    found: dict[str, dict[Shard, list[Path]]] = {}
    for path in sorted(folder.glob("*.json"), key=_by_number):
        if match := _FILE.fullmatch(path.name):
            found.setdefault(match[1], {}).setdefault((int(match[2]), int(match[3])), []).append(path)
    return found


def _by_number(path: Path) -> list[Any]:
    """A key that sorts 10 after 9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", path.name)]


def fullest(files: Iterable[Path]) -> tuple[str, Result] | None:
    """Of one shard's files the one with most points; None where there is none (any more). ValueError for a broken one."""
    found = []
    for path in sorted(files, key=lambda path: ".partial" not in path.suffixes):  # removed when the whole is there
        try:
            result = load(path)
        except ValueError:
            if path.exists():
                raise
            continue
        _check(str(path), result)
        found.append((str(path), result))
    return max(reversed(found), key=lambda one: len(one[1].table), default=None)


def _check(name: str, result: Result) -> None:
    """ValueError unless this is a part of a loss slice."""
    settings, table = result.settings, result.table
    axes = [settings.get(axis) for axis in ("alphas", "betas")]
    numbers = all(isinstance(a, list) and a and all(type(v) in (int, float) and isfinite(v) for v in a) for a in axes)
    objectives = settings.get("objectives")
    problem = ""
    if result.probe != PROBE:
        problem = f"holds {result.probe!r} results"
    elif not numbers or not isinstance(objectives, dict) or not objectives or not _whole(settings.get("num_examples")):
        problem = "does not say its grid, objectives and number of examples"
    elif missing := [column for column in (*_KEY, "loss", "accuracy", "finite") if column not in table]:
        problem = f"has no column {missing[0]!r}"
    elif wrong := [c for c in _NUMBERS if len(table) and not pd.api.types.is_numeric_dtype(table[c])]:
        problem = f"has no numbers in the column {wrong[0]!r}"
    elif not _index(table).isin(_rows(settings)).all():
        problem = "holds points that are not on its grid"
    if problem:
        raise ValueError(f"{name} {problem}, so it is no shard of a landscape; remove it or make it again")


def _whole(value: Any) -> bool:
    return type(value) is int and value > 0


# --- one result ---


def differing(settings: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of the settings in which a slice is another than ``other``; what follows from its directions is not
    compared, since it is rounded otherwise on another machine."""
    return [name for name in settings if name not in _DERIVED and settings[name] != other.get(name)]


def merged(shards: Mapping[str, Result]) -> Result:
    """The rows of all shards, {name for messages: result}, in the order that one process gives them, and its settings.

    ``seconds`` of the environment is the sum; where shards ran on different systems it lists them. Raises ValueError
    for other settings, and for points on which shards disagree by more than rounding.
    """
    (name, first), *others = shards.items()
    for other_name, other in others:
        if names := differing(first.settings, other.settings):
            said = ", ".join(one.removesuffix("_sha256") for one in names)
            raise ValueError(
                f"{other_name} was measured with other {said} than {name}; keep the shards of one landscape in a "
                "folder, and remove the others"
            )
    tables = [result.table.assign(file=name) for name, result in shards.items() if len(result.table)]
    table = pd.concat(tables, ignore_index=True) if tables else first.table.assign(file="")
    kept = table.drop_duplicates(_KEY)
    _check_agreement(table.merge(kept, on=_KEY, suffixes=("", "_first")), first.settings["num_examples"])
    index = _rows(first.settings)
    kept = kept.set_index(_KEY).drop(columns="file")
    rows = kept.reindex(index[index.isin(kept.index)]).reset_index()
    return Result(PROBE, rows, first.settings, first.source, _environment([r.environment for r in shards.values()]))


def holes(result: Result) -> list[Coordinates]:
    """The points of the grid that a merged result lacks, wholly or for one of its objectives."""
    index = _rows(result.settings)
    lacking = {(alpha, beta) for _, alpha, beta in index[~index.isin(_index(result.table))]}
    return [point for point in grid(result.settings) if point in lacking]


def grid(settings: Mapping[str, Any]) -> list[Coordinates]:
    """All points of a slice, in order."""
    return [(alpha, beta) for alpha in settings["alphas"] for beta in settings["betas"]]


def _rows(settings: Mapping[str, Any]) -> pd.MultiIndex:
    """(objective, alpha, beta) of all rows of a slice, in order."""
    axes = [[float(value) for value in settings[name]] for name in ("alphas", "betas")]
    return pd.MultiIndex.from_product([list(settings["objectives"]), *axes], names=_KEY)


def _index(table: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(table[_KEY])


def _check_agreement(pairs: pd.DataFrame, num_examples: int) -> None:
    """ValueError for a point on which a file and the first that has it disagree."""
    loss, before = (pairs[name].to_numpy(dtype=float) for name in ("loss", "loss_first"))
    right, right_before = (pairs[name].to_numpy(dtype=float) for name in ("accuracy", "accuracy_first"))
    equal = np.isclose(loss, before, rtol=ROUNDING, atol=0.0, equal_nan=True)
    equal &= np.isclose(right, right_before, rtol=ROUNDING, atol=1.01 / num_examples, equal_nan=True)
    equal &= (pairs["finite"] == pairs["finite_first"]).to_numpy(dtype=bool)
    for row in pairs[~equal].itertuples():
        raise ValueError(
            f"{row.file_first} and {row.file} disagree at (alpha, beta) = ({row.alpha:.6g}, {row.beta:.6g}), where "
            f"{row.objective} is {row.loss_first:.6g} and {row.loss:.6g}; remove the one that is wrong"
        )


def _environment(environments: Sequence[dict]) -> dict:
    """What all say; a list where they differ; the sum of seconds and the last date."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(key for one in environments for key in one):
        values = [one.get(name) for one in environments]
        distinct = [value for at, value in enumerate(values) if value not in values[:at]]
        found[name] = distinct[0] if len(distinct) == 1 else distinct
    times = [one.get("seconds") for one in environments]
    found["seconds"] = sum(time for time in times if isinstance(time, int | float))
    found["date"] = max(str(one.get("date")) for one in environments)
    return {**found, "shards": len(environments)}
