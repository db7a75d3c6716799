"""From rows to a Result: the same stamp on every probe's answer."""

import time
from typing import Any

import pandas as pd
import torch
from torch import nn

from snn_probe.distributed import members
from snn_probe.probes.batching import device_of
from snn_probe.results import Result, environment


def result(
    probe: str, rows: list[dict[str, Any]], settings: dict[str, Any], *, model: nn.Module, began: float
) -> Result:
    """Result of ``probe``; ``began`` is ``time.perf_counter()`` at its start. The source is left to the caller.

    Where ``settings`` say which parameters were looked at, the names of frozen ones, which never are, are added.
    """
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if "params" in settings and frozen:
        settings = {**settings, "frozen_parameters": frozen}
    stamp = environment(
        device=str(device_of(model)),
        threads=torch.get_num_threads(),
        processes=members(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        seconds=time.perf_counter() - began,
    )
    return Result(probe=probe, table=pd.DataFrame(rows), settings=settings, source={}, environment=stamp)
