"""Spiking curvature, relaxed curvature and the loss actually sampled along the top eigenvector, side by side.

``python analyses/three_curvatures.py CKPT [--out reports/three-curvatures]`` writes the plotted numbers (CSV) and the
figure (PNG, PDF). Left, the network as it is: the sampled loss along the top eigenvector of the spiking Hessian, and
the parabola L(0) + g.v alpha + v'Hv alpha^2 / 2 which surrogate derivatives promise. Right, every spike replaced by
its surrogate's primitive: the same along the relaxed top eigenvector, where the parabola must fit near 0.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from snn_probe.checkpoint import build_model, load
from snn_probe.data import batches
from snn_probe.drawing.style import figure_bytes, style
from snn_probe.machine.files import write_atomically
from snn_probe.measurement import examples
from snn_probe.objectives import SDT
from snn_probe.parameters import trainable
from snn_probe.probes import hessian_eigenvectors, loss_slice
from snn_probe.probes.operator import FORWARDS, spikes_as
from snn_probe.temporal import probing

REACH, POINTS = 0.1, 81  # along a unit vector, in units of the weights


def along(model, data, forward: str) -> pd.DataFrame:
    """alpha, sampled loss and parabola along the top eigenvector of the Hessian in this forward mode."""
    result, (vector,) = hessian_eigenvectors(model, data, SDT(), k=1, forward=forward)
    value = result.table["eigenvalue"][0]
    alphas = np.linspace(-REACH, REACH, POINTS)
    with spikes_as(model, forward):
        sampled = loss_slice(model, data, [SDT()], alphas=alphas, directions=vector).table
        slope = directional_slope(model, data, vector)
    here = sampled.loc[sampled["alpha"] == 0, "loss"].iloc[0]
    parabola = here + slope * alphas + 0.5 * value * alphas**2
    table = sampled[["alpha", "loss"]].assign(parabola=parabola, forward=forward, eigenvalue=value)
    return table.rename(columns={"loss": "sampled"})


def directional_slope(model, data, vector: dict[str, torch.Tensor]) -> float:
    """g.v with g the gradient of the mean loss over all examples."""
    total, count = 0.0, 0
    with probing(model):
        params = trainable(model)
        for inputs, labels in data:
            gradients = torch.autograd.grad(SDT()(model(inputs), labels), list(params.values()))
            total += sum(float((g * vector[n]).sum()) for n, g in zip(params, gradients, strict=True)) * len(labels)
            count += len(labels)
    return total / count


def picture(table: pd.DataFrame) -> Figure:
    with style():
        figure = Figure(figsize=(6.75, 2.7), layout="constrained")
        for ax, forward in zip(figure.subplots(1, 2), FORWARDS, strict=True):
            rows = table[table["forward"] == forward]
            ax.plot(rows["alpha"], rows["sampled"], color="#000000", label="loss, sampled")
            ax.plot(rows["alpha"], rows["parabola"], color="#D55E00", linestyle=(0, (3, 1.3)),
                    label="parabola from first and second derivatives at 0")  # fmt: skip
            ax.set(xlabel="Step along the top eigenvector", ylabel="Loss (SDT)")
            ax.set_title(f"{forward} forward, v'Hv = {rows['eigenvalue'].iloc[0]:.3g}")
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.set_ylim(0, 1.2 * rows["sampled"].max())
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, default=Path("reports/three-curvatures"))
    parser.add_argument("--num-examples", type=int, default=512)
    options = parser.parse_args()
    checkpoint = load(options.checkpoint)
    data, _ = examples(checkpoint, "train", options.num_examples)
    data, model = batches(data, 128), build_model(checkpoint)
    table = pd.concat([along(model, data, forward) for forward in FORWARDS], ignore_index=True)
    write_atomically(options.out / "three_curvatures.csv", table.to_csv(index=False))
    for suffix in ("png", "pdf"):
        path = options.out / f"three_curvatures.{suffix}"
        write_atomically(path, figure_bytes(picture(table), suffix))
        print(path)


if __name__ == "__main__":
    main()
