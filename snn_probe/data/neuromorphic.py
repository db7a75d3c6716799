"""Event data sets as frames: `cifar10-dvs`, `n-caltech101`, `dvs128-gesture`, `n-mnist`.

>>> frames, labels = read("cifar10-dvs", "train", num_steps=10, root="/data")     # (8100, 10, 2, 48, 48), (8100,)

They are read from the published files or from those that SpikingJelly made of them, which give the same frames. Each
recording becomes T frames of equally many events (`frames.integrate`), then smaller ones (`frames.resize`). That takes
minutes the first time; the frames are kept beside the data (folder `snn_probe-frames`) and found again as long as no
file there changes.

Frames are float16, to halve the memory: counts up to 2048 are exact, other values right to 1 part in 2048. Convert the
batches (`.float()`), not the whole. Symbols: N recordings, T timesteps (frames), H rows, W columns.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snn_probe.machine.files import shortened
from snn_probe.machine.progress import Progress

from . import frame_cache, recordings
from .event_files import Events
from .event_sets import SETS, EventSet
from .frames import integrate, resize
from .recordings import Recording

__all__ = ["SETS", "EventSet", "found", "labels", "read"]

SPLITS = ("train", "validation", "test")
MAX_STEPS = 1000
MAX_SIZE = 1024
CACHE_VERSION = 1  # to be raised whenever the same files give other frames
_CACHE_FOLDER = "snn_probe-frames"
_MOST_COUNTS = float(np.finfo(np.float16).max)


def read(
    name: str,
    split: str,
    *,
    num_steps: int,
    root: str | os.PathLike[str],
    download: bool = False,
    frame_size: int | tuple[int, int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames (N, T, 2, H, W) float16 and labels (N,) int64 of a split of `SETS[name]` below the folder `root`.

    `num_steps` is T; channel 0 counts OFF events, channel 1 ON events; row 0 is the top. `frame_size` is H = W, or
    (H, W), or None for the set's own. Recordings come in turn over the classes. The frames may be a mapped file: what
    is never looked at is never read, and what is written into them stays in this process. `download` fetches a missing
    set if a program can (only cifar10-dvs, 8 GB).

    Raises ValueError for a bad argument or a corrupt file, FileNotFoundError for a missing set, class or file.
    """
    event_set = _checked(name, split)
    size = _size(event_set, frame_size)
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or not 1 <= num_steps <= MAX_STEPS:
        raise ValueError(
            f"num_steps is {num_steps!r}, but {name} is cut into frames; give a whole number from 1 to {MAX_STEPS}."
        )
    if download:
        _fetch(event_set, root)
    listing = recordings.listing(event_set, root)
    chosen = listing.splits[split]
    key = _key(listing.home, chosen, event_set.name, num_steps, size)
    path = listing.home / _CACHE_FOLDER / f"{name}-{split}-T{num_steps}-{size[0]}x{size[1]}-{key}.npy"

    def pieces() -> Iterator[tuple[int, np.ndarray]]:
        for index, events in _events(event_set, listing, chosen, f"{name} {split}: frames"):
            yield index, _frames(event_set, events, chosen[index], num_steps, size)

    frames = frame_cache.kept(path, (len(chosen), num_steps, 2, *size), pieces)
    return torch.from_numpy(frames), torch.tensor([recording.label for recording in chosen], dtype=torch.int64)


def labels(name: str, split: str, root: str | os.PathLike[str]) -> torch.Tensor:
    """Labels (N,) int64 of a split, as `read` gives them, without reading any event."""
    chosen = recordings.listing(_checked(name, split), root).splits[split]
    return torch.tensor([recording.label for recording in chosen], dtype=torch.int64)


def found(name: str, root: str | os.PathLike[str]) -> dict[str, Any]:
    """What is there of a data set, without reading events: for a listing, so nothing missing is an error.

    Keys: `folder` and `form` (None if nothing is there), `recordings` and `bytes` found, `published` (how many
    recordings the complete set has), and `problem`, a sentence or None.
    """
    event_set = _checked(name, "train")
    report: dict[str, Any] = {
        "folder": None,
        "form": None,
        "recordings": 0,
        "bytes": 0,
        "published": event_set.published,
    }
    try:
        home, _, layout = recordings.find(event_set, root)
        report |= {"folder": str(home), "form": layout.description}
        chosen = [one for part in recordings.listing(event_set, root).splits.values() for one in part]
        size = sum(path.stat().st_size for path in {one.path for one in chosen})
    except (OSError, ValueError) as error:
        return report | {"problem": str(error)}
    problem = None
    if len(chosen) != event_set.published:
        problem = (
            f"{home} has {len(chosen)} recordings, but {event_set.published} were published; "
            f"{recordings.advice(event_set, home)} if you want all of them."
        )
    return report | {"recordings": len(chosen), "bytes": size, "problem": problem}


def _checked(name: str, split: str) -> EventSet:
    if name not in SETS:
        raise ValueError(f"name is {name!r}, which is no event data set here; choose one of {', '.join(SETS)}.")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, which {name} does not have; choose one of {', '.join(SPLITS)}.")
    return SETS[name]


def _size(event_set: EventSet, frame_size: int | tuple[int, int] | None) -> tuple[int, int]:
    given = event_set.frame_size if frame_size is None else frame_size
    size = tuple(given) if isinstance(given, tuple | list) else (given, given)
    if len(size) != 2 or not all(isinstance(length, int) and 1 <= length <= MAX_SIZE for length in size):
        raise ValueError(
            f"frame_size is {frame_size!r}, but frames have rows and columns; give one or two whole numbers from 1 to "
            f"{MAX_SIZE}."
        )
    return size


def _events(
    event_set: EventSet, listing: recordings.Listing, chosen: tuple[Recording, ...], label: str
) -> Iterator[tuple[int, Events]]:
    """(index, events) of every recording, in the order of the files, so that each file is read once."""
    last: Path | None = None
    events: Any = None
    order = sorted(range(len(chosen)), key=lambda index: (str(chosen[index].path), chosen[index].start or 0))
    for index in Progress(order, label):
        one = chosen[index]
        if one.path != last:
            with _blaming(event_set, str(one.path)):
                last, events = one.path, listing.layout.reader(one.path)
        if one.start is None:
            yield index, events
        else:
            during = (events.time >= one.start) & (events.time < one.stop)
            yield index, Events(events.x[during], events.y[during], events.on[during])


def _frames(
    event_set: EventSet, events: Events, recording: Recording, num_steps: int, size: tuple[int, int]
) -> np.ndarray:
    gesture = "" if recording.start is None else f", from {recording.start} to {recording.stop} microseconds,"
    with _blaming(event_set, f"{recording.path}{gesture}"):
        counts = integrate(events, num_steps=num_steps, sensor_size=event_set.sensor_size)
        if counts.max() > _MOST_COUNTS:
            raise ValueError(f"has a pixel with {counts.max()} events in one frame, more than any camera sends")
    return resize(counts, size).astype(np.float16)


@contextmanager
def _blaming(event_set: EventSet, where: str) -> Iterator[None]:
    """Completes what a reader found wrong to a sentence: where, the fault, what to do."""
    try:
        yield
    except (ValueError, OSError) as error:
        fault = f"cannot be read ({error.strerror or error})" if isinstance(error, OSError) else shortened(str(error))
        raise ValueError(f"{where} {fault}; {event_set.advice} and unpack it again.") from error


def _key(home: Path, chosen: tuple[Recording, ...], *settings: object) -> str:
    """A digest of everything that the frames depend on: the settings, and names, sizes and dates of all files."""
    state = {path: path.stat() for path in {one.path for one in chosen}}
    files = [
        (os.path.relpath(one.path, home), state[one.path].st_size, state[one.path].st_mtime_ns, one.start, one.stop)
        for one in chosen
    ]
    return hashlib.sha256(json.dumps([CACHE_VERSION, settings, files]).encode()).hexdigest()[:16]


def _fetch(event_set: EventSet, root: str | os.PathLike[str]) -> None:
    """Downloads and unpacks what is missing of a set that a program can download; otherwise does nothing.

    Addresses and checksums are SpikingJelly's. An archive that arrived broken is fetched again.
    """
    try:
        recordings.listing(event_set, root)
        return
    except FileNotFoundError:
        if not event_set.downloadable:
            raise
    from spikingjelly.datasets.cifar10_dvs import CIFAR10DVS
    from torchvision.datasets.utils import download_and_extract_archive

    home = Path(root) / event_set.folders[0]
    for filename, address, checksum in CIFAR10DVS.resource_url_md5():
        try:
            download_and_extract_archive(
                address, str(home / "download"), str(home / "extract"), filename=filename, md5=checksum
            )
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"{filename} of {event_set.name} could not be downloaded from {address} ({error}); try again, or "
                f"{event_set.advice} and unpack in {home}."
            ) from error
