"""The configuration of a training run: frozen, validated, to and from plain dicts."""

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from snn_probe.neurons.lif import Neuron
from snn_probe.objectives import OBJECTIVES
from snn_probe.own import check_name, is_own
from snn_probe.own.objective import own_objective

AMP = ("off", "bf16", "fp16")
OPTIMIZER_AT_START = ("restart", "continue")


@dataclass(frozen=True)
class Stage:
    """A part of a training run: so many ``epochs`` with ``num_steps`` timesteps and one objective.

    Weights and batch-norm statistics always come from the stage before. ``optimizer`` says what else does: "restart"
    begins Adam anew and a cosine of the learning rate of its own; "continue" keeps Adam's moments, and the cosine of
    the stage before stretches over both. The first stage of a run has nothing to continue.
    ``method``: a name of OBJECTIVES, or package.module:name for one of the user's own.
    ``hyperparameters``: those of the objective, by its field names; the defaults are filled in, of an objective of the
    user's own by :func:`snn_probe.system.resolved`, since its code is not imported here.
    """

    epochs: int
    num_steps: int = 4
    method: str = "sdt"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    optimizer: str = "restart"

    def __post_init__(self):
        if is_own(self.method):
            check_name("method", self.method)
        elif not isinstance(self.method, str) or self.method not in OBJECTIVES:
            raise ValueError(
                f"method is {self.method!r}; give one of {', '.join(map(repr, OBJECTIVES))}, or package.module:name of "
                "your own."
            )
        for name in ("num_steps", "epochs"):
            _whole(name, getattr(self, name), low=1)
        _one_of("optimizer", self.optimizer, OPTIMIZER_AT_START)
        if not isinstance(self.hyperparameters, Mapping):
            raise ValueError(f"hyperparameters is {self.hyperparameters!r}; give an object of names and values.")
        filled = _plain(self.method, self.hyperparameters) if is_own(self.method) else asdict(self.objective())
        object.__setattr__(self, "hyperparameters", filled)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able dict; everything is written out, defaults included."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Stage":
        """Inverse of :meth:`to_dict`; unknown keys are refused."""
        if "epochs" not in _checked_keys("A stage", plain, cls):
            raise ValueError("A stage does not say its epochs; give a whole number of at least 1.")
        return cls(**plain)

    def objective(self):
        """The objective with these hyperparameters."""
        if is_own(self.method):
            return own_objective(self.method, self.hyperparameters)
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


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run's numbers, with the papers' optimiser: Adam, cosine to 0, no weight decay.

    ``stages``: what is trained one after the other; empty for a run of one stage, which ``method``, ``num_steps``,
    ``epochs`` and ``hyperparameters`` then describe. With stages (dicts, or :class:`Stage`) these four give what a
    stage leaves out, and afterwards say what the finished network is: the last stage's, and all epochs together.

    ``method``, ``dataset`` and ``model`` may name code of the user's own, package.module:name (see :mod:`snn_probe.own`).
    ``weights``: SHA-256 of the weights that training begins from; None: they are drawn from the seed.
    ``width``: scales every channel count of the network. ``neuron``: fields of :class:`snn_probe.neurons.lif.Neuron`; None is
    the network's own. ``train_examples``: the first so many of the training split (None: all). ``eval_examples``: after each
    epoch the first so many of validation and of test are evaluated. ``augment``: the data set's augmentation of
    training inputs. ``image_size``, ``classes``: see :func:`snn_probe.data.describe`. ``amp``:
    precision of the forward pass in training (autocast); loss, penalty and weights are float32. ``channels_last``:
    memory format of images, which every layer keeps, ``compile``: torch.compile of training, which chooses its own memory
    format; both change numbers by rounding only. ``batch_size`` counts all processes together.

    Raises ValueError, one sentence, for anything unknown or out of range; whether the data set and the network exist
    is known only where they are built, see :func:`snn_probe.system.network_of`.
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
    width: float = 1.0
    neuron: Mapping[str, Any] | None = None
    image_size: int | None = None
    classes: tuple[str, ...] | None = None
    amp: str = "off"
    channels_last: bool = False
    compile: bool = False
    eval_examples: int | None = None
    stages: tuple[Stage, ...] = ()
    weights: str | None = None

    def __post_init__(self):
        flat = Stage(self.epochs, self.num_steps, self.method, self.hyperparameters)
        self._set(stages=_stages(self.stages, flat))
        last = self.stages[-1] if self.stages else flat
        self._set(method=last.method, num_steps=last.num_steps, hyperparameters=last.hyperparameters)
        self._set(epochs=sum(stage.epochs for stage in self.schedule()))
        for name in ("dataset", "model"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}; give its name.")
            if is_own(getattr(self, name)):
                check_name(name, getattr(self, name))
        if self.weights is not None and not (
            isinstance(self.weights, str) and re.fullmatch("[0-9a-f]{64}", self.weights)
        ):
            raise ValueError(f"weights is {self.weights!r}; give the SHA-256 of weights, 64 hexadecimal digits.")
        _whole("batch_size", self.batch_size, low=1)
        _whole("seed", self.seed, low=0)
        for name in ("train_examples", "image_size", "eval_examples"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), low=1)
        for name in ("augment", "channels_last", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; give true or false.")
        for name in ("learning_rate", "width"):
            _positive(name, getattr(self, name))
        _one_of("amp", self.amp, AMP)
        self._set(neuron=_neuron(self.neuron), classes=_classes(self.classes))

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def schedule(self) -> tuple[Stage, ...]:
        """The stages, also where there is only one."""
        return self.stages or (Stage(self.epochs, self.num_steps, self.method, self.hyperparameters),)

    def stage_at(self, epoch: int) -> Stage:
        """The stage that ``epoch`` (from 1) belongs to; of the untrained network (epoch 0) the first."""
        for stage in self.schedule():
            if epoch <= stage.epochs:
                return stage
            epoch -= stage.epochs
        raise ValueError(f"The run has {self.epochs} epochs, so there is none {epoch} epochs later.")

    def cosine_at(self, epoch: int) -> tuple[int, int]:
        """Which epoch, from 0, of how many of its learning-rate cosine ``epoch`` is."""
        lengths: list[int] = []
        for stage in self.schedule():
            if stage.optimizer == "continue":
                lengths[-1] += stage.epochs
            else:
                lengths.append(stage.epochs)
        done = epoch - 1
        for length in lengths:
            if done < length:
                return done, length
            done -= length
        raise ValueError(f"epoch is {epoch}; give a whole number from 1 to {self.epochs}.")

    def objective(self):
        """The objective of the last stage."""
        return self.schedule()[-1].objective()

    def neuron_options(self) -> Neuron | None:
        """The network's neuron; None for the network's own."""
        return None if self.neuron is None else Neuron(**self.neuron)

    def run_name(self) -> str:
        """Default name of the run's folder."""
        methods = dict.fromkeys(_called(stage) for stage in self.schedule())
        steps = dict.fromkeys(stage.num_steps for stage in self.schedule())
        parts = [_short(self.dataset), _short(self.model), "+".join(map(_short, methods))] + [
            "T" + "+".join(map(str, steps))
        ] * (len(steps) > 1)
        return "-".join([*parts, f"seed{self.seed}"])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able dict; everything is written out, defaults included."""
        plain = asdict(self)
        if self.weights is None:  # a run from its seed is written as before there was this field
            del plain["weights"]
        return {**plain, "stages": list(plain["stages"]), "classes": self.classes and list(self.classes)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "RunConfig":
        """Inverse of :meth:`to_dict`; unknown keys are refused."""
        return cls(**_checked_keys("The configuration", plain, cls))


def _checked_keys(what: str, plain: Any, kind: type) -> Mapping[str, Any]:
    """``plain``; ValueError unless it is an object whose keys are fields of ``kind``."""
    if not isinstance(plain, Mapping):
        raise ValueError(f"{what} is {type(plain).__name__}; give a JSON object.")
    _known(what, plain, kind)
    return plain


def _short(name: str) -> str:
    """A name as a part of a folder's name."""
    return name.replace(":", ".")


def _plain(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters of an objective whose code is not looked at: names and what JSON can hold."""
    for name, value in given.items():
        number = isinstance(value, int | float) and abs(value) <= sys.float_info.max
        if not isinstance(name, str) or not (number or isinstance(value, str)):
            raise ValueError(f"{name} of {method} is {value!r}; give a finite number, true, false or a word.")
    return dict(given)


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose ("weights", "order", "augmentation"), so that changing one moves no other."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _called(stage: Stage) -> str:
    """The method of a stage; TRT without decay is plain L2, the control arm."""
    return "trt-l2" if stage.method == "trt" and stage.hyperparameters["decay"] == 0 else stage.method


def _stages(given: Any, flat: Stage) -> tuple[Stage, ...]:
    """Stages with what they leave out taken from ``flat``; a single one is no sequence and becomes none."""
    if not isinstance(given, list | tuple):
        raise ValueError(f"stages is {given!r}; give a list of stages.")
    found = tuple(_stage(i, stage, flat) for i, stage in enumerate(given, 1))
    if found and found[0].optimizer == "continue":
        raise ValueError("Stage 1 has optimizer 'continue', but there is none before it; give 'restart'.")
    if len(found) == 1:
        raise ValueError("stages has one stage; give method, num_steps and epochs instead, or at least two stages.")
    return found


def _stage(number: int, given: Any, flat: Stage) -> Stage:
    if isinstance(given, Stage):
        return given
    if not isinstance(given, Mapping):
        raise ValueError(f"Stage {number} is {given!r}; give an object with epochs, num_steps, method, ...")
    _known(f"Stage {number}", given, Stage)
    if "epochs" not in given:
        raise ValueError(f"Stage {number} does not say its epochs; give a whole number of at least 1.")
    inherited: dict[str, Any] = {"num_steps": flat.num_steps, "method": flat.method}
    own = given.get("hyperparameters", {})
    if given.get("method", flat.method) == flat.method and isinstance(own, Mapping):
        given = {**given, "hyperparameters": {**flat.hyperparameters, **own}}
    try:
        return Stage(**{**inherited, **given})
    except ValueError as error:
        raise ValueError(f"Stage {number}: {error}") from None


def _neuron(given: Any) -> dict[str, Any] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ValueError(f"neuron is {given!r}; give an object of names and values.")
    _known("neuron", given, Neuron)
    return asdict(Neuron(**given))


def _classes(given: Any) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = tuple(given) if isinstance(given, list | tuple) else ()
    if len(names) < 2 or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ValueError(f"classes is {str(given)[:80]!r}; give a list of at least two different class names.")
    return names


def _known(what: str, given: Mapping[str, Any], kind: type) -> None:
    """ValueError for keys that are no fields of ``kind``."""
    known = [f.name for f in fields(kind)]
    if unknown := sorted(map(str, set(given) - set(known))):
        raise ValueError(f"{what} has unknown keys {', '.join(unknown)}; allowed are {', '.join(known)}.")


def _whole(name: str, value: Any, *, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name} is {value!r}; give a whole number of at least {low}.")


def _positive(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= sys.float_info.max:
        raise ValueError(f"{name} is {value!r}; give a finite number above 0.")


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {value!r}; give one of {', '.join(map(repr, allowed))}.")
