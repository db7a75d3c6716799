"""How much memory a program may still take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch  # late: the diagnosis of a broken installation asks here too

UNKNOWN = 4e9  # bytes, where the system does not say

_GROUPS = {  # version of the control groups: their folder, limit, use, and what of the use the file cache would give up
    2: ("sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file")),
    1: ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
}  # fmt: skip


def free_bytes(device: torch.device) -> float:
    """Of the device's memory, in bytes; on the CPU with what the file cache holds and would give up, and within what a
    scheduler or a container allows this process."""
    if device.type != "cuda":
        return of_main_memory()
    import torch

    return torch.cuda.mem_get_info(device)[0]


def of_main_memory(root: Path = Path("/")) -> float:
    """The least of what Linux calls available and of what the limits of this process's control groups leave."""
    available = 1024 * _table(root / "proc/meminfo").get("MemAvailable", -1)
    found = ([available] if available >= 0 else []) + list(_left_by_groups(root))
    return float(max(0, min(found))) if found else _free_pages()


def _left_by_groups(root: Path) -> Iterator[int]:
    """What each group with a limit leaves, from this process's own up to the root of what is mounted."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, limit, usage, cache = _GROUPS[1 if controllers else 2]
        group = Path(path.lstrip("/"))
        for place in (root / folder / one for one in (group, *group.parents)):
            most, used = _number(place / limit), _number(place / usage)
            if most is not None and used is not None:
                spared = _table(place / "memory.stat")
                yield most - used + sum(spared.get(name, 0) for name in cache)


def _free_pages() -> float:
    """Without the file cache: for systems that do not say more."""
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return UNKNOWN


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    words = (line.replace(":", " ").split() for line in _lines(path))
    return {parts[0]: int(parts[1]) for parts in words if len(parts) > 1 and parts[1].isdigit()}


def _number(path: Path) -> int | None:
    """None for "max", and where there is no such file."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
