"""What a probe command measures: checkpoints, or a network by name with weights that were trained elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snn_probe.checkpoint import Checkpoint, load, weights_digest
from snn_probe.config import RunConfig
from snn_probe.own.weights import load_into, read_weights
from snn_probe.system import build_network, network_of, resolved

DEFAULT_STEPS = 4


@dataclass(frozen=True)
class Subject:
    """``file``: the checkpoint, the weights, or only a name where there are neither. ``run``: the run that it is from."""

    file: Path
    run: str
    load: Callable[[], Checkpoint]


def of_checkpoint(file: Path) -> Subject:
    """A checkpoint of this program."""
    folder = file.resolve().parent
    run = folder.parent.name if folder.name == "checkpoints" else file.stem
    return Subject(file, run, lambda: load(file))


def of_network(config: RunConfig, weights: Path | None, data_root: Path | None) -> Subject:
    """The network that ``config`` names with these weights; None: those that it is made with."""
    if weights is None:
        name = config.model.rpartition(":")[2]
        return Subject(Path(name), name, lambda: named_network(config, None, data_root))
    run = weights.name.removesuffix(".tar").rpartition(".")[0] or weights.name
    return Subject(weights, run, lambda: named_network(config, weights, data_root))


def named_network(config: RunConfig, weights: Path | None, data_root: Path | None = None) -> Checkpoint:
    """A network that was not trained here, as a checkpoint. Its card says no method, seed or epoch, for none is known.

    Raises ValueError for weights that cannot be read or do not fit, and whatever the network or its data are refused for.
    """
    config = resolved(config, data_root)
    network = network_of(config, data_root)
    model = build_network(config, network)
    if weights is not None:
        load_into(model, read_weights(weights))
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    known = {"dataset": config.dataset, "model": config.model, "num_steps": config.num_steps}
    card = {
        "run": of_network(config, weights, data_root).run,
        "kind": "as made" if weights is None else "weights",
        "config": known | ({"classes": list(config.classes)} if config.classes else {}),
        "network": network,
        "metrics": {},
        "environment": {},
        "sha256": weights_digest(state),
    }
    return Checkpoint(card=card, state_dict=state)


def trained_here(checkpoint: Checkpoint) -> bool:
    """Whether the card says how it was trained."""
    return "epoch" in checkpoint.card


def stage_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What is known of the stage of training that it is from: all, or the timesteps alone."""
    return asdict(checkpoint.stage) if trained_here(checkpoint) else {"num_steps": checkpoint.stage.num_steps}


def state_of(file: Path, subject: Checkpoint, model: nn.Module) -> Mapping[str, Tensor]:
    """Weights and buffers of another network like ``subject``'s, under the names of ``model``'s: a checkpoint, or a
    file of weights where the subject's are from one."""
    if trained_here(subject):
        return load(file).state_dict
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    try:
        load_into(model, read_weights(file))
        return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    finally:
        with torch.no_grad():
            model.load_state_dict(before, strict=True)
