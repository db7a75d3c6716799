"""Training: a generator of checkpoints, one per epoch, and the evaluation of a model.

Adam, learning rate 0.5 lr (1 + cos(pi (e-1)/E)) in epoch e of E, no weight decay, as in the papers. Weights, order,
augmentation and any noise inside the network have a seed each.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_probe.checkpoint import Checkpoint, build_network, make_checkpoint, network_of, save
from snn_probe.config import RunConfig, derived_seed
from snn_probe.data import Split, batches, load
from snn_probe.data.augment import random_shift
from snn_probe.forward_only import values_only
from snn_probe.objectives import SDT
from snn_probe.parameters import trainable
from snn_probe.results import environment
from snn_probe.run_folder import RunFolder
from snn_probe.temporal import Batches, probing, spiking_layers

EVALUATION_BATCH = 256
MAX_SHIFT = 1  # pixels, on 8x8 digits and 16x16 event frames
_ADVICE = "and the last checkpoint is good; train anew with a lower learning_rate"


class TrainingDiverged(RuntimeError):
    """The loss or a gradient is no longer finite. The optimizer step was not taken."""


@dataclass(frozen=True)
class Evaluation:
    """Over all examples: mean loss, accuracy of the time-mean logits, spikes per neuron and timestep, their number."""

    loss: float
    accuracy: float
    firing_rate: float
    num_examples: int


def train(
    config: RunConfig,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    save_epochs: Iterable[int] = (),
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None = None,
) -> Iterator[Checkpoint]:
    """Train as ``config`` says; yield the checkpoint after each epoch.

    With ``folder`` a run's folder is written: config.json, metrics.csv, checkpoints/{last,best,epoch_0005}.pt ("best"
    by validation accuracy, then validation loss; ``save_epochs`` are kept for later) and resume.pt. ``resume``
    continues after the last complete epoch exactly as if there had been no break (bit for bit on the CPU with the same
    number of threads; the ``save_epochs`` given before still hold), or starts anew if the folder holds no run.
    ``progress(batches, label)`` may wrap each epoch's batches to show how far it is.

    Raises ValueError for an impossible configuration, TrainingDiverged when the loss or a gradient is not finite
    (before the step, so the last checkpoint is good), OSError when the folder cannot be written.
    """
    kept = sorted(set(save_epochs))
    if any(isinstance(e, bool) or not isinstance(e, int) or not 1 <= e <= config.epochs for e in kept):
        raise ValueError(f"save_epochs is {kept}; give whole numbers from 1 to epochs, which is {config.epochs}.")
    if resume and folder is None:
        raise ValueError("resume needs the run's folder; give folder.")
    network = network_of(config)
    splits = {name: load(config.dataset, name, num_steps=config.num_steps) for name in ("validation", "test")}
    splits["train"] = load(config.dataset, "train", num_steps=config.num_steps, num_examples=config.train_examples)
    state = _State(config, build_network(config, network), kept)
    run = RunFolder(folder) if folder is not None else None
    name = run.path.resolve().name if run else config.run_name()
    if run:
        run.begin(config.to_dict(), resume=resume)
        if resume and (saved := run.read_resume()) is not None:
            state.restore(saved)
            lost = [e for e in kept if e <= state.epoch and not run.checkpoint("epoch", e).exists()]
            if lost:
                raise ValueError(
                    f"save_epochs has {lost[0]}, but the run in {run.path} is past epoch {lost[0]} and did not keep it;"
                    " leave it out, or train anew in another folder."
                )
    return _epochs(config, state, splits, run, name, progress or (lambda items, label: items))


def _epochs(config, state: "_State", splits, run, name: str, progress) -> Iterator[Checkpoint]:
    """The loop of :func:`train`, apart from it so that mistakes are reported when it is called."""
    for epoch in range(state.epoch + 1, config.epochs + 1):
        began = time.perf_counter()
        row = {"epoch": epoch, **_one_epoch(config, state, splits["train"], epoch, progress)}
        wrong = _not_finite(state.model.state_dict())  # neurons that read NaN stay silent: the loss may not show it
        for split in ("validation", "test"):
            found = evaluate(state.model, batches(splits[split], EVALUATION_BATCH))
            if wrong or not math.isfinite(found.loss):
                cause = repr(wrong[0]) if wrong else f"the {split} loss"
                raise TrainingDiverged(
                    f"{cause} is not finite after epoch {epoch}; nothing of this epoch was saved {_ADVICE}."
                )
            row |= {f"{split}_loss": found.loss, f"{split}_accuracy": found.accuracy}
            row["firing_rate"] = row.get("firing_rate", found.firing_rate)  # on the validation split
        row["seconds"] = time.perf_counter() - began
        improved = state.finish(epoch, row)
        checkpoint = make_checkpoint(
            state.model,
            config,
            run=name,
            kind="last",
            epoch=epoch,
            metrics=row,
            environment=environment(device="cpu", threads=torch.get_num_threads()),
        )
        if run:
            for kind in ["epoch"] * (epoch in state.kept) + ["best"] * improved + ["last"]:
                save(checkpoint.of_kind(kind), run.checkpoint(kind, epoch))
            run.write_metrics(state.rows)
            run.write_resume(state.saved())
        yield checkpoint


def evaluate(model: nn.Module, batches: Batches, objective=None) -> Evaluation:
    """Loss and accuracy in eval mode, without gradients; the model is left as it was.

    ``objective`` gives the loss (default SDT: cross-entropy of the time-mean logits); sums and counts are carried, so
    a short last batch weighs what it should. Predictions are the argmax of the time-mean logits.
    """
    objective = objective if objective is not None else SDT()
    loss = correct = spikes = places = count = 0.0
    with probing(model), torch.no_grad(), values_only(model), _counted_spikes(model) as counted:
        params = dict(model.named_parameters())
        for inputs, labels in batches:
            logits = model(inputs)
            loss += float(objective(logits, labels, params)) * len(labels)
            correct += int((logits.mean(0).argmax(-1) == labels).sum())
            count += len(labels)
        spikes, places = counted
    if count == 0:
        raise ValueError("batches is empty; give at least one batch (inputs, labels).")
    return Evaluation(loss / count, correct / count, spikes / places if places else math.nan, int(count))


class _counted_spikes:
    """[spikes, neurons x timesteps x examples] of all spiking layers, counted by hooks while the context is open."""

    def __init__(self, model: nn.Module):
        self.layers, self.sums = spiking_layers(model).values(), [0.0, 0.0]

    def __enter__(self) -> list[float]:
        self.handles = [layer.register_forward_hook(self._add) for layer in self.layers]
        return self.sums

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    def _add(self, layer, args, spikes):
        self.sums[0] += float(spikes.sum(dtype=torch.float64))
        self.sums[1] += spikes.numel()


class _State:
    """Everything that changes during training."""

    def __init__(self, config: RunConfig, model: nn.Module, kept: list[int]):
        self.model, self.kept = model, kept
        self.params = trainable(model)
        self.optimizer = torch.optim.Adam(self.params.values(), lr=config.learning_rate, weight_decay=0.0)
        self.order, self.augmentation, noise = (
            torch.Generator().manual_seed(derived_seed(config.seed, purpose))
            for purpose in ("order", "augmentation", "noise")
        )
        self.noise = noise.get_state()
        self.epoch, self.rows, self.best = 0, [], None

    def finish(self, epoch: int, row: dict[str, Any]) -> bool:
        """Close an epoch; True if it is the best so far."""
        self.epoch = epoch
        self.rows.append(row)
        score = [row["validation_accuracy"], -row["validation_loss"]]
        if self.best is None or score > self.best:
            self.best = score
            return True
        return False

    def saved(self) -> dict[str, Any]:
        """For resume.pt: tensors, and what is plain as JSON text."""
        return {
            "plain": {"epoch": self.epoch, "rows": self.rows, "best": self.best, "save_epochs": self.kept},
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": {
                "order": self.order.get_state(),
                "augmentation": self.augmentation.get_state(),
                "noise": self.noise,
            },
        }

    def restore(self, saved: dict[str, Any]) -> None:
        plain = saved["plain"]
        self.epoch, self.rows, self.best = plain["epoch"], list(plain["rows"]), plain["best"]
        self.kept = sorted({*self.kept, *plain["save_epochs"]})
        self.model.load_state_dict(saved["model"], strict=True)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.order.set_state(saved["random"]["order"])
        self.augmentation.set_state(saved["random"]["augmentation"])
        self.noise = saved["random"]["noise"]


def _one_epoch(config: RunConfig, state: _State, split: Split, epoch: int, progress) -> dict[str, float]:
    """Train once through the split; means over examples (over steps for the gradient norm)."""
    objective = config.objective()
    rate = 0.5 * config.learning_rate * (1.0 + math.cos(math.pi * (epoch - 1) / config.epochs))
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    order = torch.randperm(len(split), generator=state.order).split(config.batch_size)
    sums = dict.fromkeys(("objective", "train_loss", "train_accuracy"), 0.0)
    norms = 0.0
    state.model.train()
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(state.noise)
        for step, index in enumerate(progress(order, f"epoch {epoch}/{config.epochs}"), 1):
            inputs, labels = split.inputs[index], split.labels[index]
            if config.augment:
                inputs = random_shift(inputs, max_shift=MAX_SHIFT, generator=state.augmentation)
            logits = state.model(inputs)
            loss = objective(logits, labels, state.params)
            norms += _step(state, loss, logits, where=f"epoch {epoch}, step {step}")
            mean = logits.detach().mean(0)
            sums["objective"] += loss.item() * len(labels)
            sums["train_loss"] += F.cross_entropy(mean, labels, reduction="sum").item()
            sums["train_accuracy"] += (mean.argmax(-1) == labels).sum().item()
        state.noise = torch.get_rng_state()
    found = {name: total / len(split) for name, total in sums.items()}
    return {"learning_rate": rate, **found, "gradient_norm": norms / len(order)}


def _step(state: _State, loss: Tensor, logits: Tensor, *, where: str) -> float:
    """One optimizer step, unless something is not finite; the norm of the gradient of all parameters."""
    advice = f"the step was not taken {_ADVICE}"
    if not math.isfinite(loss.item()):
        bad = _not_finite(state.params)
        cause = f"parameter {bad[0]!r} is" if bad else "the loss is" if logits.isfinite().all() else "the logits are"
        raise TrainingDiverged(f"{cause} not finite (loss {loss.item()}) in {where}; {advice}.")
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    gradients = {name: p.grad for name, p in state.params.items() if p.grad is not None}
    norm = torch.nn.utils.get_total_norm(gradients.values()).item()
    if not math.isfinite(norm):
        bad = [f"parameter {name!r}" for name in _not_finite(state.params)]
        bad += [f"the gradient of {name!r}" for name in reversed(_not_finite(gradients))]  # nearest to the loss first
        raise TrainingDiverged(f"{[*bad, 'the norm of the gradient'][0]} is not finite in {where}; {advice}.")
    state.optimizer.step()
    return norm


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    return [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
