"""The result of a probe: one tidy table, the settings that made it, the card of what it was measured on.

A result is one JSON file. Nothing here needs torch, so results can be read, compared and drawn on any machine.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd

from snn_probe import __version__
from snn_probe.machine.files import read_json, write_atomically

FORMAT = "snn_probe.result"
VERSION = 1
IDENTIFYING = ("run", "method", "dataset", "model", "seed", "epoch", "num_steps", "checkpoint")  # see combine()

_INTEGERS = ("seed", "epoch", "num_steps")
_INFINITE = {"Infinity": math.inf, "-Infinity": -math.inf}
_NONE = type(None)
_ALLOWED: dict[str, set[type]] = {  # column dtype -> the types its JSON values may have
    "float64": {float, int, _NONE},
    "int64": {int},
    "Int64": {int, _NONE},
    "bool": {bool},
    "boolean": {bool, _NONE},
    "str": {str, _NONE},
}


@dataclass(frozen=True, eq=False)
class Result:
    """What a probe returns; ``load("x.json").table`` is the DataFrame of a saved one.

    probe: the probe's name, such as "fisher_trace". table: a pandas DataFrame, one row per measured number.
    settings: the probe's arguments, by name. source: the card of the checkpoint measured; empty for a network that
    has none. environment: versions, device and time, see ``environment()``. The dicts hold what JSON can hold.
    """

    probe: str
    table: pd.DataFrame
    settings: dict
    source: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)


def save(result: Result, path: str | os.PathLike[str]) -> None:
    """Write ``result`` to ``path`` as one strict JSON object; ``load`` gives every value and dtype back.

    In the table NaN is null and +-inf are "Infinity" and "-Infinity"; columns become float64, int64, bool or str
    (or Int64 and boolean, where whole numbers or truth values are missing), named under ``dtypes``. The index is not
    stored. In settings, source and environment numpy values become plain ones, tuples lists, paths strings and
    NaN null. Raises ValueError for what JSON cannot hold, OSError when the file cannot be written.
    """
    columns = {name: _encode(name, result.table.iloc[:, i]) for i, name in enumerate(result.table.columns)}
    if len(columns) != result.table.shape[1] or not all(isinstance(name, str) for name in columns):
        raise ValueError(f"save: the table's columns are {list(result.table.columns)}; give each its own name, a str")
    document = {
        "format": f"{FORMAT}/{VERSION}",
        "probe": result.probe,
        "settings": _plain(result.settings, "settings"),
        "source": _plain(result.source, "source"),
        "environment": _plain(result.environment, "environment"),
        "dtypes": {name: dtype for name, (dtype, _) in columns.items()},
        "table": {name: values for name, (_, values) in columns.items()},
    }
    lines = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in document.items())
    write_atomically(path, "{\n" + ",\n".join(lines) + "\n}\n")


def load(path: str | os.PathLike[str]) -> Result:
    """Read the result that ``save`` wrote to ``path``; ValueError, in one sentence, if there is none."""
    where = os.fspath(path)
    try:
        document = read_json(path, parse_constant=_not_strict)
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise ValueError(f"{where} {reason}; give the path of a saved snn_probe result") from error
    except ValueError as error:
        raise ValueError(f"{where} is not complete JSON ({error}); make the result again") from error
    _check_format(where, document)
    expected = {"probe": str, "settings": dict, "source": dict, "environment": dict, "table": dict, "dtypes": dict}
    for key, kind in expected.items():
        if not isinstance(document.setdefault(key, {}), kind):
            came = type(document[key]).__name__
            raise ValueError(f"{where}: {key!r} is a {came} where a {kind.__name__} belongs; make the result again")
    parts = {key: document[key] for key in ("probe", "settings", "source", "environment")}
    return Result(**parts, table=_decode(where, document["table"], document["dtypes"]))


def combine(results: Iterable[Result]) -> pd.DataFrame:
    """One table of several results of the same probe, for comparing what they were measured on.

    Every row begins with the columns of ``IDENTIFYING``, taken from the result's source: ``run``, ``epoch``,
    ``checkpoint`` (its "kind": last, best or epoch) and, from its "config", ``method``, ``dataset``, ``model``,
    ``seed`` and ``num_steps``. What a source does not say is a missing value; where the table has a column of that
    name, the table's own is kept. Raises ValueError for no result, or for results of different probes.
    """
    results = list(results)
    probes = sorted({result.probe for result in results})
    if len(probes) != 1:
        came = f"results of {' and '.join(probes)}" if probes else "no result"
        raise ValueError(f"combine: got {came}; give one or more results of a single probe")
    tables = []
    for result in results:
        own = {name: value for name, value in _identity(result.source).items() if name not in result.table}
        kinds = {name: "Int64" if name in _INTEGERS else "str" for name in own}
        front = pd.DataFrame({name: [value] * len(result.table) for name, value in own.items()}).astype(kinds)
        tables.append(pd.concat([front, result.table.reset_index(drop=True)], axis=1))
    combined = pd.concat(tables, ignore_index=True)
    whole = [name for name in _INTEGERS if combined[name].dtype == "Int64" and not combined[name].hasnans]
    rest = [name for name in combined.columns if name not in IDENTIFYING]
    return combined.astype(dict.fromkeys(whole, "int64"))[[*IDENTIFYING, *rest]]


def environment(**extra: object) -> dict:
    """What a measurement ran on: versions (null where absent), machine, commit of this package's source, UTC date.

    ``extra`` adds what only the caller knows: device, threads, seconds. ``git_commit`` and ``git_modified`` (whether
    the package differs from that commit) are null unless the package is tracked in a git checkout. Never raises.
    """
    commit, modified = _git_state()
    return {
        "python": platform.python_version(),
        "snn_probe": __version__,
        **{name: _version(name) for name in ("torch", "spikingjelly", "numpy")},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "git_commit": commit,
        "git_modified": modified,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **extra,
    }


def _identity(source: dict) -> dict:
    """The identifying values that a source states, None for the others."""
    config = source.get("config")
    stage = source.get("stage")  # of training: its T is the one the network was measured with
    stated = {**(config if isinstance(config, dict) else {}), "checkpoint": source.get("kind")}
    stated |= {"num_steps": stage.get("num_steps")} if isinstance(stage, dict) else {}
    stated |= {name: source.get(name) for name in ("run", "epoch")}
    stated["method"] = method_of(stated)
    kinds = {name: Integral if name in _INTEGERS else str for name in IDENTIFYING}
    return {name: stated.get(name) if isinstance(stated.get(name), kind) else None for name, kind in kinds.items()}


def method_of(config: Mapping[str, object]) -> object:
    """The method of a configuration; TRT without decay, which is plain L2, is the control arm "trt-l2"."""
    values = config.get("hyperparameters")
    plain = config.get("method") == "trt" and isinstance(values, dict) and values.get("decay") == 0
    return "trt-l2" if plain else config.get("method")


def strict_json(value: object) -> str:
    """``value`` as strict JSON on one line: numpy values, tuples and paths become plain, NaN null, +-inf strings."""
    return json.dumps(_plain(value, "the value"), allow_nan=False)


def _encode(name: object, column: pd.Series) -> tuple[str, list]:
    """dtype and JSON values of one column."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    nullable = isinstance(column.dtype, pd.api.extensions.ExtensionDtype) or column.hasnans
    if kind in ("floating", "mixed-integer-float", "empty"):
        return "float64", [None if pd.isna(value) else _number(float(value)) for value in column]
    if kind == "string":
        return "str", [None if pd.isna(value) else str(value) for value in column]
    if kind in ("integer", "boolean"):
        dtype = ("Int64" if nullable else "int64") if kind == "integer" else ("boolean" if nullable else "bool")
        plain = int if kind == "integer" else bool
        values = [None if pd.isna(value) else plain(value) for value in column]
        if all(value is None or _fits(value) for value in values):
            return dtype, values
        kind = "integers beyond 64 bits"
    raise ValueError(f"save: column {name!r} holds {kind}; give floats, 64-bit integers, booleans or strings")


def _decode(where: str, table: dict, dtypes: dict) -> pd.DataFrame:
    """The table again; ``dtypes`` may lack a column, whose dtype then follows from its values."""
    lengths = {name: len(values) if isinstance(values, list) else "no list" for name, values in table.items()}
    if len(set(lengths.values())) > 1 or "no list" in lengths.values():
        raise ValueError(f"{where}: the table's columns have lengths {lengths}; make the result again")
    columns = {}
    for name, values in table.items():
        dtype = dtypes.get(name) or _guess(values)
        if dtype == "float64":
            values = [_INFINITE.get(value, value) if isinstance(value, str) else value for value in values]
        allowed = _ALLOWED.get(dtype, set()) if isinstance(dtype, str) else set()
        wrong = [value for value in values if type(value) not in allowed or not _fits(value)]
        if wrong or not allowed:
            held = f"holds {wrong[0]!r}, which is not {dtype}" if allowed else f"has the unknown dtype {dtype!r}"
            raise ValueError(f"{where}: column {name!r} {held}; make the result again")
        columns[name] = pd.Series(values, dtype=dtype)
    return pd.DataFrame(columns)


def _guess(values: list) -> str:
    """The dtype of a column written without one: no value at all, or numbers with nulls, are float64."""
    kinds = {type(value) for value in values} - {_NONE}
    if kinds == {bool}:
        return "boolean" if None in values else "bool"
    if kinds == {int} and None not in values:
        return "int64"
    if all(value in _INFINITE for value in values if isinstance(value, str)):
        return "float64"
    return "str"


def _fits(value: object) -> bool:
    """Whether a value, if it is an integer, fits into 64 bits."""
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _number(value: float) -> float | str | None:
    """A float as strict JSON has it."""
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _plain(value: object, where: str) -> object:
    """``value`` with numpy scalars and arrays, tuples and paths turned into what JSON has; NaN becomes None."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or value is pd.NA:
        return None
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    came = "a dict whose keys are not all strings" if isinstance(value, dict) else f"a {type(value).__name__}"
    raise ValueError(f"save: {where} is {came}; give numbers, strings, booleans, None, lists, or dicts by name")


def _check_format(where: str, document: object) -> None:
    """ValueError unless the document says that it is a result of a format this version knows."""
    if isinstance(document, list):
        raise ValueError(f"{where} holds a list of {len(document)}; give a file of one result, as probes save them")
    stated = document.get("format") if isinstance(document, dict) else None
    name, _, version = stated.partition("/") if isinstance(stated, str) else ("", "", "")
    if name != FORMAT or not version.isdecimal():
        raise ValueError(f"{where} is not a snn_probe result (its format is {stated!r}); give one that a probe saved")
    if int(version) != VERSION:
        raise ValueError(f"{where} has format {stated}, this snn_probe reads {FORMAT}/{VERSION}; upgrade snn_probe")


def _not_strict(token: str) -> None:
    raise ValueError(f"{token} is not JSON")


@cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@cache
def _git_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout in which this package is tracked, and whether the package differs from it; asked once, as
    the source that a process runs is what it has read."""
    redirecting = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}
    surroundings = {name: value for name, value in os.environ.items() if name not in redirecting}

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(Path(__file__).parent), *arguments]
        done = subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no", "--", "."))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None, None
