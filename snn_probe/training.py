"""Training: a generator of checkpoints, one per epoch.

Adam, learning rate 0.5 lr (1 + cos(pi (e-1)/E)) in epoch e of E, no weight decay, as in the papers. Weights, order,
augmentation and any noise inside the network have a seed each.
"""

import logging
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snn_probe.checkpoint import Checkpoint, save, weights_digest
from snn_probe.config import RunConfig
from snn_probe.data import batches
from snn_probe.distributed import dealing, own_device, rank, same_buffers, summed, together, world_size
from snn_probe.evaluation import Evaluation, evaluate
from snn_probe.machine.interrupts import Interrupted, unbroken
from snn_probe.own import is_own
from snn_probe.own.network import check_own_network, check_own_objective
from snn_probe.own.weights import load_into, read_weights
from snn_probe.runs.one_epoch import Progress, one_epoch
from snn_probe.runs.resuming import last_checkpoint, take
from snn_probe.runs.run_folder import RunFolder
from snn_probe.runs.state import TrainingState
from snn_probe.runs.step import ADVICE, TrainingDiverged, not_finite
from snn_probe.system import DataRoot, load_split, network_of, resolved

__all__ = ["Evaluation", "TrainingDiverged", "evaluate", "train"]

EVALUATION_BATCH = 64  # what stays in the cache: larger ones are slower on a CPU

_log = logging.getLogger(__name__)


def train(
    config: RunConfig,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    override: bool = False,
    save_epochs: Iterable[int] = (),
    progress: Progress | None = None,
    device: str = "cpu",
    data_root: DataRoot = None,
    weights: str | Path | None = None,
) -> Iterator[Checkpoint]:
    """Train as ``config`` says; yield the checkpoint after each epoch.

    With ``folder`` a run's folder is written: config.json, metrics.csv, checkpoints/{last,best,epoch_0005}.pt ("best"
    by validation accuracy, then validation loss; ``save_epochs`` are kept for later), resume.pt and the one before it.
    ``resume`` continues from the last state saved exactly as if there had been no break (bit for bit on the CPU with the
    same number of threads and processes; the ``save_epochs`` given before still hold), or starts anew if the folder
    holds no run. States are saved after each epoch, every ten minutes within one, and when a signal asks for the end
    (:mod:`snn_probe.machine.interrupts`). A saved state of another configuration, and data that are not those the run began
    with (:func:`snn_probe.data.fingerprint`), are refused; ``override`` lets the run go on with them, an epoch that was
    left within anew. What the folder has lost is written again. ``progress(batches, label)`` may wrap each epoch's
    batches to show how far it is. Each epoch is logged, at level INFO. ``device``: cpu, cuda or cuda:N.
    ``data_root``: folder of the data sets that are read from the disk.
    ``weights``: a file of weights to begin from (:func:`snn_probe.own.weights.read_weights`), whose SHA-256 the configuration then states.

    Tensors and code of your own: name them in ``config`` as package.module:name and say
    ``snn_probe.own.allow(name, meant)``, for data the mapping of :mod:`snn_probe.data.own` or a function that returns it.

    Under torchrun (inside :func:`snn_probe.distributed.processes`) every process calls this: each example is seen by
    one of them, ``batch_size`` counts all together, and batch norm normalizes with each process's own share of a
    batch; the first process writes.

    Raises ValueError for an impossible configuration, TrainingDiverged when the loss or a gradient is not finite
    (before the step, so the last checkpoint is good), OSError when the folder cannot be written.
    """
    kept = sorted(set(save_epochs))
    if any(isinstance(e, bool) or not isinstance(e, int) or not 1 <= e <= config.epochs for e in kept):
        raise ValueError(f"save_epochs is {kept}; give whole numbers from 1 to epochs, which is {config.epochs}.")
    if resume and folder is None:
        raise ValueError("resume needs the run's folder; give folder.")
    config = resolved(config, data_root)
    splits = _Splits(config, data_root)
    config, given = _beginning(config, weights)
    state = TrainingState(config, network_of(config, data_root), kept, own_device(device))
    data = splits.of(state.stage)
    if is_own(config.model):
        check_own_network(config.model, state.step.model, data["train"], state.stage.num_steps, state.network)
    for stage in config.schedule():
        if is_own(stage.method):
            check_own_objective(stage.method, stage.objective(), state.step.model, data["train"])
    if given is not None:
        load_into(state.step.model, given)
    run = RunFolder(folder) if folder is not None else None
    name = run.name if run else config.run_name()
    with ExitStack() as held:
        if run:
            take(state, run, held, data, resume=resume, override=override)
        if config.weights is not None and given is None and not state.epoch and state.position is None:
            raise ValueError(
                f"The run begins from weights with the SHA-256 {config.weights}; give their file with --weights."
            )
        return _epochs(state, splits, run, name, progress or (lambda items, label: items), held.pop_all())


def _beginning(config: RunConfig, file: str | Path | None) -> tuple[RunConfig, dict[str, Tensor] | None]:
    """The configuration that states the weights to begin from, and these."""
    if file is None:
        return config, None
    given = read_weights(file)
    return replace(config, weights=weights_digest(given)), given


class _Splits:
    """The splits of a run's data set; event streams are cut anew where a stage has another T."""

    def __init__(self, config: RunConfig, data_root: DataRoot):
        self.config, self.data_root = config, data_root
        self.num_steps: int | None = None
        self.splits: dict[str, Any] = {}

    def of(self, stage) -> dict[str, Any]:
        """train, validation and test, as this stage sees them."""
        if self.num_steps != stage.num_steps:
            common: dict[str, Any] = dict(stage=stage, data_root=self.data_root)
            self.splits = {name: load_split(self.config, name, **common) for name in ("validation", "test")}
            self.splits["train"] = load_split(self.config, "train", num_examples=self.config.train_examples, **common)
            self.num_steps = stage.num_steps
        return self.splits


def _epochs(
    state: TrainingState, splits: _Splits, run: RunFolder | None, name: str, progress: Progress, held: ExitStack
) -> Iterator[Checkpoint]:
    """The loop of :func:`train`, apart from it so that mistakes are reported when it is called."""
    config = state.config

    def keep() -> None:
        if run and rank() == 0:
            run.write_resume(state.saved())

    # Several processes stop where they agree to, after a step; between epochs one would leave the others waiting.
    with held, unbroken() if world_size() > 1 else nullcontext():
        for epoch in range(state.epoch + 1, config.epochs + 1):
            state.enter(epoch)
            data = splits.of(state.stage)
            try:
                row = {"epoch": epoch, **one_epoch(state, data["train"], epoch, progress, keep)}
                trained, began = state.position, time.perf_counter()
                row |= _evaluated(state, data, epoch)
            except Interrupted:
                if state.position is not None:  # no step is half done: the epoch goes on from here
                    keep()
                raise
            row["seconds"] = trained.seconds + time.perf_counter() - began if trained else math.nan
            with unbroken():
                checkpoint = _finished(state, run, name, epoch, row)
            yield checkpoint


def _finished(state: TrainingState, run: RunFolder | None, name: str, epoch: int, row: dict[str, Any]) -> Checkpoint:
    """Close the epoch and write what the folder keeps of it; its checkpoint."""
    improved = state.finish(epoch, row)
    checkpoint = last_checkpoint(state, name)
    with dealing(), together():
        if run and rank() == 0:
            for kind in ["epoch"] * (epoch in state.kept) + ["best"] * improved + ["last"]:
                save(checkpoint.of_kind(kind), run.checkpoint(kind, epoch))
            run.write_metrics(state.rows)
            run.write_resume(state.saved())
    if rank() == 0:
        _log.info("%s", _line(row, state.config.epochs))
    return checkpoint


def _line(row: dict[str, Any], epochs: int) -> str:
    """An epoch's metrics for a person."""
    known = {name: math.nan if value is None else value for name, value in row.items()}
    return (
        "epoch {epoch}/{epochs}  loss {train_loss:.4f}  accuracy train {train_accuracy:.2%} "
        "validation {validation_accuracy:.2%} test {test_accuracy:.2%}  {seconds:.1f} s"
    ).format(epochs=epochs, **known)


def _evaluated(state: TrainingState, data: dict[str, Any], epoch: int) -> dict[str, float | None]:
    """Loss and accuracy on validation and test, and the firing rate on validation."""
    model = state.step.model
    same_buffers(model)
    wrong = not_finite(model.state_dict())  # neurons that read NaN stay silent: the loss may not show it
    row: dict[str, float | None] = {}
    for split in ("validation", "test"):
        shown = _first(batches(data[split], EVALUATION_BATCH), state.config.eval_examples)
        found = _evaluate_share(model, shown, state.device)
        if wrong or not math.isfinite(found.loss):
            cause = repr(wrong[0]) if wrong else f"the {split} loss"
            raise TrainingDiverged(
                f"{cause} is not finite after epoch {epoch}; nothing of this epoch was saved {ADVICE}."
            )
        row |= {f"{split}_loss": found.loss, f"{split}_accuracy": found.accuracy}
        rate = None if math.isnan(found.firing_rate) else found.firing_rate  # of a network without known spiking layers
        row.setdefault("firing_rate", rate)  # on the validation split
    return row


def _first(all_batches, limit: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of the first ``limit`` examples."""
    left = math.inf if limit is None else limit
    for inputs, labels in all_batches:
        if left <= 0:
            return
        count = int(min(left, len(labels)))
        yield inputs[:count], labels[:count]
        left -= count


def _evaluate_share(model, all_batches, device: torch.device) -> Evaluation:
    """The evaluation over all examples, each process taking every so-many-th batch."""
    if world_size() == 1:
        return evaluate(model, all_batches)
    own = islice(all_batches, rank(), None, world_size())  # never all at once: ImageNet's would fill the memory
    first = list(islice(own, 1))
    found = evaluate(model, chain(first, own)) if first else Evaluation(0.0, 0.0, 0.0, 0)
    n = found.num_examples
    loss, correct, rate, count = summed([found.loss * n, found.accuracy * n, found.firing_rate * n, n], device)
    return Evaluation(loss / count, correct / count, rate / count, int(count))
