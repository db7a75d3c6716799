"""The last step of ``make demo``: a checkpoint in, numbers and figures out, and the eigenvalue is what the sampled loss bends by."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import run

SCRIPT = Path(__file__).parents[1] / "analyses" / "three_curvatures.py"


def test_it_leaves_numbers_and_figures_and_the_relaxed_eigenvalue_is_the_bend(tmp_path):
    run("train", *"--method sdt --epochs 1 --num-steps 2 --train-examples 100 --eval-examples 20 --out".split(),
        tmp_path / "run")  # fmt: skip
    checkpoint, out = tmp_path / "run" / "checkpoints" / "last.pt", tmp_path / "found"
    command = [sys.executable, SCRIPT, checkpoint, "--out", out, "--num-examples", "16"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    assert {path.suffix for path in out.iterdir()} == {".csv", ".png", ".pdf"}
    table = pd.read_csv(out / "three_curvatures.csv")
    assert set(table["forward"]) == {"spiking", "relaxed"}
    relaxed = table[(table["forward"] == "relaxed") & (table["alpha"].abs() <= 0.05)]
    bend = 2 * np.polyfit(relaxed["alpha"], relaxed["sampled"], 4)[2]  # the second derivative at 0
    assert relaxed["eigenvalue"].iloc[0] == pytest.approx(bend, rel=0.05)
    assert np.allclose(relaxed["parabola"], relaxed["sampled"], atol=0.05 * np.ptp(table["sampled"]))
