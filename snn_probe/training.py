"""Training: a generator of checkpoints, one per epoch.

Adam, learning rate 0.5 lr (1 + cos(pi (e-1)/E)) in epoch e of E, no weight decay, as in the papers. Weights, order,
augmentation and any noise inside the network have a seed each.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_probe.checkpoint import Checkpoint, make_checkpoint, save, weights_digest
from snn_probe.config import RunConfig, derived_seed
from snn_probe.data import batches
from snn_probe.distributed import dealing, own_device, rank, same_buffers, share, summed, together, world_size
from snn_probe.evaluation import Evaluation, evaluate
from snn_probe.own import is_own
from snn_probe.own_network import check_own_network
from snn_probe.results import environment
from snn_probe.run_folder import RunFolder
from snn_probe.system import DataRoot, load_split, network_of, resolved
from snn_probe.training_state import TrainingState
from snn_probe.training_step import ADVICE, TrainingDiverged, not_finite
from snn_probe.weights import load_into, read_weights

__all__ = ["Evaluation", "TrainingDiverged", "evaluate", "train"]

EVALUATION_BATCH = 64  # what stays in the cache: larger ones are slower on a CPU

_log = logging.getLogger(__name__)

Progress = Callable[[Iterable[Any], str], Iterable[Any]]


def train(
    config: RunConfig,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    save_epochs: Iterable[int] = (),
    progress: Progress | None = None,
    device: str = "cpu",
    data_root: DataRoot = None,
    weights: str | Path | None = None,
) -> Iterator[Checkpoint]:
    """Train as ``config`` says; yield the checkpoint after each epoch.

    With ``folder`` a run's folder is written: config.json, metrics.csv, checkpoints/{last,best,epoch_0005}.pt ("best"
    by validation accuracy, then validation loss; ``save_epochs`` are kept for later) and resume.pt. ``resume``
    continues after the last complete epoch exactly as if there had been no break (bit for bit on the CPU with the same
    number of threads and processes; the ``save_epochs`` given before still hold), or starts anew if the folder holds no
    run. ``progress(batches, label)`` may wrap each epoch's batches to show how far it is. Each epoch is logged, at
    level INFO. ``device``: cpu, cuda or cuda:N. ``data_root``: folder of the data sets that are read from the disk.
    ``weights``: a file of weights to begin from (:func:`snn_probe.weights.read_weights`), whose SHA-256 the configuration then states.

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
    if given is not None:
        load_into(state.step.model, given)
    run = RunFolder(folder) if folder is not None else None
    name = run.path.resolve().name if run else config.run_name()
    if run:
        with dealing(), together():
            if rank() == 0:
                run.begin(config.to_dict(), resume=resume, complete=_complete)
        if resume and (saved := run.read_resume()) is not None:
            state.restore(saved)
            _refuse_lost(kept, state, run)
    if config.weights is not None and given is None and not state.epoch:
        raise ValueError(
            f"The run begins from weights with the SHA-256 {config.weights}; give their file with --weights."
        )
    return _epochs(state, splits, run, name, progress or (lambda items, label: items))


def _beginning(config: RunConfig, file: str | Path | None) -> tuple[RunConfig, dict[str, Tensor] | None]:
    """The configuration that states the weights to begin from, and these."""
    if file is None:
        return config, None
    given = read_weights(file)
    return replace(config, weights=weights_digest(given)), given


def _complete(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration with what did not exist yet when it was written, at its default."""
    return RunConfig.from_dict(stored).to_dict()


def _refuse_lost(kept: list[int], state: TrainingState, run: RunFolder) -> None:
    lost = [e for e in kept if e <= state.epoch and not run.checkpoint("epoch", e).exists()]
    if lost:
        raise ValueError(
            f"save_epochs has {lost[0]}, but the run in {run.path} is past epoch {lost[0]} and did not keep it;"
            " leave it out, or train anew in another folder."
        )


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
    state: TrainingState, splits: _Splits, run: RunFolder | None, name: str, progress: Progress
) -> Iterator[Checkpoint]:
    """The loop of :func:`train`, apart from it so that mistakes are reported when it is called."""
    config = state.config
    for epoch in range(state.epoch + 1, config.epochs + 1):
        began = time.perf_counter()
        state.enter(epoch)
        data = splits.of(state.stage)
        row = {"epoch": epoch, **_one_epoch(state, data["train"], epoch, progress), **_evaluated(state, data, epoch)}
        row["seconds"] = time.perf_counter() - began
        improved = state.finish(epoch, row)
        place = environment(device=str(state.device), threads=torch.get_num_threads(), processes=world_size())
        checkpoint = make_checkpoint(
            state.step.model, config, state.network, run=name, kind="last", epoch=epoch, metrics=row, environment=place
        )
        with dealing(), together():
            if run and rank() == 0:
                for kind in ["epoch"] * (epoch in state.kept) + ["best"] * improved + ["last"]:
                    save(checkpoint.of_kind(kind), run.checkpoint(kind, epoch))
                run.write_metrics(state.rows)
                run.write_resume(state.saved())
        if rank() == 0:
            _log.info("%s", _line(row, config.epochs))
        yield checkpoint


def _line(row: dict[str, Any], epochs: int) -> str:
    """An epoch's metrics for a person."""
    known = {name: math.nan if value is None else value for name, value in row.items()}
    return (
        "epoch {epoch}/{epochs}  loss {train_loss:.4f}  accuracy train {train_accuracy:.2%} "
        "validation {validation_accuracy:.2%} test {test_accuracy:.2%}  {seconds:.1f} s"
    ).format(epochs=epochs, **known)


def _one_epoch(state: TrainingState, split: Any, epoch: int, progress: Progress) -> dict[str, float | None]:
    """Train once through the split; means over examples, of the gradient norm over the steps taken; None for
    what fp16 made overflow."""
    config, step = state.config, state.step
    rate = state.set_rate(epoch)
    generator = torch.Generator().manual_seed(derived_seed(config.seed, f"order of epoch {epoch}"))
    order = torch.randperm(len(split), generator=generator).split(config.batch_size)
    shares = [share(indices) for indices in order]
    shifts = derived_seed(config.seed, f"augmentation of epoch {epoch}") if config.augment else None
    sums, norms = [0.0, 0.0, 0.0], []
    with torch.random.fork_rng(devices=[]), step.ready():
        torch.manual_seed(derived_seed(config.seed, f"noise of epoch {epoch} in process {rank()}"))
        feed = split.feed([own for own, _ in shares], augment_seed=shifts, device=state.device)
        shown = progress(shares, f"epoch {epoch}/{config.epochs}")
        for number, ((_, factor), (inputs, labels)) in enumerate(zip(shown, feed, strict=True), 1):
            loss, norm, mean = step(inputs, labels, factor, where=f"epoch {epoch}, step {number}")
            norms.append(norm)
            if factor:
                sums[0] += loss * len(labels)
                sums[1] += F.cross_entropy(mean, labels, reduction="sum").item()
                sums[2] += (mean.argmax(-1) == labels).sum().item()
    names = ("objective", "train_loss", "train_accuracy")
    found = {name: total / len(split) for name, total in zip(names, summed(sums, state.device), strict=True)}
    taken = [norm for norm in norms if math.isfinite(norm)]
    found |= {"gradient_norm": sum(taken) / len(taken) if taken else math.nan}
    return {"learning_rate": rate, **{name: v if math.isfinite(v) else None for name, v in found.items()}}


def _evaluated(state: TrainingState, data: dict[str, Any], epoch: int) -> dict[str, float]:
    """Loss and accuracy on validation and test, and the firing rate on validation."""
    model = state.step.model
    same_buffers(model)
    wrong = not_finite(model.state_dict())  # neurons that read NaN stay silent: the loss may not show it
    row: dict[str, float] = {}
    for split in ("validation", "test"):
        shown = _first(batches(data[split], EVALUATION_BATCH), state.config.eval_examples)
        found = _evaluate_share(model, shown, state.device)
        if wrong or not math.isfinite(found.loss):
            cause = repr(wrong[0]) if wrong else f"the {split} loss"
            raise TrainingDiverged(
                f"{cause} is not finite after epoch {epoch}; nothing of this epoch was saved {ADVICE}."
            )
        row |= {f"{split}_loss": found.loss, f"{split}_accuracy": found.accuracy}
        row["firing_rate"] = row.get("firing_rate", found.firing_rate)  # on the validation split
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
