"""The configuration of a training run: frozen, validated, to and from plain dicts."""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from snn_probe.objectives import OBJECTIVES


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run's numbers, with the papers' optimiser: Adam, cosine to 0, no weight decay.

    ``hyperparameters``: those of the objective, by its field names; the defaults are filled in. ``train_examples``:
    the first so many of the training split (None: all). ``augment``: random shifts of the training inputs.
    Raises ValueError, one sentence, for anything unknown or out of range; whether the data set and the network exist
    is known only where they are built, see :func:`snn_probe.checkpoint.network_of`.
    """

    method: str = "sdt"
    dataset: str = "digits"
    model: str = "tiny"
    num_steps: int = 4
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    train_examples: int | None = None
    augment: bool = False
    seed: int = 0
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.method, str) or self.method not in OBJECTIVES:
            raise ValueError(f"method is {self.method!r}; give one of {', '.join(map(repr, OBJECTIVES))}.")
        for name in ("dataset", "model"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}; give its name.")
        for name in ("num_steps", "epochs", "batch_size"):
            _whole(name, getattr(self, name), low=1)
        if self.train_examples is not None:
            _whole("train_examples", self.train_examples, low=1)
        _whole("seed", self.seed, low=0)
        if not isinstance(self.augment, bool):
            raise ValueError(f"augment is {self.augment!r}; give true or false.")
        number = isinstance(self.learning_rate, int | float) and not isinstance(self.learning_rate, bool)
        if not number or not 0 < self.learning_rate <= sys.float_info.max:
            raise ValueError(f"learning_rate is {self.learning_rate!r}; give a finite number above 0.")
        if not isinstance(self.hyperparameters, Mapping):
            raise ValueError(f"hyperparameters is {self.hyperparameters!r}; give an object of names and values.")
        object.__setattr__(self, "hyperparameters", asdict(self.objective()))

    def objective(self):
        """The objective with these hyperparameters."""
        kind = OBJECTIVES[self.method]
        known = [f.name for f in fields(kind)]
        unknown = [name for name in self.hyperparameters if name not in known]
        if unknown:
            allowed = f"it has {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{self.method} has no hyperparameter {', '.join(map(repr, unknown))}; {allowed}.")
        try:
            return kind(**self.hyperparameters)
        except OverflowError:  # a whole number beyond any float
            said = f"A hyperparameter of {self.method} is too large; give numbers that a float holds."
            raise ValueError(said) from None

    def run_name(self) -> str:
        """Default name of the run's folder."""
        return f"{self.dataset}-{self.model}-{self.method}-seed{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able dict; everything is written out, defaults included."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "RunConfig":
        """Inverse of :meth:`to_dict`; unknown keys are refused."""
        if not isinstance(plain, Mapping):
            raise ValueError(f"The configuration is {type(plain).__name__}; give a JSON object.")
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(plain) - set(known))
        if unknown:
            raise ValueError(
                f"The configuration has unknown keys {', '.join(unknown)}; allowed are {', '.join(known)}."
            )
        return cls(**plain)


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose ("weights", "order", "augmentation"), so that changing one moves no other."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _whole(name: str, value: Any, *, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name} is {value!r}; give a whole number of at least {low}.")
