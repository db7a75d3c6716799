"""A study's recipe: TOML text to frozen dataclasses, everything checked before anything is computed.

    title = "What the temporal objectives change on digits"
    [data]                                  # dataset, image_size, classes; probe_split = "train"
    dataset = "digits"
    [train]                                 # seeds, and any field of RunConfig but the data's and seed
    seeds = [0, 1, 2]
    epochs = 20
    train_examples = [150, 1000]            # several: every arm with every size, the table's column "group"
    [arms.sdt]                              # what this arm has otherwise than [train]
    method = "sdt"
    [probes.fisher]                         # kind (default: the name), epochs (default: the last), split,
    epochs = [1, 10, "last"]                # num_examples, batch_size, and the options of its kind

All arms share seeds, examples, directions and ranges; see :mod:`snn_probe.studies.recipe_probes` for the probes. Dataset, model,
methods and the probes' objectives may be code of the user's own, package.module:name, which reading a recipe never runs.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from snn_probe.config import RunConfig
from snn_probe.data import named
from snn_probe.machine.files import read_text, shortened
from snn_probe.own import is_own
from snn_probe.studies.recipe_probes import LAST, Probe, check_split, probe
from snn_probe.system import check_names

_DATA = ("dataset", "image_size", "classes")
_FIELDS = tuple(f.name for f in fields(RunConfig))
_RUN = tuple(name for name in _FIELDS if name not in (*_DATA, "seed"))
_SECTIONS = {
    "recipe": ("title", "data", "train", "arms", "probes"),
    "[data]": (*_DATA, "probe_split"),
    "[train]": ("seeds", *_RUN),
}
_ARM = tuple(name for name in _RUN if name != "train_examples")
_MOST = 2**16  # bytes of a recipe: a TOML reader takes the square of a name's parts
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.-]*")  # part of file names


@dataclass(frozen=True)
class Recipe:
    """What a study trains and measures. ``arms``: by name, what an arm has otherwise than ``train``; ``sizes``: of the
    training set (None: all of it); ``text``: the TOML it was read from."""

    title: str
    train: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, Any]]
    sizes: tuple[int | None, ...]
    seeds: tuple[int, ...]
    probes: tuple[Probe, ...]
    text: str

    def config(self, arm: str, size: int | None, seed: int) -> RunConfig:
        """The configuration of one run."""
        return RunConfig.from_dict({**self.train, **self.arms[arm], "train_examples": size, "seed": seed})

    def group(self, size: int | None) -> str:
        """What tables call a size of the training set: "150 examples"; "" where there is only one."""
        if len(self.sizes) == 1:
            return ""
        return "all examples" if size is None else f"{size} examples"

    def own_code(self) -> dict[str, str]:
        """The code of the user's own that it names, with the option of the command line that allows it."""
        found: dict[str, str] = {}
        for arm in self.arms:
            config = self.config(arm, self.sizes[0], self.seeds[0])
            methods = [stage.method for stage in config.schedule()]
            found |= {config.dataset: "--data", config.model: "--model", **dict.fromkeys(methods, "--objective")}
        for one in self.probes:
            losses = (one.options.get("objective"), *one.options.get("objectives", ()))
            found |= dict.fromkeys(filter(is_own, losses), "--objective")
        return {name: option for name, option in found.items() if is_own(name)}

    def sha256(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def warnings(self) -> list[str]:
        """What a reader of the study would object to: a TRT arm without plain L2 of the same strength beside it."""
        configs = {name: self.config(name, self.sizes[0], self.seeds[0]) for name in self.arms}
        found = []
        for name, config in configs.items():
            for wanted in {
                stage.hyperparameters["decay"]: stage for stage in config.schedule() if _decays(stage)
            }.values():
                plain = {**wanted.hyperparameters, "decay": 0.0}
                others = (stage for other in configs.values() for stage in other.schedule() if stage.method == "trt")
                if not any(dict(stage.hyperparameters) == plain for stage in others):
                    found.append(
                        f"Arm {name!r} is TRT, and no arm is its control; add one with the same hyperparameters and "
                        "decay = 0, which is plain L2 of the same strength."
                    )
        return found


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a TOML file. Raises ValueError, one sentence with the file's name, where it cannot be used."""
    try:
        text = read_text(path, most=_MOST)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}); give a recipe such as analyses/digits.toml."
        ) from None
    except ValueError as error:
        said = "UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"recipe ({error})"
        raise ValueError(f"{path} is no {said}; give a recipe such as analyses/digits.toml.") from None
    try:
        return parse_recipe(text)
    except ValueError as error:
        raise ValueError(f"{path}: {shortened(str(error), 800)}") from None


def parse_recipe(text: str) -> Recipe:
    """The recipe that a TOML text says. Raises ValueError, one sentence, for an unknown key or an impossible value."""
    try:
        plain = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else shortened(str(error))
        raise ValueError(f"The recipe is not TOML ({said}); correct it there.") from None
    _known("recipe", plain)
    data, train = _table(plain, "data", needed=False), dict(_table(plain, "train", needed=False))
    _known("[data]", data)
    _known("[train]", train)
    split = data.get("probe_split", "train")
    check_split("[data]", "probe_split", split)
    recipe = Recipe(
        title=_title(plain),
        train={**{key: data[key] for key in _DATA if key in data}, **_without(train, "seeds", "train_examples")},
        arms={name: _arm(name, given) for name, given in _named(plain, "arms").items()},
        sizes=_several(train, "train_examples", low=1, default=None),
        seeds=_several(train, "seeds", low=0, default=0),
        probes=tuple(probe(name, given, split=split) for name, given in _named(plain, "probes", needed=False).items()),
        text=text,
    )
    _check_runs(recipe)
    return recipe


def epochs_of(probe: Probe, config: RunConfig) -> list[int]:
    """The epochs of a run that a probe measures, rising."""
    return sorted({config.epochs if epoch == LAST else int(epoch) for epoch in probe.epochs})


def _check_runs(recipe: Recipe) -> None:
    """ValueError unless every run can be configured and has the epochs to be probed."""
    for name in recipe.arms:
        for size in recipe.sizes:
            try:
                config = recipe.config(name, size, recipe.seeds[0])
            except ValueError as error:
                raise ValueError(f"[arms.{name}]: {error}") from None
        _check_no_folder(config.dataset)
        check_names(config)
        for one in recipe.probes:
            beyond = [epoch for epoch in epochs_of(one, config) if epoch > config.epochs]
            if beyond:
                raise ValueError(
                    f"[probes.{one.name}] has epoch {beyond[0]}, but arm {name!r} has {config.epochs} epochs; give "
                    f"epochs up to that, or {LAST!r}."
                )


def _check_no_folder(dataset: str) -> None:
    if (name := named(dataset)[0]) != dataset:
        raise ValueError(
            f"dataset is the folder {dataset!r}; write {name!r}, and give the folder with --data {dataset}."
        )


def _decays(stage: Any) -> bool:
    return stage.method == "trt" and stage.hyperparameters["decay"] != 0


def _title(plain: Mapping[str, Any]) -> str:
    title = plain.get("title")
    if not isinstance(title, str) or not title.strip():
        raise ValueError(f'title is {title!r}; give a line of text such as title = "SDT, TET and TRT on digits".')
    return title.strip()


def _known(where: str, given: Mapping[str, Any]) -> None:
    allowed = _SECTIONS[where]
    if unknown := [key for key in given if key not in allowed]:
        said = "The recipe" if where == "recipe" else where
        raise ValueError(f"{said} has the unknown key {unknown[0]!r}; allowed are {', '.join(allowed)}.")


def _table(plain: Mapping[str, Any], name: str, *, needed: bool = True) -> Mapping[str, Any]:
    found = plain.get(name, {})
    if not isinstance(found, dict) or (needed and not found):
        raise ValueError(f"{name} is {found!r}; give at least one table [{name}.NAME].")
    return found


def _named(plain: Mapping[str, Any], section: str, *, needed: bool = True) -> dict[str, Mapping[str, Any]]:
    """The tables [section.NAME]; names become parts of file names."""
    found = _table(plain, section, needed=needed)
    for name, given in found.items():
        if not isinstance(given, dict):
            raise ValueError(f"[{section}] has {name} = {given!r}; give a table [{section}.{name}].")
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"[{section}.{name!r}] cannot be part of a file name; use letters, digits, '-', '_', '+' and '.'."
            )
    return dict(found)


def _arm(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := [key for key in given if key not in _ARM]:
        raise ValueError(f"[arms.{name}] has the unknown key {unknown[0]!r}; allowed are {', '.join(_ARM)}.")
    return dict(given)


def _without(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key not in names}


def _several(train: Mapping[str, Any], key: str, *, low: int, default: int | None) -> tuple[Any, ...]:
    """One whole number or a list of different ones; the default where none is given."""
    if key not in train:
        return (default,)
    given = train[key]
    values = tuple(given) if isinstance(given, list) else (given,)
    whole = all(isinstance(value, int) and not isinstance(value, bool) and value >= low for value in values)
    if not values or not whole or len(set(values)) < len(values):
        raise ValueError(
            f"[train] has {key} {given!r}; give different whole numbers of at least {low}, such as [{low}]."
        )
    return values
