"""What a configuration names, made real: its network, and the splits of its data set."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from snn_probe.config import RunConfig, Stage, derived_seed
from snn_probe.data import DATASETS, FOLDERS, FRAMES, describe, exists, load
from snn_probe.models import MODELS, build
from snn_probe.own import is_own
from snn_probe.own_network import own_network

DataRoot = str | Path | None


def network_of(config: RunConfig, data_root: DataRoot = None) -> dict[str, Any]:
    """What the network must know of its data: input_shape, num_classes, temporal.

    ``data_root``: folder of the data sets that are read from the disk. Raises ValueError for a data set or a network
    that does not exist.
    """
    check_names(config)
    if config.augment and (is_own(config.dataset) or config.dataset == FRAMES):
        raise ValueError(
            f"augment is true, but {config.dataset} has no augmentation here; augment in it, or leave it out."
        )
    info = describe(config.dataset, root=data_root, image_size=config.image_size, classes=config.classes,
                    num_steps=config.num_steps)  # fmt: skip
    return {"input_shape": list(info.input_shape), "num_classes": info.num_classes, "temporal": info.temporal}


def check_names(config: RunConfig) -> None:
    """ValueError for a data set or a network that does not exist; what names the user's own code is not imported."""
    for name, value, known, allowed in (
        ("dataset", config.dataset, exists(config.dataset), DATASETS),
        ("model", config.model, config.model in MODELS or is_own(config.model), MODELS),
    ):
        if not known:
            raise ValueError(f"{name} is {value!r}; give one of {', '.join(map(repr, allowed))}.")


def resolved(config: RunConfig, data_root: DataRoot = None) -> RunConfig:
    """The configuration with the names of its classes, where these are the folders on the disk: a folder that is
    renamed, added or lost later cannot change what a label means. And with the hyperparameters of objectives of the
    user's own that are at their defaults."""
    stages = tuple(_resolved_stage(stage) for stage in config.stages)
    last = stages[-1] if stages else _resolved_stage(config.schedule()[0])
    config = replace(config, stages=stages, hyperparameters=last.hyperparameters)
    if config.dataset not in (*FOLDERS, FRAMES) or config.classes is not None:
        return config
    return replace(config, classes=describe(config.dataset, root=data_root, image_size=config.image_size).classes)


def _resolved_stage(stage: Stage) -> Stage:
    return replace(stage, hyperparameters=stage.objective().hyperparameters) if is_own(stage.method) else stage


def build_network(config: RunConfig, network: Mapping[str, Any], stage: Stage | None = None) -> nn.Module:
    """The untrained network of a configuration, drawn from its seed, with the T of ``stage`` (default: the last).

    Raises ValueError for a factory of the user's own that the user has not allowed (see :mod:`snn_probe.own`)."""
    num_steps = config.num_steps if stage is None else stage.num_steps
    make = own_network if is_own(config.model) else build
    return make(
        config.model,
        input_shape=tuple(network["input_shape"]),
        num_classes=network["num_classes"],
        num_steps=None if network["temporal"] else num_steps,
        seed=derived_seed(config.seed, "weights"),
        width=config.width,
        neuron=config.neuron_options(),
    )


def load_split(
    config: RunConfig,
    split: str,
    *,
    stage: Stage | None = None,
    num_examples: int | None = None,
    data_root: DataRoot = None,
) -> Any:
    """A split of the configuration's data set; event streams in as many frames as ``stage`` (default: the last) has."""
    return load(
        config.dataset,
        split,
        num_steps=config.num_steps if stage is None else stage.num_steps,
        num_examples=num_examples,
        root=data_root,
        image_size=config.image_size,
        classes=config.classes,
    )
