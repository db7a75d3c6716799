"""One optimizer step: forward in the chosen precision, loss, backward, and a look at whether all is finite."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from snn_probe.config import RunConfig
from snn_probe.distributed import world_size
from snn_probe.neurons.multi_step import fast_training
from snn_probe.parameters import trainable
from snn_probe.runs.compiling import CompiledForward

ADVICE = "and the last checkpoint is good; train anew with a lower learning_rate"
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SHORT = "and float32 holds what float16 does not; train anew with amp bf16 or off, or smaller inputs"
_LEAST_SCALE = 2.0**-10  # of an fp16 loss; gradients that overflow here too are no matter of precision


class TrainingDiverged(RuntimeError):
    """The loss or a gradient is no longer finite. The optimizer step was not taken."""


class TrainingStep:
    """Steps of Adam on one model with one objective.

    Loss, penalty and weights are float32 whatever ``config.amp`` is. With several processes gradients are averaged
    (DistributedDataParallel), each process's loss weighted by its share of the batch.
    """

    def __init__(self, config: RunConfig, model: nn.Module, optimizer: torch.optim.Optimizer, objective):
        self.model, self.optimizer, self.objective = model, optimizer, objective
        self.params = trainable(model)
        self.device = next(iter(self.params.values())).device
        self.half = _HALF.get(config.amp)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self.channels_last = config.channels_last
        self.compiled = CompiledForward(model, self.device) if config.compile else None
        self.forward = DistributedDataParallel(model) if world_size() > 1 else model

    @contextmanager
    def ready(self) -> Iterator[None]:
        """The model in training mode with its neurons' fast first-order forms; not for curvature."""
        self.model.train()
        with ExitStack() as stack:
            stack.enter_context(fast_training(self.model))
            yield

    def __call__(self, inputs: Tensor, labels: Tensor, share: float, *, where: str) -> tuple[float, float, Tensor]:
        """Take one step; returns the loss, the norm of the gradient of all parameters (NaN where fp16 overflowed, and
        the step was left out), and the logits' mean over time. Raises TrainingDiverged before the step is taken."""
        if self.channels_last and not self.compiled and inputs.ndim == 4:  # the layers keep their order
            inputs = inputs.to(memory_format=torch.channels_last)
        with self.compiled.on(inputs) if self.compiled else nullcontext():
            with self._autocast(self.half):
                logits = self.forward(inputs)
            logits = logits.float() if self.half is not None else logits
            loss = self.objective(logits, labels, self.params)
        value = loss.item()
        if world_size() == 1:  # several processes must go on to the same end together
            if not math.isfinite(value):
                raise self._diverged(value, inputs, logits, where)
            if self.half is torch.float16 and self._spoilt():  # spikes may hide it from the loss
                cause = self._beginning(inputs) or "a statistic of batch norm is"
                raise TrainingDiverged(f"{cause} not finite in {where}; the step was not taken {self._advice(inputs)}.")
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss * share if share != 1.0 else loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = self._norm(inputs, where)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value, norm, logits.detach().mean(0)

    def _spoilt(self) -> bool:
        """Whether a buffer, such as a statistic of batch norm, is no longer finite."""
        sums = [buffer.sum() for buffer in self.model.buffers() if buffer.is_floating_point()]
        return bool(sums) and not bool(torch.stack(sums).isfinite().all())

    def _autocast(self, half: torch.dtype | None) -> torch.autocast:
        return torch.autocast(self.device.type, half or torch.bfloat16, enabled=half is not None)

    def _norm(self, inputs: Tensor, where: str) -> float:
        gradients = {name: p.grad for name, p in self.params.items() if p.grad is not None}
        norm = torch.nn.utils.get_total_norm(gradients.values()).item()
        if math.isfinite(norm):
            return norm
        bad = not_finite(self.params)
        if not bad and self.scaler.is_enabled() and self.scaler.get_scale() > _LEAST_SCALE:
            return math.nan  # fp16 overflowed: the scaler leaves the step out and halves its scale
        spoilt = [
            f"the gradient of {name!r} is" for name in reversed(not_finite(gradients))
        ]  # nearest to the loss first
        cause = self._beginning(inputs) or [*spoilt, "the norm of the gradient is"][0]
        raise TrainingDiverged(f"{cause} not finite in {where}; the step was not taken {self._advice(inputs)}.")

    def _diverged(self, value: float, inputs: Tensor, logits: Tensor, where: str) -> TrainingDiverged:
        cause = self._beginning(inputs) or ("the loss is" if logits.isfinite().all() else "the logits are")
        said = f"{cause} not finite (loss {value}) in {where}; the step was not taken {self._advice(inputs)}."
        return TrainingDiverged(said)

    def _advice(self, inputs: Tensor) -> str:
        """What to do: another precision where float16 alone overflowed in the forward, a lower learning rate elsewhere."""
        overflowed = self.half is torch.float16 and self._first_not_finite(inputs, self.half) is not None
        return _SHORT if overflowed and self._first_not_finite(inputs, None) is None else ADVICE

    def _beginning(self, inputs: Tensor) -> str | None:
        """Where in the forward numbers first were not finite, with its verb; neurons may hide it from the loss."""
        if bad := not_finite(self.params):
            return f"parameter {bad[0]!r} is"
        if not inputs.isfinite().all():
            return "the inputs are"
        layer = self._first_not_finite(inputs, self.half)
        return None if layer is None else f"the result of layer {layer!r} is"

    def _first_not_finite(self, inputs: Tensor, half: torch.dtype | None) -> str | None:
        """The layer, of the innermost that were called, whose result was the first that is not finite, by a second
        forward in this precision; None if that one is finite."""
        found: list[str] = []

        def look(name: str, result: Any) -> None:
            tensors = [part for part in (result if isinstance(result, tuple | list) else [result]) if name]
            if any(isinstance(part, Tensor) and not part.isfinite().all() for part in tensors):
                found.append(name)

        with ExitStack() as hooks, torch.no_grad():
            for name, module in self.model.named_modules():
                handle = module.register_forward_hook(lambda module, given, result, name=name: look(name, result))
                hooks.callback(handle.remove)
            hooks.enter_context(self._autocast(half))
            self.model(inputs)
        return found[0] if found else None


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    return [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
