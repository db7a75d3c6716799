"""Which recordings of an event data set lie where, and which belong to train, validation and test.

Only names are read here (and DVS128 Gesture's small tables), no events: listing 70,000 files takes seconds.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snn_probe.machine.files import shortened

from .event_sets import EventSet, Layout
from .ordering import cut, in_turn

MAX_TABLE = 2**20  # bytes


@dataclass(frozen=True)
class Recording:
    """One example: all events of `path`, or those with start <= time < stop (microseconds); and its label."""

    path: Path
    label: int
    start: int | None = None
    stop: int | None = None


@dataclass(frozen=True)
class Listing:
    """What was found in the folder `home`: `splits[s]` are the recordings of split s, in turn over the classes."""

    home: Path
    layout: Layout
    splits: dict[str, tuple[Recording, ...]]


def listing(event_set: EventSet, root: str | os.PathLike[str]) -> Listing:
    """The recordings of `event_set` below `root`, in splits train, validation and test.

    A set that comes in two parts keeps them; of another, the first nine tenths of every class are train and the rest
    test, in the order of the numbers in the file names (as `split_to_train_test_set(0.9, ...)` of SpikingJelly rounds,
    but test gets at least one). A tenth of every class of train becomes validation (`ordering.cut`).

    Raises FileNotFoundError if the set is not there or a part of it is missing, ValueError if a table is corrupt; both
    in one sentence with what was expected and where to get it.
    """
    home, base, layout = find(event_set, root)
    if layout.parts is None and not layout.trials:
        train, test = [], []
        for recordings in _by_class(event_set, layout, base):
            num_train = min(-(-9 * len(recordings) // 10), len(recordings) - 1)
            train.append(recordings[:num_train])
            test.append(recordings[num_train:])
    elif layout.trials:
        train, test = (_by_trial(event_set, base, part) for part in ("train", "test"))
    else:
        train, test = (_by_class(event_set, layout, base / part) for part in layout.parts or ())
    flat = [recording for recordings in train for recording in recordings]
    parts = cut(np.array([recording.label for recording in flat]))
    found = {split: tuple(flat[index] for index in indices) for split, indices in parts.items()}
    return Listing(home, layout, found | {"test": _in_turn(test)})


def _in_turn(lists: list[list[Recording]]) -> tuple[Recording, ...]:
    flat = [recording for recordings in lists for recording in recordings]
    ends = np.cumsum([len(recordings) for recordings in lists])
    return tuple(flat[index] for index in in_turn(np.split(np.arange(len(flat)), ends[:-1])))


def find(event_set: EventSet, root: str | os.PathLike[str]) -> tuple[Path, Path, Layout]:
    """The set's folder, the folder below it in which a layout begins, and that layout; published files come first."""
    for folder in (*event_set.folders, ""):
        home = Path(root) / folder
        for layout in event_set.layouts if home.is_dir() else ():
            for base in layout.bases:
                if _begins(home / base, layout):
                    _check_finished(home, layout)
                    return home, home / base, layout
    expected = Path(root) / event_set.folders[0]
    first = event_set.layouts[0]
    inner = "*.aedat" if first.trials else "/".join([*(first.parts or ())[:1], first.classes[0], "*" + first.suffix])
    raise FileNotFoundError(
        _to_unpack(event_set, Path(root))
        or f"{event_set.name} is not below {root}: expected, for example, {expected / inner}; "
        f"{advice(event_set, expected)}."
    )


def advice(event_set: EventSet, home: Path) -> str:
    """What to do about missing files, as the end of a sentence."""
    by_program = ", or give --download" if event_set.downloadable else ""
    return f"{event_set.advice} and unpack in {home}{by_program}"


def _to_unpack(event_set: EventSet, root: Path) -> str | None:
    """A sentence about an archive that is there; SpikingJelly wants it in `download` and unpacks it in `extract`."""
    homes = [root / folder for folder in (*event_set.folders, "")]
    places = [(home / "download", home / "extract") for home in homes] + [(home, home) for home in homes]
    for archive, to in ((place / name, to) for place, to in places for name in event_set.archives):
        if archive.is_file():
            command = f"unzip {archive} -d {to}" if archive.suffix == ".zip" else f"tar -xzf {archive} -C {to}"
            return f"{event_set.name} is not unpacked: {archive} is there, but not what is in it; run {command}."
    return None


def _begins(base: Path, layout: Layout) -> bool:
    if layout.trials:
        return (base / "trials_to_train.txt").is_file() or bool(_names(base, layout.suffix))
    folders = [base / part for part in layout.parts] if layout.parts else [base]
    return any(_names(folder / name, layout.suffix) for folder in folders for name in layout.classes)


def _check_finished(home: Path, layout: Layout) -> None:
    marker = home / "events_np.building"  # SpikingJelly removes it at the end
    if layout.bases == ("events_np",) and marker.exists():
        raise FileNotFoundError(
            f"{home / 'events_np'} is half made: SpikingJelly left {marker} when it was interrupted; remove both "
            "and let SpikingJelly convert the files again, or give the published files instead."
        )


def _names(folder: Path, suffix: str) -> list[str]:
    """Names of the files in `folder` that end in `suffix`, in the order of the numbers in them; [] without a folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted((name for name in names if name.endswith(suffix) and not name.startswith(".")), key=_natural)


def _natural(name: str) -> list[tuple[int, str]]:
    """A sorting key by which a_9 comes before a_10."""
    return [(int(piece[:300]), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", name)]


def _by_class(event_set: EventSet, layout: Layout, base: Path) -> list[list[Recording]]:
    """The recordings below `base`, one list per class. Raises FileNotFoundError if a class or a number is missing."""
    names = [_names(base / folder, layout.suffix) for folder in layout.classes]
    for folder, members in zip(layout.classes, names, strict=True):
        if not members:
            raise _missing(event_set, f"{base / folder} has no {layout.suffix} files")
    _check_numbers(event_set, layout, base, names)
    return [
        [Recording(base / folder / name, label) for name in members]
        for label, (folder, members) in enumerate(zip(layout.classes, names, strict=True))
    ]


def _check_numbers(event_set: EventSet, layout: Layout, base: Path, names: list[list[str]]) -> None:
    """Raises FileNotFoundError if a number between the first and the last of the file names is missing."""
    if event_set.numbered is None:
        return
    numbers = [{int(re.findall(r"\d+", name)[-1]) for name in members if re.search(r"\d", name)} for members in names]
    if event_set.numbered == "part":
        groups = {str(base): set().union(*numbers)}
    else:
        groups = {str(base / folder): found for folder, found in zip(layout.classes, numbers, strict=True)}
    first, last = min(map(min, groups.values())), max(map(max, groups.values()))
    for place, found in groups.items():
        gaps = set(range(first, last + 1)) - found
        if gaps:
            raise _missing(
                event_set, f"{place} lacks {len(gaps)} recordings of the numbers {first} to {last}, such as {min(gaps)}"
            )


def _by_trial(event_set: EventSet, base: Path, part: str) -> list[list[Recording]]:
    """DVS128 Gesture's gestures in `part`, one list per class, ordered by file and then by place in its table."""
    listed = base / f"trials_to_{part}.txt"
    if not listed.is_file():
        raise _missing(event_set, f"{listed} is missing, the list of the files of {part}")
    found = defaultdict(list)
    for name in sorted(_text(listed).split(), key=_natural):
        path = base / (Path(name).name or "-")  # never a file elsewhere
        if len(path.name) > 200 or "\0" in path.name:
            raise _missing(event_set, f"{listed} lists {shortened(repr(name))}, which is no name of a file")
        for needed in (path, path.with_name(f"{path.stem}_labels.csv")):
            if not needed.is_file():
                raise _missing(event_set, f"{needed} is missing, but {listed.name} lists {path.name}")
        for recording in _table(event_set, path):
            found[recording.label].append(recording)
    for label in range(event_set.num_classes):
        if not found[label]:
            raise _missing(event_set, f"no file that {listed} lists has gesture {label + 1}")
    return [found[label] for label in range(event_set.num_classes)]


def _table(event_set: EventSet, path: Path) -> list[Recording]:
    """The gestures of one file by its table: class from 1 to 11, first microsecond, first microsecond after it."""
    table = path.with_name(f"{path.stem}_labels.csv")
    recordings = []
    for number, line in enumerate(_text(table).splitlines()[1:], start=2):
        row = line.split(",") if line.strip() else []
        if not row:
            continue
        entries = [int(entry) for entry in row if re.fullmatch(r"\s*\d{1,12}\s*", entry, re.ASCII)]
        if len(entries) != 3 or len(row) != 3 or not 1 <= entries[0] <= event_set.num_classes:
            raise ValueError(
                f"{table}, line {number} is {shortened(repr(line))}, but a class from 1 to {event_set.num_classes} and two "
                f"times in microseconds are what there can be; {advice(event_set, path.parent.parent)}."
            )
        recordings.append(Recording(path, entries[0] - 1, entries[1], entries[2]))
    return recordings


def _text(path: Path) -> str:
    """The beginning of a small text file; a table of gestures has some 300 bytes."""
    with open(path, "rb") as file:
        return file.read(MAX_TABLE).decode(errors="replace")


def _missing(event_set: EventSet, what: str) -> FileNotFoundError:
    return FileNotFoundError(f"{event_set.name} is incomplete: {what}; {event_set.advice} and unpack again.")
