"""Whether this installation works: versions, devices, kernels, data sets, and what to fix."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from dataclasses import asdict
from importlib import util
from pathlib import Path
from typing import Any

from snn_probe import __version__
from snn_probe.installation.attempts import SECONDS, Outcome, attempt
from snn_probe.installation.conflicts import (
    TORCH_FAMILY,
    Problem,
    conflicts,
    family_fix,
    installed_place,
    installed_version,
    needed,
)
from snn_probe.machine.free_memory import of_main_memory

REQUIRED = {
    "numpy": "numpy", "scipy": "scipy", "pandas": "pandas", "matplotlib": "matplotlib", "seaborn": "seaborn",
    "click": "click", "tqdm": "tqdm", "packaging": "packaging", "scikit-learn": "sklearn", "pillow": "PIL",
    "torch": "torch", "torchvision": "torchvision", "torchaudio": "torchaudio",
    "spikingjelly": "spikingjelly.activation_based.neuron",
}  # distribution: what is imported of it  # fmt: skip
OPTIONAL = {"snntorch": "snntorch", "safetensors": "safetensors", "tensorboard": "tensorboard", "h5py": "h5py",
            "triton": "triton"}  # fmt: skip
PURPOSE = {
    "snntorch": "networks of snnTorch",
    "safetensors": "weights in .safetensors",
    "tensorboard": "curves in TensorBoard",
    "h5py": "HDF5 files",
    "triton": "fused kernels on a CUDA device",
}
NEED_TORCH = ("torchvision", "torchaudio", "spikingjelly", "snntorch")
BUILT_FOR_NUMPY_1 = re.compile(
    r"compiled using NumPy 1|_ARRAY_API not found|multiarray failed to import|numpy\.dtype size changed"
)
DRIVER = Path("/proc/driver/nvidia/version")  # of NVIDIA, on Linux


def examine(data_root: str | None = None, *, seconds: float = SECONDS) -> dict[str, Any]:
    """The report as plain values: `libraries`, `devices`, `kernels`, `data` and `problems`; `ok` if there are none.

    Libraries are imported in a process of its own with `seconds` for each answer. Where torch does not load, what
    needs it is not tried: None stands for its answer. Memory is in bytes.
    """
    libraries = {**REQUIRED, **OPTIONAL}
    present = {name: module for name, module in libraries.items() if util.find_spec(module.partition(".")[0])}
    first = [module for name, module in present.items() if name not in NEED_TORCH]
    outcomes = attempt(first, seconds=seconds)
    torch_loads = "torch" in present and outcomes["torch"].error is None
    if torch_loads:
        later = [module for name, module in present.items() if name in NEED_TORCH]
        root = {} if data_root is None else {"SNNPROBE_DATA": data_root}
        outcomes |= attempt([*later, "devices", "kernels", "data"], seconds=seconds, variables=root)
    problems = [*conflicts([*present]), *_not_loading(present, outcomes)]
    problems += _no_device(outcomes) + _data_problems(outcomes, data_root or os.environ.get("SNNPROBE_DATA"))
    problems = list(dict.fromkeys(problems))
    return {
        "format": "snn_probe.installation.doctor/1",
        "ok": not problems,
        "snn_probe": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": f"{platform.system()} {platform.machine()}",
        "libraries": [_library(name, module, present, outcomes) for name, module in libraries.items()],
        "devices": [_cpu(outcomes), *(_value(outcomes, "devices") or {"cuda": []})["cuda"]],
        "kernels": _value(outcomes, "kernels"),
        "data": _value(outcomes, "data"),
        "problems": [asdict(problem) for problem in problems],
    }


def _value(outcomes: dict[str, Outcome], name: str) -> Any:
    return outcomes[name].value if name in outcomes else None


def _library(name: str, module: str, present: dict[str, str], outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """One row: `loads` is None where the library is missing or was not tried."""
    outcome = outcomes.get(module)
    version = installed_version(name) or (outcome and outcome.value) if name in present else None
    return {
        "name": name,
        "required": name in REQUIRED,
        "version": version,
        "loads": None if outcome is None else outcome.error is None,
        "error": outcome and outcome.error,
    }


def _not_loading(present: dict[str, str], outcomes: dict[str, Outcome]) -> list[Problem]:
    """Required libraries that are missing, and any that do not load or were built for another numpy."""
    found = []
    for name in REQUIRED:
        if name not in present:
            found.append(Problem(f"{name} is not installed", f'pip install "{needed(name)}"'))
    for name, module in present.items():
        outcome = outcomes.get(module, Outcome())
        if BUILT_FOR_NUMPY_1.search(f"{outcome.error or ''}\n{outcome.heard}"):
            said = f"{name} {installed_version(name)} was built for numpy 1, but numpy {installed_version('numpy')} is installed"
            found.append(Problem(said, f'pip install --upgrade "{needed(name)}" (or: pip install "numpy<2")'))
        elif outcome.error is not None:
            place = _place(module)
            found.append(Problem(f"{name} does not load from {place}: {outcome.error}", _reinstalled(name, place)))
    for question in ("devices", "kernels", "data"):
        error = outcomes.get(question, Outcome()).error
        if error is not None:
            found.append(Problem(f"asking for the {question} failed: {error}", "snnprobe doctor (once more)"))
    return found


def _place(module: str) -> str:
    """The folder or file that the import takes."""
    spec = util.find_spec(module.partition(".")[0])
    origin = Path(str(spec.origin)) if spec and spec.origin else Path("a folder without __init__.py")
    return str(origin.parent if origin.name == "__init__.py" else origin)


def _reinstalled(name: str, place: str) -> str:
    """What mends a library that does not load: installing it anew, or removing what stands before it on the path."""
    installed = installed_place(name, Path(place).name)
    if installed is not None and installed.resolve() != Path(place).resolve():
        return f"mv {shlex.quote(place)} {shlex.quote(place + '.aside')} (it stands before the installed {name})"
    if name in TORCH_FAMILY and name != "torch":
        return family_fix(installed_version("torch")).replace("install", "install --force-reinstall", 1)
    return f'pip install --force-reinstall "{needed(name)}"'


def _no_device(outcomes: dict[str, Outcome]) -> list[Problem]:
    """A machine with NVIDIA's driver where torch sees no device."""
    devices = _value(outcomes, "devices")
    if devices is None or devices["cuda"] or not DRIVER.exists():
        return []
    if devices["cuda_build"] is None:
        said = "there is an NVIDIA driver, but this torch was built for the CPU alone"
    else:
        said = f"there is an NVIDIA driver, but torch (built for CUDA {devices['cuda_build']}) sees no device"
    return [Problem(said, "nvidia-smi (then install a torch built for the CUDA version it shows, or a newer driver)")]


def _data_problems(outcomes: dict[str, Outcome], root: str | None) -> list[Problem]:
    """A root that is no folder, and sets that were found but are damaged; one that is absent is no problem."""
    if root and not Path(root).expanduser().is_dir():
        return [Problem(f"the folder of the data sets, {root}, is no folder", "export SNNPROBE_DATA=DIR")]
    found = []
    for one in _value(outcomes, "data") or ():
        if one["place"] and one["problem"]:
            what, _, fix = one["problem"].rpartition("; ")
            found.append(Problem(f"{one['name']}: {what or one['problem']}", fix if what else "snnprobe data"))
    return found


def _cpu(outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """Cores this process may use, threads of torch (None where it does not load), memory in bytes where known."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = _value(outcomes, "devices")
    return {
        "device": "cpu", "name": platform.processor() or platform.machine(), "cores": cores,
        "threads": devices and devices["threads"], "memory": _memory(), "free": of_main_memory(),
    }  # fmt: skip


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on this system
        return None
