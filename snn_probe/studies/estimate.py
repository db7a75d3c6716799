"""How long a study will take and how much it will write, from what was measured of it, or from a short calibration.

Calibration, on a network that is not trained: an epoch of each objective and T (:mod:`snn_probe.costs.training`), and each
probe on few and on more examples (:mod:`snn_probe.costs.calibration`), so that what a probe needs once is told from what each
example adds. How many products the eigenvalues need is not known before: those of the untrained network stand for all. For one arm of the quickstart the whole was
1.0 and 1.2 times the processor time that it then took (two measurements), its eleven probes 0.6 to 1.6 times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch
from torch import nn

from snn_probe.checkpoint import Checkpoint, make_checkpoint
from snn_probe.config import RunConfig
from snn_probe.costs.calibration import calibrate
from snn_probe.costs.dry_run import bytes_of
from snn_probe.costs.training import epoch_cost
from snn_probe.machine.progress import duration
from snn_probe.studies.measure import examples, measure_probe
from snn_probe.studies.plan import Measurement
from snn_probe.studies.products import Where, Work
from snn_probe.system import build_network, network_of

_SECONDS = 0.5  # for a calibration, of which a study has many
_FEW = 16  # examples for a probe at least


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
                cost = epoch_cost(config, stage, seconds=_SECONDS, data_root=where.data_root, device=where.device)
                calibrated[key] = cost.seconds
            seconds += 0.0 if measured else calibrated[key] * stage.epochs
    return Cost(len(works), len(works) * mean(measured) if measured else seconds, size, bool(measured))


def _probe(missing: list[Measurement], measured: list[float], where: Where) -> Cost:
    one = missing[0]
    if measured:
        sizes = [path.stat().st_size for path in where.folder.glob(f"results/{one.probe.name}/*.json")]
        return Cost(len(missing), len(missing) * mean(measured), int(len(missing) * mean(sizes or [0])), True)
    checkpoint = _untrained(one, where)
    counts = [len(examples(o.probe, o.run.config, o.run.config.stage_at(o.epoch), where.data_root)) for o in missing]
    few = min(counts[0], max(_FEW, one.probe.options.get("group_size", 1)))

    def work(most: int, repeats: int) -> Any:
        return measure_probe(one.probe, checkpoint, data_root=where.data_root, device=where.device, most=most)

    found = calibrate(work, (counts[0], 1), (few, 1), disk=bytes_of, device=where.device, seconds=_SECONDS)
    costs = [found.at(count) for count in counts]
    return Cost(len(missing), sum(cost.seconds for cost in costs), int(sum(cost.disk for cost in costs)), False)


def _untrained(wanted: Measurement, where: Where) -> Checkpoint:
    config, card = wanted.run.config, dict(run=wanted.run.name, kind="last", epoch=0, metrics={}, environment={})
    return make_checkpoint(_model(config, where), config, network_of(config, where.data_root), **card)


def _model(config: RunConfig, where: Where) -> nn.Module:
    return build_network(config, network_of(config, where.data_root), config.schedule()[0])
