"""The probes that a recipe may name, their options with defaults, and the checking of both. (No torch.)"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from snn_probe.own import check_name, is_own

ALL = "all"
LAST = "last"
_DEFAULT_BATCH = 64
_SPLITS = ("train", "validation", "test")
_OBJECTIVES = ("sdt", "tet", "trt")
_CURVATURE = {"objective": "sdt", "operator": "hessian", "forward": "spiking", "seed": 0}
_FISHER = {"labels": "true", "readout": "prefix", "seed": 0}
_SLICE = {"range": 1.0, "seed": 0}
_COMMON = ("kind", "epochs", "split", "num_examples", "batch_size")


@dataclass(frozen=True)
class Kind:
    """A kind of probe: its options with their defaults, and the examples it takes unless a recipe says otherwise."""

    options: Mapping[str, Any]
    split: str | None = None  # None: the recipe's probe_split
    num_examples: int | str = 256


KINDS: dict[str, Kind] = {
    "fisher": Kind({"group_size": 1, **_FISHER}),
    "fisher_batch_mean": Kind({"group_size": 16, **_FISHER}),
    "eigenvalues": Kind({"k": 5, "tol": 1e-3, "max_products": None, **_CURVATURE}),
    "hessian_trace": Kind({"num_probes": 30, **_CURVATURE}),
    "density": Kind({"num_probes": 10, "num_steps": 40, **_CURVATURE}),
    "landscape": Kind({"objectives": ("sdt", "tet"), "points": 21, "num_directions": 1, **_SLICE}),
    "plane": Kind({"objectives": ("sdt",), "points": 11, **_SLICE}),
    "eigenslice": Kind({"objective": "sdt", "points": 21, "range": 0.1, "tol": 1e-3, "seed": 0}),
    "gradients": Kind({"objective": "own"}),
    "timesteps": Kind({"num_steps": None}, split="test", num_examples=ALL),
    "activity": Kind({}, split="test", num_examples=ALL),
}
"""What each does is said in :mod:`snn_probe.studies.measure`."""

_LEAST = {"group_size": 1, "k": 1, "max_products": 1, "num_probes": 2, "num_steps": 2, "points": 2,
          "num_directions": 1, "seed": 0, "batch_size": 1, "num_examples": 1}  # fmt: skip
_CHOICES = {
    "labels": ("true", "sampled"),
    "readout": ("prefix", "instantaneous"),
    "operator": ("hessian", "ggn"),
    "forward": ("spiking", "relaxed"),
    "split": _SPLITS,
    "objective": ("own", *_OBJECTIVES),
}


@dataclass(frozen=True)
class Probe:
    """A probe of a recipe, everything written out.

    ``epochs``: whole numbers from 1, or "last". ``num_examples``: the first so many of the split, or all of them if
    they are fewer; "all". ``options``: those of its kind. The same for every arm, seed and size of training set.
    """

    name: str
    kind: str
    epochs: tuple[int | str, ...]
    split: str
    num_examples: int | str
    batch_size: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """All that determines a result on a given checkpoint: everything but the name and the epochs."""
        return {"kind": self.kind, "split": self.split, "num_examples": self.num_examples,
                "batch_size": self.batch_size, "options": dict(self.options)}  # fmt: skip


def probe(name: str, given: Mapping[str, Any], *, split: str) -> Probe:
    """The probe ``[probes.<name>]`` of a recipe; ``split`` is the recipe's ``probe_split``.

    Raises ValueError, one sentence, for an unknown kind or key and for a value out of range.
    """
    where = f"[probes.{name}]"
    kind = given.get("kind", name)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"{where} has kind {kind!r}; give as its name or as kind one of {', '.join(KINDS)}.")
    known = KINDS[kind]
    allowed = (*_COMMON, *known.options)
    if unknown := [key for key in given if key not in allowed]:
        raise ValueError(f"{where} has the unknown key {unknown[0]!r}; allowed are {', '.join(allowed)}.")
    for key, value in given.items():
        if key not in ("kind", "epochs"):
            _check(where, key, value)
    return Probe(
        name=name,
        kind=kind,
        epochs=_epochs(where, given.get("epochs", LAST)),
        split=given.get("split", known.split or split),
        num_examples=given.get("num_examples", known.num_examples),
        batch_size=given.get("batch_size", _DEFAULT_BATCH),
        options={key: given.get(key, default) for key, default in known.options.items()},
    )


def check_split(where: str, key: str, value: Any) -> None:
    """ValueError unless ``value`` is the name of a split."""
    _check_choice(where, key, value, _SPLITS)


def _epochs(where: str, given: Any) -> tuple[int | str, ...]:
    epochs = tuple(given) if isinstance(given, list) else (given,)
    if not epochs or not all(epoch == LAST or _is_whole(epoch, 1) for epoch in epochs):
        raise ValueError(f"{where} has epochs {given!r}; give a list of whole numbers from 1, or {LAST!r} among them.")
    return tuple(dict.fromkeys(epochs))


def _check(where: str, key: str, value: Any) -> None:
    """ValueError unless the value is one that the option of this name takes."""
    if key == "objectives":
        if not isinstance(value, list) or not value or not all(is_own(one) or one in _OBJECTIVES for one in value):
            raise ValueError(
                f"{where} has objectives {value!r}; give a list of {', '.join(map(repr, _OBJECTIVES))}, or "
                "package.module:name of your own."
            )
        for one in filter(is_own, value):
            check_name(f"{where}: objective", one)
    elif key == "objective" and is_own(value):
        check_name(f"{where}: objective", value)
    elif key in _CHOICES:
        _check_choice(where, key, value, _CHOICES[key])
    elif key in _LEAST:
        if not _is_whole(value, _LEAST[key]) and (key, value) != ("num_examples", ALL):
            more = f", or {ALL!r}" if key == "num_examples" else ""
            raise ValueError(f"{where} has {key} {value!r}; give a whole number of at least {_LEAST[key]}{more}.")
    elif not _is_positive(value) or (key == "tol" and value >= 1):
        raise ValueError(f"{where} has {key} {value!r}; give a number above 0{' and below 1' * (key == 'tol')}.")


def _check_choice(where: str, key: str, value: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{where} has {key} {value!r}; give one of {', '.join(map(repr, allowed))}.")


def _is_whole(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
