"""What a configuration names, made real: its network, and the splits of its data set."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from snn_probe.config import RunConfig, Stage, derived_seed
from snn_probe.data import DATASETS, FOLDERS, describe, load
from snn_probe.models import MODELS, build

DataRoot = str | Path | None


def network_of(config: RunConfig, data_root: DataRoot = None) -> dict[str, Any]:
    """What the network must know of its data: input_shape, num_classes, temporal.

    ``data_root``: folder of the data sets that are read from the disk. Raises ValueError for a data set or a network
    that does not exist.
    """
    for name, value, allowed in (("dataset", config.dataset, DATASETS), ("model", config.model, MODELS)):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; give one of {', '.join(map(repr, allowed))}.")
    info = describe(config.dataset, root=data_root, image_size=config.image_size, classes=config.classes)
    return {"input_shape": list(info.input_shape), "num_classes": info.num_classes, "temporal": info.temporal}


def resolved(config: RunConfig, data_root: DataRoot = None) -> RunConfig:
    """The configuration with the names of its classes, where these are the folders on the disk: a folder that is
    renamed, added or lost later cannot change what a label means."""
    if config.dataset not in FOLDERS or config.classes is not None:
        return config
    return replace(config, classes=describe(config.dataset, root=data_root, image_size=config.image_size).classes)


def build_network(config: RunConfig, network: Mapping[str, Any], stage: Stage | None = None) -> nn.Module:
    """The untrained network of a configuration, drawn from its seed, with the T of ``stage`` (default: the last)."""
    num_steps = config.num_steps if stage is None else stage.num_steps
    return build(
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
