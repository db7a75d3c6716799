"""What a study will take in passes, time, memory and disk, from what was measured of it, or from a short calibration.

Calibration, on a network that is not trained: an epoch of each objective and T (:mod:`snn_probe.costs.training`), and
each probe, of each network and T, on a batch and on more examples (:mod:`snn_probe.costs.calibration`), so that what a
probe needs once is told from what each example adds. How many products the eigenvalues need is not known before: those
of the untrained network stand for all. For one arm of the quickstart the whole was 1.0 and 1.2 times the processor time
that it then took (two measurements), its eleven probes 0.6 to 1.6 times. The memory of what was measured is not known,
since it is not calibrated.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import torch
from torch import nn

from snn_probe.checkpoint import Checkpoint, make_checkpoint
from snn_probe.config import RunConfig, Stage
from snn_probe.costs.calibration import Calibration, calibrate, held, in_bytes, in_time
from snn_probe.costs.dry_run import bytes_of, rebuilt_within
from snn_probe.costs.passes import in_passes
from snn_probe.costs.training import EpochCost, EpochSize, epoch_cost, epoch_size
from snn_probe.distributed import own_device
from snn_probe.machine.allocation import hand_back
from snn_probe.machine.progress import duration
from snn_probe.results import Result, load
from snn_probe.studies.measure import examples, measure_probe
from snn_probe.studies.passes import KEEPING, passes_of
from snn_probe.studies.plan import Measurement, below
from snn_probe.studies.products import Where, Work
from snn_probe.system import build_network, network_of

_SECONDS = 0.5  # for a calibration, of which a study has many


@dataclass(frozen=True)
class Cost:
    """Of one product of a run: its seconds, how often it makes which passes, the bytes of a process's memory at the
    peak (None: not known) and those on the disk, and whether the seconds were measured on products like it."""

    run: str
    seconds: float
    passes: Mapping[str, int]
    memory: float | None
    bytes: float
    measured: bool


def estimate(works: list[Work], known: Mapping[str, float], where: Where) -> dict[str, list[Cost]]:
    """The costs of all that is outstanding by part: "training", and each probe. ``known``: seconds of finished products
    by path, whose mean within a part stands for the rest of it."""
    torch.set_num_threads(where.threads)
    parts: dict[str, list[Cost]] = {}
    trained = [work for work in works if work.train]
    if trained:
        parts["training"] = _training(trained, [s for path, s in known.items() if path.startswith("runs/")], where)
    wanted: dict[str, list[Measurement]] = {}
    for work in works:
        for one in work.missing:
            wanted.setdefault(one.probe.name, []).append(one)
    for name, missing in wanted.items():
        measured = {path: s for path, s in known.items() if path.startswith(f"results/{name}/")}
        stored = _stored(measured, where)
        if stored is not None:
            parts[name] = _as_measured(missing, mean(measured.values()), stored, where)
        else:
            parts[name] = [cost for alike in _alike(missing) for cost in _calibrated(alike, where)]
    return parts


def lines(parts: Mapping[str, list[Cost]], jobs: int, devices: int = 1) -> list[str]:
    """The estimate in words: of each part, and of all with ``jobs`` processes on each of ``devices``."""
    runs: dict[str, float] = {}
    for cost in (cost for costs in parts.values() for cost in costs):
        runs[cost.run] = runs.get(cost.run, 0.0) + cost.seconds
    most = min(jobs * devices, len(runs))
    time = in_time(dealt_out(runs.values(), jobs), dealt_out(runs.values(), most), devices)
    each = math.ceil(most / devices)
    processes = f"{each} process{'es' * (each > 1)}{' on each' * (devices > 1)}"
    outstanding = f"there are {most} runs" if most > 1 else "there is 1 run"
    few = f"; {outstanding}, and none is split" * (jobs * devices > most)
    return [
        *(line for name, costs in parts.items() for line in _of_part(name, costs)),
        f"  time    {time} with {processes}{few}",
        f"  memory  {_memory(parts, each)}",
        f"  disk    {in_bytes(sum(cost.bytes for costs in parts.values() for cost in costs))}, figures not counted",
    ]


def dealt_out(seconds: Iterable[float], processes: int) -> float:
    """When the last of some processes ends, each of which takes the next run as soon as it is free."""
    ends = [0.0] * processes
    for one in seconds:
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def _of_part(name: str, costs: list[Cost]) -> list[str]:
    made, repeated = ("runs", "epochs") if name == "training" else ("results", "results")
    seconds = f"about {duration(sum(cost.seconds for cost in costs))}"
    passes: Counter[str] = Counter()
    for cost in costs:
        passes.update(cost.passes)
    memory = _peak(costs)
    how = "measured" if costs[0].measured else "calibrated"
    said = "" if memory is None else f", {in_bytes(memory)} of memory"
    return [
        f"  {name:<20} {len(costs):>5} {made}, {seconds}{said} ({how})",
        *(f"    {count} {repeated}: {what}" for what, count in passes.items()),
    ]


def _peak(costs: list[Cost]) -> float | None:
    known = [cost.memory for cost in costs if cost.memory is not None]
    return max(known, default=None)


def _memory(parts: Mapping[str, list[Cost]], processes: int) -> str:
    peaks = {name: _peak(costs) for name, costs in parts.items()}
    known = {peak: name for name, peak in peaks.items() if peak is not None}
    unknown = f"not known of {', '.join(name for name, peak in peaks.items() if peak is None)}, measured before"
    if not known:
        return unknown
    peak = max(known)
    together = f", {in_bytes(processes * peak)} of {processes} processes on one device" * (processes > 1)
    more = f"; {unknown}" * (len(known) < len(peaks))
    return f"about {in_bytes(peak)} at the peak of a process ({known[peak]}){together}{more}"


def _training(works: list[Work], measured: list[float], where: Where) -> list[Cost]:
    costs, found = [], {}
    for work in works:
        run, config = work.task.run, work.task.run.config
        seconds, memory = 0.0, None
        passes: Counter[str] = Counter()
        for stage in config.schedule():
            key = (run.arm, config.train_examples, stage.num_steps, stage.method)
            if key not in found:
                found[key] = _epoch(config, stage, where, calibrated=not measured)
            epoch = found[key]
            passes[epoch.passes] += stage.epochs
            if isinstance(epoch, EpochCost):
                seconds += stage.epochs * epoch.seconds
                memory = max(memory or 0.0, epoch.before + epoch.memory)
        weights = sum(tensor.nbytes for tensor in _model(config, config.schedule()[0], where).state_dict().values())
        seconds = mean(measured) if measured else seconds
        costs.append(Cost(run.name, seconds, passes, memory, weights * len(work.task.epochs), bool(measured)))
    return costs


def _epoch(config: RunConfig, stage: Stage, where: Where, *, calibrated: bool) -> EpochSize:
    if calibrated:
        return epoch_cost(config, stage, seconds=_SECONDS, data_root=where.data_root, device=where.device)
    return epoch_size(config, stage, where.data_root)


def _stored(measured: Iterable[str], where: Where) -> Result | None:
    """One of the results at these paths, if any is there and whole."""
    for path in measured:
        with suppress(OSError, ValueError):
            return load(below(where.folder, path))
    return None


def _as_measured(missing: list[Measurement], seconds: float, stored: Result, where: Where) -> list[Cost]:
    sizes = [path.stat().st_size for path in where.folder.glob(f"results/{missing[0].probe.name}/*.json")]
    return [
        Cost(one.run.name, seconds, _passes(one, stored, _count(one, where)), None, mean(sizes), True)
        for one in missing
    ]


def _alike(missing: list[Measurement]) -> list[list[Measurement]]:
    """In groups of equal networks and T."""
    groups: dict[Any, list[Measurement]] = {}
    for one in missing:
        config = one.run.config
        key = (config.model, config.width, str(config.neuron), config.image_size, _stage(one).num_steps)
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _calibrated(alike: list[Measurement], where: Where) -> list[Cost]:
    probe, checkpoint = alike[0].probe, _untrained(alike[0], where)
    counts = [_count(one, where) for one in alike]
    batch = max(probe.batch_size, probe.options.get("group_size", 1))
    kept: list[Result] = []

    def work(most: int, repeats: int) -> Result:
        kept[:] = [measure_probe(probe, checkpoint, data_root=where.data_root, device=where.device, most=most)]
        return kept[0]

    hand_back()
    before = held(where.device)
    found = calibrate(work, (counts[0], 1), (batch, 1), disk=bytes_of, device=where.device, seconds=_SECONDS)
    costs = []
    for one, count in zip(alike, counts, strict=True):
        cost = found.at(count)
        memory, settings = _grown(one, found, count, kept[0].settings, where)
        passes = _passes(one, replace(kept[0], settings=settings), count)
        costs.append(Cost(one.run.name, cost.seconds, passes, before + memory, cost.disk, False))
    return costs


def _grown(
    one: Measurement, found: Calibration, count: int, settings: dict[str, Any], where: Where
) -> tuple[float, dict[str, Any]]:
    """Bytes by which the peak grows with so many examples, and the settings, which say whether graphs are kept."""
    memory = found.at(count if one.probe.kind in KEEPING else min(count, found.examples[1])).memory
    allowed = rebuilt_within(memory, settings, own_device(where.device))
    return (memory, settings) if allowed is None else (allowed, {**settings, "graphs_kept": False})


def _passes(one: Measurement, found: Result, count: int) -> dict[str, int]:
    like = replace(found, settings={**found.settings, "num_steps": _stage(one).num_steps})
    passes = passes_of(one.probe, like, min(one.probe.batch_size, count))
    return {f"{in_passes(*passes)} through {count} examples": 1}


def _stage(one: Measurement) -> Stage:
    return one.run.config.stage_at(one.epoch)


def _count(one: Measurement, where: Where) -> int:
    return len(examples(one.probe, one.run.config, _stage(one), where.data_root))


def _untrained(one: Measurement, where: Where) -> Checkpoint:
    config, card = one.run.config, dict(run=one.run.name, kind="epoch", epoch=one.epoch, metrics={}, environment={})
    network = network_of(config, where.data_root)
    return make_checkpoint(_model(config, _stage(one), where), config, network, **card)


def _model(config: RunConfig, stage: Stage, where: Where) -> nn.Module:
    return build_network(config, network_of(config, where.data_root), stage)
