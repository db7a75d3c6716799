"""How the texts of ``snnprobe train``'s options become values."""

from pathlib import Path
from typing import Any

import click


def _value(text: str) -> Any:
    """true and false, numbers where the text is one, else the text."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text


_EXAMPLES = {"hyperparameters": "-p decay=0.5", "neuron": "--neuron leak=0.5"}


def pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """``-p decay=0.5`` -> {"decay": 0.5}."""
    found = {}
    for item in values:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{item!r} is not NAME=VALUE; write for example {_EXAMPLES[param.name]}.")
        found[name] = _value(text)
    return found


def epochs(ctx: click.Context, param: click.Parameter, text: str | None) -> list[int]:
    """``1,5,20`` -> [1, 5, 20]."""
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of epochs; write for example 1,5,20.") from None


_STAGE_NUMBERS = ("epochs", "num_steps")


def stages(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[dict[str, Any]]:
    """``epochs=300,num_steps=2`` -> {"epochs": 300, "num_steps": 2}; other names are hyperparameters."""
    return [_stage(text) for text in values]


def _stage(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in text.split(","):
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise click.BadParameter(
                f"{item!r} is not NAME=VALUE; write for example epochs=300,num_steps=2,method=tet."
            )
        if name in _STAGE_NUMBERS:
            if not value.isdigit():
                raise click.BadParameter(f"{name} is {value!r}; give a whole number of at least 1.")
            found[name] = int(value)
        elif name in ("method", "optimizer"):
            found[name] = value
        else:
            found.setdefault("hyperparameters", {})[name] = _value(value)
    return found


def before(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[str, int] | None:
    """``2:300`` and ``sdt:200`` -> what comes before, and its epochs."""
    if text is None:
        return None
    first, _, epochs = text.rpartition(":")
    if not first or not epochs.isdigit():
        raise click.BadParameter(f"{text!r} is not {param.metavar}; write for example {param.metavar}.")
    return first, int(epochs)


def class_file(ctx: click.Context, param: click.Parameter, path: Path | None) -> tuple[str, ...] | None:
    """The classes that a file names."""
    if path is None:
        return None
    from snn_probe.data import read_classes

    return read_classes(path)
