"""Questions answered in a process of their own, so that a library that raises, crashes or hangs harms nobody else."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import queue
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SECONDS = 120.0  # for one answer: torch from a slow network disk takes a minute

_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from snn_probe.installation.attempts import answer; answer(sys.argv[2:])"
)


@dataclass(frozen=True)
class Outcome:
    """An answer (`value`), or why there is none (`error`, else None); `heard` is what was printed and warned of."""

    value: Any = None
    error: str | None = None
    heard: str = ""


def attempt(
    names: Sequence[str], *, seconds: float = SECONDS, variables: Mapping[str, str] | None = None
) -> dict[str, Outcome]:
    """The outcome of each name: "devices", "kernels" and "data" are questions, any other is a module to import.

    The process sees this one's `sys.path` and environment, with `variables` over it. One that gives no answer within
    `seconds`, or ends, is replaced by a new one for the names that are left.
    """
    outcomes: dict[str, Outcome] = {}
    while waiting := [name for name in names if name not in outcomes]:
        found, fate = _ask(waiting, seconds, {**os.environ, **(variables or {})})
        outcomes |= found
        unanswered = next((name for name in waiting if name not in outcomes), None)
        if unanswered is not None:
            outcomes[unanswered] = Outcome(error=fate)
    return outcomes


def _ask(names: Sequence[str], seconds: float, environment: dict[str, str]) -> tuple[dict[str, Outcome], str]:
    """The outcomes until the first name without an answer, and what became of the process then."""
    command = [sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path), *names]
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    found: dict[str, Outcome] = {}

    def listen() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        fate = ""
        try:
            while len(found) < len(names):
                line = lines.get(timeout=seconds)
                if line is None:
                    fate = f"it ended the interpreter (exit status {process.wait()})"
                    break
                name, *outcome = json.loads(line)
                found[name] = Outcome(*outcome)
        except queue.Empty:
            fate = f"it did not answer within {seconds:g} seconds"
        process.kill()  # also after the last answer: leaving may hang as well
        listener.join()
    return found, fate


def answer(names: Sequence[str]) -> None:
    """In the process that `attempt` starts: one line of JSON for each name; other things printed are kept apart."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in names:
        channel.write(json.dumps([name, *_answered(name)]) + "\n")
        channel.flush()


def _answered(name: str) -> tuple[Any, str | None, str]:
    heard = io.StringIO()
    value, error = None, None
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(heard):
        warnings.simplefilter("always")
        try:
            value = QUESTIONS.get(name, lambda: _version(name))()
        except BaseException as raised:  # what a broken library raises is anything
            error = " ".join(f"{type(raised).__name__}: {raised}".split())
    return value, error, "\n".join([heard.getvalue(), *(str(one.message) for one in caught)])


def _version(name: str) -> str | None:
    """The version that the module itself states, after an import."""
    stated = getattr(importlib.import_module(name), "__version__", None)
    return None if stated is None else str(stated)


def _devices() -> dict[str, Any]:
    """Threads of torch and its CUDA devices; memory in bytes."""
    import torch

    devices = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        devices.append({"device": f"cuda:{index}", "name": properties.name, "memory": total, "free": free})
    return {"threads": torch.get_num_threads(), "cuda_build": torch.version.cuda, "cuda": devices}


def _kernels() -> dict[str, Any]:
    """What computes SpikingJelly's LIF neuron on each device, and why its other implementations do not."""
    import torch
    from spikingjelly.activation_based.functional import neuron_implementation

    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    found = {name: neuron_implementation("lif", torch.device(name)) for name in names}
    return {
        name: {
            "implementation": str(one["implementation"]),
            "unavailable": {str(key): str(reason) for key, reason in dict(one["unavailable"]).items()},
        }
        for name, one in found.items()
    }


def _data() -> list[dict[str, Any]]:
    """The data sets and what is on the disk of them, below the folder that SNNPROBE_DATA names."""
    from snn_probe.data import DATASETS
    from snn_probe.data.inventory import survey

    return [
        {"name": one.info.name, "place": one.place, "counts": one.counts, "problem": one.problem}
        for one in (survey(name, None) for name in DATASETS)
    ]


QUESTIONS: dict[str, Callable[[], Any]] = {"devices": _devices, "kernels": _kernels, "data": _data}
