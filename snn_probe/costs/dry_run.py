"""``--dry-run`` of the probe commands: passes, time, memory and disk of each measurement, told from a calibration on the
real networks and data. Nothing is written."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from snn_probe.costs import calibration
from snn_probe.costs.calibration import Calibration, Cost, calibrate, in_bytes, in_memory, in_time
from snn_probe.costs.passes import in_passes
from snn_probe.data import batches
from snn_probe.distributed import own_device
from snn_probe.machine.memory import halving
from snn_probe.machine.progress import duration
from snn_probe.measurement import Effort, Job, Measurement, Passes, prepared
from snn_probe.probes import operator
from snn_probe.results import Result, strict_json
from snn_probe.subjects import Subject, stage_of


@dataclass(frozen=True)
class Estimate:
    """Of one part of a measurement of one checkpoint: its calibration, the examples of all processes and of one batch,
    the bytes held before the first pass, the seconds to load, and the settings of the calibration's results."""

    effort: Effort
    calibration: Calibration
    examples: int
    batch_size: int
    before: float
    loading: float
    settings: dict[str, Any]
    device: torch.device

    def cost(self, *, devices: int = 1, repeats: int | None = None) -> Cost:
        """What one of ``devices`` processes, the busiest, that share the batches will need; without what is held and
        loaded before. Curvature whose graphs the memory does not hold builds them anew for each product."""
        repeats = self.effort.repeats if repeats is None else repeats
        dealt = math.ceil(math.ceil(self.examples / self.batch_size) / devices) * self.batch_size
        own = min(dealt, self.examples)
        found = self.calibration.at(own, repeats)
        memory = self._grown(own)
        allowed = self._rebuilt_within(memory)
        vectors = 4.0 * self.effort.vectors * self.settings.get("num_parameters", 0)
        if allowed is None:
            return replace(found, memory=memory + vectors)
        none, one = (self.calibration.at(own, count).seconds for count in (0, 1))
        graphs = none - self.calibration.at(0, 0).seconds  # a small difference, so noisy; a product goes through its
        graphs = max(graphs, 0.5 * (one - none))  # graph twice, so that building it takes about half as long
        return replace(found, memory=allowed + vectors, seconds=found.seconds + (repeats - 1) * graphs)

    def passes(self) -> Passes:
        """How many passes through all examples it is."""
        kept = {"graphs_kept": False} if self._rebuilt_within(self._grown(self.examples)) else {}
        return self.effort.passes({**self.settings, **kept}, self.effort.repeats, self.batch_size)

    def _grown(self, examples: int) -> float:
        """Bytes by which the peak grows with so many examples, for the fewest repeats."""
        counted = examples if self.effort.keeps else min(examples, self.calibration.examples[1])
        return self.calibration.at(counted, self.effort.least).memory

    def _rebuilt_within(self, memory: float) -> float | None:
        return rebuilt_within(memory, self.settings, self.device)


def rebuilt_within(memory: float, settings: dict[str, Any], device: torch.device) -> float | None:
    """The bytes that the graphs of curvature may take, if the calibration's fitted but all would not; else None."""
    allowed = operator.MEMORY_SHARE * operator.free_bytes(device)
    return allowed if settings.get("graphs_kept") and memory >= allowed else None


def estimates(
    wanted: Measurement,
    subject: Subject,
    *,
    split: str,
    num_examples: int | None,
    batch_size: int,
    data_root: Path | None,
    device: str,
) -> list[Estimate]:
    """The estimate of each part of the measurement."""
    loading, (checkpoint, data, count, model) = _loaded(
        partial(prepared, subject, split, num_examples, data_root, device)
    )
    place = own_device(device)
    before = calibration.held(str(place))

    def part(effort: Effort, at_once: int) -> Estimate:
        everything = batches(data, at_once)
        kept: list[Result] = []

        def work(examples: int, repeats: int) -> Result:
            job = Job(subject.file, checkpoint, model, _First(everything, examples), Path())
            source = {**checkpoint.card, "file": subject.file.name, "stage": stage_of(checkpoint)}
            kept[:] = [replace(effort.measure(job, repeats), source=source)]
            return kept[0]

        whole = count, min(effort.repeats, effort.most or effort.repeats)
        found = calibrate(work, whole, (at_once, effort.least), disk=bytes_of, device=str(place))
        return Estimate(effort, found, count, at_once, before, loading, kept[0].settings, place)

    what = f"{wanted.name} {subject.file.stem}"
    return [halving(partial(part, effort), min(batch_size, count), what) for effort in wanted.efforts]


def _loaded(load: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds of ``load`` and what it gives; the second time where that is quick, for the first imports libraries."""
    times: list[float] = []
    while len(times) < 2 and sum(times) < 10.0:
        began = calibration.now()
        found = load()
        times.append(calibration.now() - began)
    return times[-1], found


@dataclass(frozen=True)
class _First:
    """The batches of the first ``count`` examples."""

    batches: Any
    count: int

    def __len__(self) -> int:
        return math.ceil(self.count / self.batches.batch_size)

    def __iter__(self) -> Iterator[Any]:
        left = self.count
        for inputs, labels in self.batches:
            yield inputs[:left], labels[:left]
            left -= len(labels)
            if left <= 0:
                return


def bytes_of(found: Result) -> float:
    """About how long the result's file is."""
    parts = (found.settings, found.source, found.environment, found.table.to_dict("list"))
    return float(sum(len(strict_json(part)) for part in parts))


def dry_run(
    wanted: list[Measurement], subjects: tuple[Subject, ...], *, devices: int = 1, **options: Any
) -> Iterator[str]:
    """What measuring every subject would cost, in lines. Subjects whose networks are alike are calibrated once; the
    options are those of :func:`estimates`."""
    seconds = disk = shared = 0.0
    for one in wanted:
        for alike in _alike(subjects):
            found = estimates(one, alike[0], **options)
            for estimate in found:
                yield from _lines(one, alike, estimate, devices)
            many = len(alike)
            seconds += many * (found[0].loading + sum(part.cost().seconds for part in found))
            shared += many * (found[0].loading + sum(part.cost(devices=devices).seconds for part in found))
            disk += many * found[-1].cost().disk
    yield f"in all {in_time(seconds, shared, devices)}; {in_bytes(disk)} on the disk, figures not counted"


def _alike(subjects: tuple[Subject, ...]) -> list[tuple[Subject, ...]]:
    """The subjects in groups of equal networks, data, timesteps and objectives."""
    groups: dict[Any, list[Subject]] = {}
    for subject in subjects:
        checkpoint = subject.load()
        config, stage = checkpoint.config, checkpoint.stage
        shapes = tuple((name, tuple(tensor.shape)) for name, tensor in checkpoint.state_dict.items())
        key = (config.model, str(config.neuron), config.dataset, stage.num_steps, stage.method, shapes)
        groups.setdefault(key, []).append(subject)
    return [tuple(group) for group in groups.values()]


def _lines(wanted: Measurement, alike: tuple[Subject, ...], found: Estimate, devices: int) -> Iterator[str]:
    effort, cost, own = found.effort, found.cost(), found.cost(devices=devices)
    name = alike[0].file.name
    which = name if len(alike) == 1 else f"{len(alike)} checkpoints like {name}"
    yield f"{effort.name or wanted.name} of {which}: {found.examples} examples, {found.batch_size} at a time"
    yield f"  passes  {_passes(found.passes(), effort)}"
    most = _bound(found, devices)
    each = "each " * (len(alike) > 1)
    yield f"  time    {each}{in_time(cost.seconds, own.seconds, devices)}{most}"
    yield f"  memory  {in_memory(found.before, own.memory)}"
    if effort is wanted.efforts[-1]:
        yield f"  disk    {each}about {in_bytes(cost.disk)}, figures not counted"
    yield f"  ({_calibrated(found)})"


def _passes(passes: Passes, effort: Effort) -> str:
    many = f" (as a rule; at most {effort.bound} {effort.what})" if effort.bound else ""
    return f"{in_passes(*passes)} through all examples, and checks on a few{many}"


def _bound(found: Estimate, devices: int) -> str:
    if found.effort.bound is None:
        return ""
    return f"; at most {duration(found.cost(devices=devices, repeats=found.effort.bound).seconds)}"


def _calibrated(found: Estimate) -> str:
    low, high = found.calibration.examples
    said = f"calibrated on {low} and {high} examples" if low < high else f"calibrated on {low} examples"
    low, high = found.calibration.repeats
    return said if high == 1 else f"{said}, {low} and {high} {found.effort.what}"
