"""What a configuration names, made real: its network, and the splits of its data set."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from snn_probe.config import RunConfig, Stage, derived_seed
from snn_probe.data import DATASETS, FOLDERS, FRAMES, describe, exists, load
from snn_probe.data.places import VARIABLE
from snn_probe.models import MODELS, build
from snn_probe.own import is_own
from snn_probe.own.network import own_network

DataRoot = str | Path | None


def network_of(config: RunConfig, data_root: DataRoot = None) -> dict[str, Any]:
    """What the network must know of its data: input_shape, num_classes, temporal.

    ``data_root``: folder of the data sets that are read from the disk. Raises ValueError for a data set or a network
    that does not exist.
    """
    check_names(config)
    _check_root(config, data_root)
    if config.augment and (is_own(config.dataset) or config.dataset == FRAMES):
        raise ValueError(
            f"augment is true, but {config.dataset} has no augmentation here; augment in it, or leave it out."
        )
    info = describe(config.dataset, root=data_root, image_size=config.image_size, classes=config.classes,
                    num_steps=config.num_steps)  # fmt: skip
    return {"input_shape": list(info.input_shape), "num_classes": info.num_classes, "temporal": info.temporal}


def _check_root(config: RunConfig, data_root: DataRoot) -> None:
    """ValueError where the folder is not known of a set that any folder can be."""
    if config.dataset in ("image-folder", FRAMES) and data_root is None and not os.environ.get(VARIABLE):
        raise ValueError(
            f"The data are a folder of your own ({config.dataset}), and no file says where it lies; give it again with "
            "--data FOLDER (data_root)."
        )


def check_names(config: RunConfig) -> None:
    """ValueError for a data set or a network that does not exist; what names the user's own code is not imported."""
    own = "package.module:name of your own"
    if not exists(config.dataset):
        lost = (
            ", a folder that does not exist"
            if len(Path(config.dataset).parts) > 1 or config.dataset.endswith("/")
            else ""
        )
        raise ValueError(
            f"dataset is {config.dataset!r}{lost}; give one of {', '.join(map(repr, DATASETS))}, {own}, or a folder of "
            "images or frames by class."
        )
    if config.model not in MODELS and not is_own(config.model):
        raise ValueError(f"model is {config.model!r}; give one of {', '.join(map(repr, MODELS))}, or {own}.")


def resolved(config: RunConfig, data_root: DataRoot = None) -> RunConfig:
    """The configuration with the names of its classes, where these are the folders on the disk: a folder that is
    renamed, added or lost later cannot change what a label means. And with the hyperparameters of objectives of the
    user's own that are at their defaults."""
    config = with_stages(config, [_resolved_stage(stage) for stage in config.schedule()])
    if config.dataset not in (*FOLDERS, FRAMES) or config.classes is not None:
        return config
    return replace(config, classes=describe(config.dataset, root=data_root, image_size=config.image_size).classes)


def with_stages(config: RunConfig, stages: Sequence[Stage]) -> RunConfig:
    """The configuration with other stages, as many as it has."""
    return replace(config, stages=tuple(stages) if config.stages else (), hyperparameters=stages[-1].hyperparameters)


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
    _check_root(config, data_root)
    return load(
        config.dataset,
        split,
        num_steps=config.num_steps if stage is None else stage.num_steps,
        num_examples=num_examples,
        root=data_root,
        image_size=config.image_size,
        classes=config.classes,
    )
