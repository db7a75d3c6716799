"""Who may import whom, and what starts fast."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import snn_probe

ROOT = Path(snn_probe.__file__).parent
LAYERS = {
    "temporal": 0, "neurons": 0, "forward_only": 0, "pooling": 0, "objectives": 0, "parameters": 0, "results": 0, "files": 0, "centroid": 0,
    "progress": 0, "slices": 0, "shards": 0, "merge_command": 4, "slice_lines": 3, "flatness": 0, "data": 1, "models": 1, "probes": 1, "figures": 1, "config": 1,
    "gradient_path": 0, "own": 0, "own_objective": 0, "own_network": 1, "subjects": 3, "feeding": 0, "states": 0, "spikingjelly_adapter": 0, "snntorch_adapter": 0, "weights": 0, "paired": 0, "folder_lock": 0,
    "document": 0, "report_words": 0, "activity_figures": 1, "effect_figure": 1, "study_panels": 1, "study_numbers": 2,
    "study_maps": 2, "study_figures": 3, "report": 3, "conclusion": 3, "recipe_probes": 2, "recipe": 3,
    "unfinished": 2, "plan": 4, "study_probes": 5, "products": 6, "estimate": 7, "workers": 7, "study": 8, "reproduce_command": 9,
    "report_command": 9,
    "quantities": 1, "comparisons": 1, "claims": 1,
    "figure_style": 0, "lif": 0, "multistep_neurons": 0, "penalty": 0, "compiling": 1, "sharing": 0, "distributed": 0, "evaluation": 1, "presets": 1,
    "system": 2, "training_step": 2, "training_state": 3, "train_command": 4, "train_options": 4, "presets_command": 4, "data_command": 4,
    "interrupts": 0, "determinism": 0, "memory": 0, "free_memory": -0.5, "allocation": -0.5, "one_epoch": 3, "run_folder": 1, "landscape_figures": 1, "contour_labels": 0, "loss_scale": 0.5, "landscape_panels": 1, "time_figures": 1, "curvature_figures": 1, "gallery": 2, "checkpoint": 2,
    "completion": 2, "console": 0, "exports": 1, "tensorboard": 3, "export_command": 4,
    "attempts": 2, "conflicts": 0, "doctor": 3, "doctor_command": 4,
    "calibration": 1, "measurement": 3.2, "dry_run": 3.4, "curvature_efforts": 3.4, "landscape_efforts": 3.6, "training_cost": 3.4,
    "show": 3, "training": 3, "resuming": 3, "measuring": 3.6, "probe_options": 4, "landscape_command": 4, "probe_commands": 4, "cli": 10, "__main__": 11, "__init__": -1,
}  # fmt: skip
SAME_LAYER = {("multistep_neurons", "neurons"), ("forward_only", "multistep_neurons"), ("multistep_neurons", "pooling"), ("pooling", "neurons"), ("forward_only", "pooling"), ("spikingjelly_adapter", "pooling"), ("forward_only", "neurons"), ("objectives", "penalty"), ("checkpoint", "system"), ("training", "training_state"), ("training", "resuming"), ("resuming", "training_state"),
              ("progress", "interrupts"), ("folder_lock", "files"), ("weights", "files"), ("one_epoch", "training_state"), ("training", "one_epoch"),
              ("temporal", "spikingjelly_adapter"), ("temporal", "gradient_path"), ("temporal", "snntorch_adapter"),
              ("temporal", "states"), ("temporal", "multistep_neurons"), ("spikingjelly_adapter", "feeding"), ("spikingjelly_adapter", "sharing"),
              ("spikingjelly_adapter", "neurons"), ("snntorch_adapter", "feeding"), ("snntorch_adapter", "states"),
              ("time_figures", "activity_figures"), ("report", "study_figures"), ("conclusion", "report"),
              ("conclusion", "study_figures"), ("comparisons", "quantities"), ("claims", "quantities"), ("claims", "comparisons"),
              ("results", "files"), ("centroid", "results"), ("slices", "results"),
              ("flatness", "slices"), ("shards", "results"), ("landscape_panels", "landscape_figures"), ("landscape_command", "probe_options"),
              ("own_objective", "own"), ("train_command", "probe_options"), ("train_command", "train_options"), ("probe_commands", "probe_options"), ("probe_commands", "landscape_command")}  # within a layer, without a circle  # fmt: skip

WITHOUT_TORCH = {"results", "centroid", "files", "slices", "shards", "flatness", "gallery", "landscape_panels", "report", "document", "conclusion", "exports"}  # and the figures  # fmt: skip


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
    assert room in LAYERS, f"{room} has no layer yet"
    ours, others = imports(path)
    for other in ours - {room}:
        lower = LAYERS[other] < LAYERS[room] or (room, other) in SAME_LAYER
        assert lower, f"{path.name} imports {other}, which is not below it"
    if "figure" in room or room in WITHOUT_TORCH:
        assert "torch" not in others


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_figures_and_results_do_not_load_torch():
    assert run("import sys, snn_probe.gallery, snn_probe.results; print('torch' in sys.modules)").strip() == "False"


def test_the_package_and_its_command_line_start_without_heavy_imports():
    heavy = "[m for m in ('torch', 'pandas', 'matplotlib', 'numpy', 'spikingjelly', 'sklearn') if m in sys.modules]"
    assert run(f"import sys, snn_probe, snn_probe.cli; print({heavy})").strip() == "[]"
