"""An objective of the user's own, named as ``package.module:name``.

    @dataclass(frozen=True)
    class LateTET:
        growth: float = 1.0
        def __call__(self, logits, labels, params): ...

It is a function of (logits, labels, params), or a class whose instances are that and whose fields (the arguments of its
constructor) are the hyperparameters. It returns a scalar tensor, the mean over the N examples; logits (T, N, C),
labels (N,) int64, params the trainable parameters by name.
"""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor

from snn_probe.own import found, parameters_of, raised


class OwnObjective:
    """What a user's objective returns, checked; everything else is the user's."""

    def __init__(self, name: str, function: Any, hyperparameters: Mapping[str, Any]):
        self.name, self.function, self.hyperparameters = name, function, dict(hyperparameters)
        self.__qualname__ = repr(self)  # what tables and figures call it

    def __call__(self, logits: Tensor, labels: Tensor, params: Mapping[str, Tensor] | None = None) -> Tensor:
        try:
            loss = self.function(logits, labels, params)
        except Exception as error:
            raise raised(self.name, error) from error
        if not isinstance(loss, Tensor) or loss.ndim:
            came = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"{self.name} returned {came}; return a scalar tensor, the mean over the examples.")
        if logits.requires_grad and not loss.requires_grad:
            raise ValueError(
                f"{self.name} returned a loss without a gradient; compute it from the logits without detach or item."
            )
        return loss

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.hyperparameters.items())
        return f"{self.name.rpartition(':')[2]}({given})"

    def __getattr__(self, name: str) -> Any:
        if name != "without_penalty":  # which probes ask for, as TRT has it
            raise AttributeError(name)
        return getattr(self.function, name)


def own_objective(name: str, hyperparameters: Mapping[str, Any], option: str = "--method") -> OwnObjective:
    """The objective with these hyperparameters; its own ``hyperparameters`` have the defaults filled in. ``option`` is
    where the user would name it.

    Raises ValueError, one sentence, for what cannot be imported, has no such hyperparameter, refuses its value, or is
    no function of (logits, labels, params).
    """
    thing = found(name, option)
    known = _hyperparameters(thing) if isinstance(thing, type) else {}
    unknown = [key for key in hyperparameters if key not in known]
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"{name} has no hyperparameter {', '.join(map(repr, unknown))}; {has}.")
    filled = {**known, **hyperparameters}
    if isinstance(thing, type):
        if lacking := [key for key, value in filled.items() if value is _MISSING]:
            raise ValueError(f"{name} needs a value of {lacking[0]!r}; give -p {lacking[0]}=VALUE, or it a default.")
        try:
            thing = thing(**filled)
        except Exception as error:
            raise raised(name, error) from error
    if is_dataclass(thing) and not isinstance(thing, type):  # what its __post_init__ made of the values
        filled = {key: getattr(thing, key) for key in filled}
    if not callable(thing):
        raise ValueError(
            f"{name} is {type(thing).__name__}, which cannot be called; name a function of (logits, labels, params), "
            "or a class with such a __call__."
        )
    return OwnObjective(name, thing, filled)


_MISSING = object()


def _hyperparameters(kind: type) -> dict[str, Any]:
    """Arguments of the constructor with their defaults."""
    named = [p for p in parameters_of(kind) if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return {p.name: _MISSING if p.default is p.empty else p.default for p in named}
