"""How long a study will take and how much it will write, from what was measured of it, or from a short calibration.

Calibration, on a network that is not trained: a few optimizer steps and one evaluation batch for each objective and T,
and each probe on a few examples. Costs are taken as proportional to examples, so what they have in common with few
examples counts too often; expect the estimate to be off by a factor of up to two.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from torch import nn

from snn_probe import results
from snn_probe.checkpoint import Checkpoint, make_checkpoint
from snn_probe.config import RunConfig, Stage
from snn_probe.data import batches
from snn_probe.evaluation import evaluate
from snn_probe.plan import Measurement
from snn_probe.products import Where, Work
from snn_probe.study_probes import examples, measure_probe
from snn_probe.system import build_network, load_split, network_of
from snn_probe.training import EVALUATION_BATCH
from snn_probe.training_state import TrainingState

_STEPS = 2  # timed, after one that is not
_FEW = 32  # examples for a probe


@dataclass(frozen=True)
class Cost:
    """Of one part of the work: how many products, seconds of one process, bytes on the disk, and whether the seconds
    were measured on products like these."""

    products: int
    seconds: float
    bytes: int
    measured: bool


def estimate(works: list[Work], known: Mapping[str, float], where: Where) -> dict[str, Cost]:
    """The cost of what is outstanding by part: "training", and each probe. ``known``: seconds of finished products by
    path, whose mean within a part stands for the rest of it."""
    torch.set_num_threads(where.threads)
    parts: dict[str, Cost] = {}
    trained = [work for work in works if work.train]
    if trained:
        parts["training"] = _training(trained, known, where)
    wanted: dict[str, list[Measurement]] = {}
    for work in works:
        for one in work.missing:
            wanted.setdefault(one.probe.name, []).append(one)
    for name, missing in wanted.items():
        parts[name] = _probe(missing, [s for path, s in known.items() if path.startswith(f"results/{name}/")], where)
    return parts


def lines(parts: Mapping[str, Cost], jobs: int) -> list[str]:
    """The estimate in words, a line for each part and one for all."""
    said = [
        f"  {name:<20} {cost.products:>5} {'runs' if name == 'training' else 'results'}, "
        f"about {duration(cost.seconds)} ({'measured' if cost.measured else 'calibrated'})"
        for name, cost in parts.items()
    ]
    seconds, size = sum(cost.seconds for cost in parts.values()) / jobs, sum(cost.bytes for cost in parts.values())
    processes = f"{jobs} processes" if jobs > 1 else "1 process"
    return [*said, f"  about {duration(seconds)} with {processes}, {size / 1e6:.1f} MB on the disk"]


def duration(seconds: float) -> str:
    """Seconds, minutes or hours in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _training(works: list[Work], known: Mapping[str, float], where: Where) -> Cost:
    seconds, calibrated, size = 0.0, {}, 0
    measured = [s for path, s in known.items() if path.startswith("runs/")]
    for work in works:
        config = work.task.run.config
        weights = _model(config, where).state_dict().values()
        size += sum(tensor.nbytes for tensor in weights) * len(work.task.epochs)
        for stage in config.schedule():
            key = (work.task.run.arm, config.train_examples, stage.num_steps, stage.method)
            if not measured and key not in calibrated:
                calibrated[key] = _epoch(config, stage, where)
            seconds += 0.0 if measured else calibrated[key] * stage.epochs
    return Cost(len(works), len(works) * mean(measured) if measured else seconds, size, bool(measured))


def _epoch(config: RunConfig, stage: Stage, where: Where) -> float:
    """Seconds of one epoch of this stage: training and the evaluation of validation and test."""
    counts = {
        split: len(load_split(config, split, stage=stage, data_root=where.data_root))
        for split in ("validation", "test")
    }
    data = load_split(config, "train", stage=stage, num_examples=config.train_examples, data_root=where.data_root)
    state = TrainingState(config, network_of(config, where.data_root), [], torch.device(where.device))
    index = next(i for i, one in enumerate(config.schedule()) if one == stage)
    state.enter(1 + sum(one.epochs for one in config.schedule()[:index]))
    state.set_rate(1)
    order = [torch.arange(min(config.batch_size, len(data)))] * (_STEPS + 1)
    times = []
    with state.step.ready():
        for inputs, labels in data.feed(order, device=where.device):
            began = time.perf_counter()
            state.step(inputs, labels, 1.0, where="calibration")
            times.append(time.perf_counter() - began)
    step = mean(times[1:])
    some = load_split(config, "validation", stage=stage, num_examples=min(64, counts["validation"]),
                      data_root=where.data_root)  # fmt: skip
    began = time.perf_counter()
    evaluate(state.step.model, batches(some, EVALUATION_BATCH))
    example = (time.perf_counter() - began) / len(some)
    return step * math.ceil(len(data) / config.batch_size) + example * sum(counts.values())


def _probe(missing: list[Measurement], measured: list[float], where: Where) -> Cost:
    one = missing[0]
    if measured:
        sizes = [path.stat().st_size for path in where.folder.glob(f"results/{one.probe.name}/*.json")]
        return Cost(len(missing), len(missing) * mean(measured), int(len(missing) * mean(sizes or [0])), True)
    checkpoint = _untrained(one, where)
    counts = [len(examples(o.probe, o.run.config, o.run.config.stage_at(o.epoch), where.data_root)) for o in missing]
    few = min(counts[0], max(_FEW, one.probe.options.get("group_size", 1)))
    began = time.perf_counter()
    found = measure_probe(one.probe, checkpoint, data_root=where.data_root, device=where.device, most=few)
    seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        results.save(found, Path(folder, "result.json"))
        size = Path(folder, "result.json").stat().st_size
    return Cost(len(missing), seconds * sum(counts) / few, len(missing) * size, False)


def _untrained(wanted: Measurement, where: Where) -> Checkpoint:
    config, card = wanted.run.config, dict(run=wanted.run.name, kind="last", epoch=0, metrics={}, environment={})
    return make_checkpoint(_model(config, where), config, network_of(config, where.data_root), **card)


def _model(config: RunConfig, where: Where) -> nn.Module:
    return build_network(config, network_of(config, where.data_root), config.schedule()[0])
