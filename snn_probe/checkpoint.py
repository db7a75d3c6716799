"""A checkpoint: weights and a card. One file rebuilds the network; nothing in it is ever executed.

The file is a ``torch.save`` of exactly ``format``, ``card`` (JSON text) and ``state_dict`` (CPU tensors), read with
``weights_only=True``. The card holds run, kind ("last", "best" or "epoch"), epoch, config, network, metrics,
environment and the SHA-256 of the weights, which is checked on reading.
"""

import hashlib
import io
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snn_probe.config import RunConfig, Stage
from snn_probe.machine.files import shortened, write_atomically
from snn_probe.own import is_own
from snn_probe.own.weights import not_finite, plain_tensors, unpacks_to_more
from snn_probe.system import build_network, network_of

FORMAT = "snn_probe.checkpoint/1"

_CARD = {"run": str, "kind": str, "epoch": int, "config": dict, "network": dict, "metrics": dict, "environment": dict,
         "sha256": str}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """``card``: what was trained and how it went; ``state_dict``: the weights and buffers on the CPU."""

    card: Mapping[str, Any]
    state_dict: Mapping[str, Tensor]

    @property
    def config(self) -> RunConfig:
        """The run's configuration, validated anew."""
        return RunConfig.from_dict(self.card["config"])

    @property
    def epoch(self) -> int:
        """Epochs trained, counted from 1; 0 is the untrained network, and one that was trained elsewhere."""
        return self.card.get("epoch", 0)

    @property
    def stage(self) -> Stage:
        """The stage of training that it is from: its timesteps and its objective."""
        return self.config.stage_at(self.epoch)

    def of_kind(self, kind: str) -> "Checkpoint":
        """The same weights, labelled "last", "best" or "epoch"."""
        return replace(self, card={**self.card, "kind": kind})


def make_checkpoint(
    model: nn.Module, config: RunConfig, network: Mapping[str, Any] | None = None, **card: Any
) -> Checkpoint:
    """Checkpoint of the model as it is now; ``card`` gives run, kind, epoch, metrics and environment. ``network`` is
    what :func:`snn_probe.system.network_of` gave; None asks it."""
    network = network if network is not None else network_of(config)
    state = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    described = {"config": config.to_dict(), "network": dict(network), "sha256": weights_digest(state)}
    return Checkpoint(card={**card, **described}, state_dict=state)


def weights_digest(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def build_model(checkpoint: Checkpoint) -> nn.Module:
    """The network of the checkpoint with its weights and the timesteps of its stage, in eval mode.

    Raises ValueError if they do not fit, and for a network of the user's own that the user has not allowed: no code is
    imported because a card names it (see :mod:`snn_probe.own`).
    """
    config, network, state = checkpoint.config, checkpoint.card["network"], dict(checkpoint.state_dict)
    try:
        if is_own(config.model):  # its code need not run on the meta device
            model = build_network(config, network, checkpoint.stage)
            model.load_state_dict(state, strict=True)
            return model.eval()
        with torch.device("meta"):  # shapes alone, so that a card with absurd ones does not fill the memory
            model = build_network(config, network, checkpoint.stage)
            kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
            model.load_state_dict(state, strict=True, assign=True)
        if other := [name for name, kind in kinds.items() if state[name].dtype != kind]:
            raise TypeError(f"{other[0]} is {state[other[0]].dtype}, not {kinds[other[0]]}")
    except (RuntimeError, TypeError) as error:
        detail = " ".join(str(error).partition("Exception raised from")[0].split())
        raise ValueError(
            f"The checkpoint's weights do not fit the network {config.model!r} of its card: {detail}"
        ) from None
    model = build_network(config, network, checkpoint.stage)
    model.load_state_dict(state, strict=True)
    return model.eval()


def save(checkpoint: Checkpoint, path: str | Path) -> Path:
    """Write the file atomically; the previous one survives until the new one is whole."""
    content = {
        "format": FORMAT,
        "card": json.dumps(dict(checkpoint.card), allow_nan=False, sort_keys=True),
        "state_dict": dict(checkpoint.state_dict),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())
    return Path(path)


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint. Raises ValueError, one sentence, for a file that is missing, truncated, foreign, of a later
    format, altered, or a pickle that holds more than tensors and text (which is not run)."""
    path = Path(path)
    content = _read(path)
    if not isinstance(content, dict) or not isinstance(content.get("format"), str):
        raise ValueError(
            f"{path} is a PyTorch file but not a snn_probe checkpoint; give a file that `snnprobe train` wrote, or a "
            f"network with these weights, --model MODULE:FACTORY --weights {path}."
        )
    if content["format"] != FORMAT:
        family, _, version = content["format"].rpartition("/")
        if family == FORMAT.rpartition("/")[0] and version.isdigit():
            raise ValueError(
                f"{path} has format {content['format']!r}, later than {FORMAT!r} that this snn_probe reads; upgrade it."
            )
        raise ValueError(f"{path} has format {content['format']!r}, not {FORMAT!r}; give a snn_probe checkpoint.")
    if set(content) != {"format", "card", "state_dict"}:
        raise ValueError(f"{path} has the keys {sorted(map(str, content))}; a checkpoint has format, card, state_dict.")
    card, state = _card(path, content["card"]), content["state_dict"]
    if not plain_tensors(state) or weights_digest(state) != card["sha256"]:
        raise ValueError(f"{path} is damaged: its weights do not match the SHA-256 in its card; use another copy.")
    if bad := not_finite(state):
        raise ValueError(
            f"{path} has NaN or infinity in {bad[:80]!r}: the network diverged; use an earlier checkpoint."
        )
    return Checkpoint(card=card, state_dict=state)


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        raise ValueError(
            f"{path} is no checkpoint; give a file that `snnprobe train` wrote, or a network with these weights, --model "
            f"MODULE:FACTORY --weights {path}."
        )
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"{path} {what}; give a checkpoint file such as <run>/checkpoints/last.pt.")
    try:
        content = path.read_bytes()
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "it is larger than the memory"
        raise ValueError(f"{path} cannot be read ({reason}); check the file and its permissions.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch explains foreign files at length
            if unpacks_to_more(io.BytesIO(content)):
                raise RuntimeError("it would unpack to more than it is")
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
        reason = f" ({wanted[1]})" if wanted else ""
        raise ValueError(
            f"{path} is no checkpoint, or holds more than tensors and text{reason}, so it was not loaded and none of "
            "its code was run; give a file that `snnprobe train` wrote."
        ) from None
    except Exception as error:
        reason = f" ({str(error).split('. ')[0].strip()})" if isinstance(error, RuntimeError) else ""
        raise ValueError(
            f"{path} is truncated or not a checkpoint{reason}; use another copy, for example best.pt beside it."
        ) from None
    if not _sums_agree(content):
        raise ValueError(f"{path} is damaged: a checksum in it does not agree; use another copy.")
    return found


def _sums_agree(content: bytes) -> bool:
    """Whether the container's own checksums hold, which torch.load does not look at: they cover the card too."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as container:
            return container.testzip() is None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError):
        return False


def _card(path: Path, text: Any) -> dict[str, Any]:
    try:
        card = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict):
        raise ValueError(f"{path} has a card that is not a JSON object; use another copy.")
    wrong = [name for name, kind in _CARD.items() if type(card.get(name)) is not kind]
    if not wrong:
        shape, classes = card["network"].get("input_shape"), card["network"].get("num_classes")
        sizes = [*shape, classes] if isinstance(shape, list) else []
        own = is_own(card["config"].get("model"))
        known = (len(sizes) > 1 if own else len(sizes) == 4) and all(type(size) is int and size > 0 for size in sizes)
        known = known and isinstance(card["network"].get("temporal"), bool)
        wrong = ["network"] * (not known) + ["epoch"] * (card["epoch"] < 0)
    if wrong:
        raise ValueError(f"{path} has a card that lacks or misstates {', '.join(wrong)}; use another copy.")
    try:
        RunConfig.from_dict(card["config"]).stage_at(card["epoch"])
    except ValueError as error:
        raise ValueError(f"{path} has a card that cannot be used: {shortened(str(error).rstrip('.'))}.") from None
    return card
