"""Who may import whom, and what starts fast."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import snn_probe

ROOT = Path(snn_probe.__file__).parent
LAYERS = [
    "__init__ distributed machine parameters penalty presets writing",
    "neurons objectives results",
    "adapters",
    "tables temporal",
    "drawing evaluation models own probes verdicts",
    "claims config data figures report unfinished",
    "installation system",
    "checkpoint",
    "runs subjects",
    "measurement training",
    "costs",
    "studies",
    "study",
    "commands",
    "cli",
    "__main__",
]
"""Files and folders of the package, the lowest first."""
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms.split()}

WITHOUT_TORCH = {"results", "tables", "drawing", "figures", "verdicts", "claims", "writing", "report"}


def imports(path):
    """snn_probe modules (first name below the package) and other packages that a file imports anywhere in it."""
    ours, others = set(), set()
    package = ("snn_probe", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" if module == "snn_probe" else module for alias in node.names]
            names = [f"{module}.{a.name}" for a in node.names] if module in ("snn_probe", "") else [module]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "snn_probe":
                ours.add(parts[1] if len(parts) > 1 else "__init__")
            else:
                others.add(parts[0])
    return ours - {"__version__"}, others


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_from_lower_layers(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert room in LAYER, f"{room} has no layer yet"
    ours, others = imports(path)
    for other in ours - {room}:
        assert LAYER[other] < LAYER[room], f"{path.name} imports {other}, which is not below it"
    if room in WITHOUT_TORCH:
        assert "torch" not in others


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_figures_and_results_do_not_load_torch():
    assert run("import sys, snn_probe.figures, snn_probe.results; print('torch' in sys.modules)").strip() == "False"


def test_the_package_and_its_command_line_start_without_heavy_imports():
    heavy = "[m for m in ('torch', 'pandas', 'matplotlib', 'numpy', 'spikingjelly', 'sklearn') if m in sys.modules]"
    assert run(f"import sys, snn_probe, snn_probe.cli; print({heavy})").strip() == "[]"
