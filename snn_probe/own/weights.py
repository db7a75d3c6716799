"""Weights that other programs wrote: reading them without running anything in the file, and loading them.

A ``.safetensors`` file is a length (8 bytes, little-endian), that many bytes of JSON (name -> dtype, shape, begin and
end of its bytes) and the bytes of the tensors, without gaps; see https://github.com/huggingface/safetensors. All other
files go through ``torch.load(weights_only=True)``.
"""

import json
import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from snn_probe.machine.files import shortened

KEYS = ("state_dict", "model_state_dict", "model", "net")
"""Where a checkpoint of another program keeps its weights."""

_PARALLEL = "module."  # what DataParallel and DistributedDataParallel put before each name

_REPEATED = 2**24  # bytes of a tensor that is expanded from fewer, as buffers may be

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, from a ``.pt``, ``.pth``, ``.pth.tar`` or ``.safetensors`` file.

    The file holds the state dict itself or a dict with it under one of :data:`KEYS`; a prefix ``module.`` that all
    names share is removed. Nothing in the file is ever executed, and there is no option to do so. Raises ValueError,
    one sentence, for a file that is missing, damaged, or holds something else, which it names.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"{path} {what}; give a file of weights: .pt, .pth, .pth.tar or .safetensors.")
    found = _safetensors(path) if path.suffix == ".safetensors" else _state_dict(path, _torch_file(path))
    if bad := not_finite(found):
        raise ValueError(
            f"{path} has NaN or infinity in {bad[:80]!r}; give the weights of a network that did not diverge."
        )
    if found and all(name.startswith(_PARALLEL) for name in found):
        found = {name.removeprefix(_PARALLEL): tensor for name, tensor in found.items()}
    return found


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor with NaN or infinity. A mask of zeros and infinities, as attention has, is none."""
    for name, tensor in state.items():
        if tensor.is_floating_point() or tensor.is_complex():
            values = tensor.float() if tensor.element_size() == 1 else tensor
            finite = values.isfinite()
            if not finite.all() and (values.isnan().any() or not finite.any() or values[finite].any()):
                return name
    return None


def plain_tensors(state: Any, *, repeated: int = 0) -> bool:
    """Whether these are tensors by name whose every element is in the file: no sparse, meta or quantized ones, and none
    of more than ``repeated`` bytes that is expanded from fewer."""
    return isinstance(state, dict) and all(
        isinstance(name, str)
        and isinstance(tensor, Tensor)
        and (tensor.layout, tensor.device.type) == (torch.strided, "cpu")
        and not tensor.is_quantized
        and tensor.numel() * tensor.element_size() <= max(tensor.untyped_storage().nbytes(), repeated)
        for name, tensor in state.items()
    )


def unpacks_to_more(file: str | Path | BinaryIO) -> bool:
    """Whether a zip would become larger when it is read; torch.save writes none that does."""
    try:
        with zipfile.ZipFile(file) as container:
            members = container.infolist()
            end = container.start_dir
    except Exception:  # no zip, or a damaged one: torch.load says so
        return False
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    return packed or sum(member.file_size for member in members) > end


def load_into(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Set all parameters and buffers of ``model`` to ``weights``, or raise ValueError and change nothing.

    Weights of a network that ``from_spikingjelly`` or ``from_snntorch`` has wrapped since are put into the network
    itself. The error lists the names that are missing, unexpected, or of another shape or kind.
    """
    inside = getattr(model, "net", None)
    if isinstance(inside, nn.Module) and hasattr(model, "takes"):
        model = max(inside, model, key=lambda net: len(weights.keys() & net.state_dict().keys()))
    own = model.state_dict()
    misfits = [
        f"{name} {_shape(weights[name])} in place of {_shape(tensor)}"
        for name, tensor in own.items()
        if name in weights and (weights[name].shape != tensor.shape or _kind(weights[name]) != _kind(tensor))
    ]
    problems = {
        "missing": [name for name in own if name not in weights],
        "unexpected": [name for name in weights if name not in own],
        "unlike": misfits,
    }
    if any(problems.values()):
        found = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        raise ValueError(
            f"The weights do not fit the network ({found}); build the network that they were saved from, or rename "
            "and remove entries of the dict before loading it."
        )
    model.load_state_dict(weights, strict=True)


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{tuple(tensor.shape)}"


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex()


def _torch_file(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch explains foreign files at length
            if unpacks_to_more(path):
                raise zipfile.BadZipFile
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        names = _code_in(path, error)
        if names:
            raise ValueError(
                f"{path} holds more than tensors ({', '.join(names)}), and reading that would run code from the file, "
                "so it was not read; in the program that wrote it, save torch.save(model.state_dict(), 'weights.pt') "
                "and give that file."
            ) from None
        raise ValueError(f"{path} is damaged or no file of weights; give another copy, or a state dict.") from None
    except OSError as error:
        if error.strerror:
            raise ValueError(f"{path} cannot be read ({error.strerror}); check its permissions.") from None
        raise ValueError(f"{path} is damaged or no file of weights; give another copy, or a state dict.") from None
    except Exception:  # torch, zipfile and pickle raise many kinds for bytes that are no file of theirs
        raise ValueError(f"{path} is damaged or no file of weights; give another copy, or a state dict.") from None


def _code_in(path: Path, error: Exception) -> list[str]:
    """Names of the classes and functions that the file asks for and that are not known to be harmless."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # it reads the current format only, and not damaged files
        names = []
    return names or re.findall(r"(?:GLOBAL|class|function) ([A-Za-z_][\w]*(?:\.\w+)+)", str(error))[:1]


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    """The one dict of tensors in what the file holds."""
    if isinstance(content, dict) and not _is_state_dict(content):
        places = [key for key in KEYS if _is_state_dict(content.get(key))]
        if len(places) > 1:
            raise ValueError(
                f"{path} has weights under {' and '.join(places)}; save the one that you mean as a state dict."
            )
        if places:
            content = content[places[0]]
    if _is_state_dict(content):
        return dict(content)
    if isinstance(content, dict):
        held = ", ".join(f"{key} ({type(value).__name__})" for key, value in list(content.items())[:8]) or "nothing"
    else:
        held = type(content).__name__
    raise ValueError(
        f"{path} holds {held}, where a state dict is expected, alone or under {', '.join(KEYS)}; save "
        "model.state_dict() and give that file."
    )


def _is_state_dict(content: Any) -> bool:
    return plain_tensors(content, repeated=_REPEATED) and len(content) > 0


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        content = bytearray(path.read_bytes())
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "it is larger than the memory"
        raise ValueError(f"{path} cannot be read ({reason}); check its size and permissions.") from None
    start = 8 + int.from_bytes(content[:8], "little")
    try:
        if len(content) < 8 or start > len(content):
            raise ValueError("it is shorter than its header says")
        header = json.loads(content[8:start].decode(), object_pairs_hook=_without_repeats)
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
        header.pop("__metadata__", None)
        return _tensors(header, content, start)
    except (ValueError, RecursionError) as error:
        reason = shortened(str(error)) if type(error) is ValueError else "its header is no JSON"
        raise ValueError(f"{path} is no sound .safetensors file: {reason}; give another copy.") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name is in its header twice")
    return dict(pairs)


def _tensors(header: dict[str, Any], content: bytearray, start: int) -> dict[str, Tensor]:
    """Each named tensor, after checking that together they are exactly the bytes from ``start`` on."""
    found, places = {}, []
    for name, entry in header.items():
        dtype, shape, (begin, end) = _entry(name, entry)
        count, size = math.prod(shape), dtype.itemsize
        if not 0 <= begin <= end <= len(content) - start or end - begin != count * size:
            raise ValueError(f"the bytes of {name!r} do not fit its shape or the file")
        places.append((begin, end))
        if count:
            flat = torch.frombuffer(content, dtype=torch.uint8, count=end - begin, offset=start + begin).clone()
            found[name] = (flat != 0 if dtype == torch.bool else flat.view(dtype)).reshape(shape)
        else:
            found[name] = torch.empty(shape, dtype=dtype)
    reached = 0
    for begin, end in sorted(places):
        if begin != reached:
            raise ValueError("its tensors overlap or leave gaps")
        reached = end
    if reached != len(content) - start:
        raise ValueError("it has bytes that belong to no tensor")
    return found


def _entry(name: str, entry: Any) -> tuple[torch.dtype, list[int], tuple[int, int]]:
    def whole(values: Any) -> bool:
        return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)

    if not (isinstance(entry, dict) and all(whole(entry.get(key)) for key in ("shape", "data_offsets"))):
        raise ValueError(f"its header misstates {name!r}")
    kind, shape, place = entry.get("dtype"), entry["shape"], entry["data_offsets"]
    if not (isinstance(kind, str) and kind in _DTYPES):
        raise ValueError(f"{name!r} is of type {kind!r}, not one of {', '.join(_DTYPES)}")
    if len(place) != 2:
        raise ValueError(f"its header misstates {name!r}")
    return _DTYPES[kind], shape, (place[0], place[1])
