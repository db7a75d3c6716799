"""Code of a user's own by name, ``package.module:name``: a factory of networks or of data, an objective.

Importing a module runs it. So a name that merely stands in a file (a checkpoint's card, a run's config.json, a recipe)
is never imported: only the names that the user has given too, as an option of the command line or to :func:`allow`.
"""

import importlib
import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class _Meant(Enum):
    IMPORTED = "what the module has under this name"


_allowed: dict[str, Any] = {}


def is_own(name: Any) -> bool:
    """Whether this names code of a user's own: names of this package have no colon."""
    return isinstance(name, str) and ":" in name


def check_name(what: str, name: str) -> None:
    """ValueError unless ``name`` is written as package.module:name."""
    if not _NAME.fullmatch(name) or name.partition(":")[0].endswith(".py"):
        raise ValueError(f"{what} is {name!r}; write package.module:name, as in mynet:build for build in mynet.py.")


def allow(name: str, meant: Any = _Meant.IMPORTED) -> None:
    """Let ``name`` be imported and run in this process wherever a configuration or a checkpoint names it.

    ``meant`` is what the name stands for, if it need not be imported: a function, a class, or the mapping of a data
    set. Raises ValueError for a name that is not package.module:name.
    """
    check_name("name", name)
    _allowed[name] = meant


@contextmanager
def allowing(names: Iterable[Any]) -> Iterator[None]:
    """:func:`allow` those of ``names`` that are code of a user's own, within this context."""
    before = dict(_allowed)
    try:
        for name in filter(is_own, names):
            allow(name, _allowed.get(name, _Meant.IMPORTED))
        yield
    finally:
        _allowed.clear()
        _allowed.update(before)


def allowed() -> dict[str, Any]:
    """What is allowed in this process, by name, for :func:`allow` in another one."""
    return dict(_allowed)


def check_allowed(name: str, option: str) -> None:
    """ValueError unless the user has given ``name``; ``option`` is where it would be given. Nothing is imported."""
    if name not in _allowed:
        raise ValueError(
            f"The configuration names {name!r}, code that is no part of this program and is never run because a file "
            f"says so; if you know and trust it, give {option} {name} (from Python: snn_probe.own.allow({name!r}))."
        )


def found(name: str, option: str) -> Any:
    """What ``name`` stands for; its module is imported, also from the current folder, as ``python -m`` does.

    ``option`` is where the user would name it. Raises ValueError, one sentence, for a name that the user has not
    given, a module that does not exist or fails, and an attribute that it does not have.
    """
    check_name(option.lstrip("-"), name)
    check_allowed(name, option)
    if _allowed[name] is not _Meant.IMPORTED:
        return _allowed[name]
    module, _, attribute = name.partition(":")
    thing = _imported(module, name)
    for part in attribute.split("."):
        if not hasattr(thing, part):
            public = [key for key, value in vars(thing).items() if not key.startswith("_") and _made_in(module, value)]
            has = f"it has {', '.join(public[:12])}{', ...' * (len(public) > 12)}" if public else "it is empty"
            raise ValueError(f"{name}: {module} has no {attribute!r}; {has}.")
        thing = getattr(thing, part)
    return thing


def _made_in(module: str, value: Any) -> bool:
    """Whether the module itself made this, and has not imported it."""
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return value.__module__ == module
    return not isinstance(value, types.ModuleType)


def called(name: str, factory: Callable[..., Any], **offered: Any) -> Any:
    """``factory`` called with those of the ``offered`` arguments that it takes.

    Raises ValueError, one sentence, for what is no function, needs another argument, or raises.
    """
    if not callable(factory):
        raise ValueError(f"{name} is {type(factory).__name__}, not a function; name a function that makes it.")
    given = {key: offered[key] for key in accepted(factory, offered)}
    lacking = [key for key in _needed(factory) if key not in given]
    if lacking:
        raise ValueError(
            f"{name} needs the argument {lacking[0]!r}, which it is not called with; take any of "
            f"{', '.join(offered)} by name, and give every other argument a default."
        )
    try:
        return factory(**given)
    except Exception as error:
        raise raised(name, error) from error


def raised(name: str, error: Exception) -> ValueError:
    """What to say when code of the user's own has raised ``error``."""
    said = " ".join(str(error).split()).rstrip(".")
    return ValueError(f"{name} raised {type(error).__name__}{f' ({said})' * bool(said)}; correct it.")


def accepted(factory: Callable[..., Any], names: Iterable[str]) -> list[str]:
    """Those of the names that the factory takes as arguments."""
    parameters = parameters_of(factory)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return list(names)
    known = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return [name for name in names if name in known]


def _needed(factory: Callable[..., Any]) -> list[str]:
    return [
        p.name
        for p in parameters_of(factory)
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]


def parameters_of(factory: Callable[..., Any]) -> list[inspect.Parameter]:
    """Its parameters; none for what has no signature."""
    try:
        return list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # some built-in functions have no signature
        return []


def _imported(module: str, name: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise ValueError(
                f"{name}: there is no module {error.name!r} in the current folder or installed; go to its folder, or "
                "name it in PYTHONPATH."
            ) from None
        raise _failed(module, name, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(module, name, error) from error


def _failed(module: str, name: str, error: BaseException) -> ValueError:
    said = " ".join(str(error).split()).rstrip(".")
    return ValueError(f"{name}: importing {module} failed with {type(error).__name__} ({said}); correct it.")
