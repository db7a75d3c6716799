"""The spiking neuron of a network, as a value: what TET, TRT and Kim et al. set differently."""

import math
from dataclasses import dataclass
from typing import Any

RESETS = ("hard", "soft")
SURROGATES = {"triangle": 1.0, "sigmoid": 4.0, "atan": 2.0}
"""The surrogate derivatives and the sharpness that each has when none is given."""


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


@dataclass(frozen=True)
class Neuron:
    """h[t] = leak v[t-1] + c x[t];  s[t] = 1 where h[t] >= threshold, else 0;  v[t] from h[t] by the reset; v[0] = 0.

    ``leak``: 0 forgets at once, 1 never (integrate-and-fire); the papers' 1/tau. ``scale_input``: c = 1 - leak, as in
    Kim et al. (AAAI 2023); otherwise c = 1, as in TET and TRT. ``reset``: "hard" to v = (1 - s) h, or "soft" to
    v = h - s threshold. ``detach_reset``: the gradient takes the s of the reset for a constant.

    ``surrogate``: what ds/dh is taken to be, with d = h - threshold and a = ``sharpness``: "triangle"
    a max(0, 1 - a |d|), whose 1/a is TET's gamma; "sigmoid" a q (1 - q), q = 1 / (1 + exp(-a d)); "atan"
    (a/2) / (1 + (pi a d / 2)^2). The sharpness is SpikingJelly's alpha; None takes 1, 4 and 2.

    The defaults are the neuron of TET and TRT (they spike where h > threshold; SpikingJelly also at equality).
    Raises ValueError, one sentence, for a value of another type or out of range.
    """

    leak: float = 0.5
    scale_input: bool = False
    threshold: float = 1.0
    reset: str = "hard"
    detach_reset: bool = False
    surrogate: str = "triangle"
    sharpness: float | None = None

    def __post_init__(self):
        if not _is_number(self.leak) or not 0 <= self.leak <= 1:
            raise ValueError(f"leak is {self.leak!r}; give a number from 0 (no memory) to 1 (integrate-and-fire).")
        if not _is_number(self.threshold) or self.threshold <= 0:
            raise ValueError(f"threshold is {self.threshold!r}; give a finite number above 0.")
        for name in ("scale_input", "detach_reset"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; give true or false.")
        for name, allowed in (("reset", RESETS), ("surrogate", SURROGATES)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                raise ValueError(f"{name} is {value!r}; give one of {', '.join(map(repr, allowed))}.")
        if self.sharpness is not None and (not _is_number(self.sharpness) or self.sharpness <= 0):
            raise ValueError(
                f"sharpness is {self.sharpness!r}; give a finite number above 0, or None for the surrogate's usual one."
            )
        if self.scale_input and self.leak == 1:
            raise ValueError(
                "leak is 1 and scale_input is true, which multiplies every current by 0; give a smaller leak, or "
                "scale_input false."
            )


KIM = Neuron(scale_input=True, detach_reset=True, surrogate="atan")
"""The neuron of Kim et al. (AAAI 2023), as in their program."""
