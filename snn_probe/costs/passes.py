"""How many passes through all examples the probes make: forward, backward, and curvature products."""

from typing import Any

from snn_probe.measurement import Passes

FORWARD: Passes = (1, 0, 0)
FORWARD_AND_BACKWARD: Passes = (1, 1, 0)
CHECKS = 2  # products that look whether the operator is symmetric, after the eigenvalues


def fisher_passes(settings: dict[str, Any], batch: int) -> Passes:
    """The graph of the first t logits ends at step t, where it can; what has no contraction takes each group."""
    steps = settings["num_steps"]
    one = (steps + 1) / 2 if settings["one_graph_per_step"] else steps
    groups = batch // settings["group_size"] if settings["looped_layers"] else 0
    return 1, one * (1 + groups), 0


def curvature_passes(settings: dict[str, Any], products: int) -> Passes:
    """Graphs that are kept are made once, others for every product."""
    made = 1 if settings["graphs_kept"] else products
    return made, made, products


def in_passes(forward: float, backward: float, products: float) -> str:
    """Passes in words, those that are made at all."""
    parts = [(forward, "forward"), (backward, "backward"), (products, "curvature products")]
    return ", ".join(f"{number:g} {name}" for number, name in parts if number)
