"""Style by ruff and types by mypy, over the whole tree, as configured in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

import pytest

import snn_probe

ROOT = Path(snn_probe.__file__).parents[1]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--output-format", "concise", "."],
        ["ruff", "format", "--diff", "--quiet", "."],
        ["mypy"],
    ],
    ids=" ".join,
)
def test_the_tree_is_clean(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)} found\n{done.stdout}{done.stderr}"
