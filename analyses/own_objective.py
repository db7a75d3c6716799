"""An objective of one's own, as a worked example: TET whose later timesteps count more.

    cd analyses
    snnprobe train --method sdt
    snnprobe train --method own_objective:LateTET -p growth=0.5
    snnprobe fisher ../trained_models/digits-tiny-*/checkpoints/last.pt

An objective is called with logits (T, N, C), labels (N,) and the network's trainable parameters by name, and returns
the mean over the examples, a scalar. Fields of a dataclass are its hyperparameters, which ``-p name=value`` sets and
the checkpoint's card records.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class LateTET:
    """sum_t w_t CE(O(t), y) with w = softmax(growth * t), t = 1..T: at growth 0 it is TET without its MSE term."""

    growth: float = 1.0

    def __post_init__(self):
        if not isinstance(self.growth, int | float) or not abs(self.growth) < 100:
            raise ValueError(f"growth is {self.growth!r}; give a number between -100 and 100")

    def __call__(self, logits, labels, params):
        losses = torch.stack([F.cross_entropy(at_t, labels) for at_t in logits])
        timesteps = torch.arange(1, len(logits) + 1, dtype=losses.dtype, device=losses.device)
        return (torch.softmax(self.growth * timesteps, 0) * losses).sum()
