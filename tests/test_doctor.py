"""`snnprobe doctor`: what it finds, what it says to do about it, and that nothing broken stops it."""

import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from commands import run
from image_files import write_cifar10

import snn_probe
from snn_probe.commands.doctor import lines_of
from snn_probe.installation import doctor
from snn_probe.installation.attempts import Outcome, attempt
from snn_probe.installation.conflicts import Problem, conflicts, family_fix

ROOT = Path(snn_probe.__file__).parents[1]
NUMPY_1 = "A module that was compiled using NumPy 1.x cannot be run in NumPy 2.4.6 as it may crash."


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path_factory):
    """No folder of data sets, no NVIDIA driver."""
    monkeypatch.delenv("SNNPROBE_DATA", raising=False)
    monkeypatch.setattr(doctor, "DRIVER", tmp_path_factory.mktemp("proc") / "version")


def modules(folder, **sources):
    """Importable modules with these sources."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    return folder


def installed(folder, name, version, *requirements):
    """What pip leaves of an installed distribution."""
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (place / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {one}" for one in requirements), ""]))


def only(monkeypatch, folder, *names):
    """The doctor looks at these modules alone."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(doctor, "REQUIRED", {name: name for name in names})
    monkeypatch.setattr(doctor, "OPTIONAL", {})


def test_this_installation_has_nothing_to_fix():
    report = json.loads(run("doctor", "--json").stdout)
    assert report["problems"] == [] and report["ok"] and report["snn_probe"] == snn_probe.__version__
    libraries = {one["name"]: one for one in report["libraries"]}
    for name in doctor.REQUIRED:
        assert libraries[name]["version"] == metadata.version(name) and libraries[name]["loads"], name
    cpu = report["devices"][0]
    assert cpu["device"] == "cpu" and cpu["threads"] == 1 and 0 < cpu["free"] < cpu["memory"]
    assert report["kernels"]["cpu"] == {"implementation": "torch-reference", "unavailable": {}}
    data = {one["name"]: one for one in report["data"]}
    assert data["digits"]["counts"] == [1258, 179, 360] and data["cifar10"]["place"] is None
    text = lines_of(report)
    assert text[-1] == "Nothing to fix."
    assert "  digits        comes with scikit-learn, 1,258 / 179 / 360 examples" in text
    assert any(line.startswith("  not found: cifar10, ") for line in text)


def test_broken_torch_is_reported_and_stops_nothing(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        "raise OSError('libcudart.so.13: cannot open\\nshared object file')"
    )

    def snnprobe(*arguments):
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
        command = [sys.executable, "-W", "error", "-m", "snn_probe", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)

    version, usage = snnprobe("--version"), snnprobe("--help")
    assert (version.returncode, version.stdout) == (0, f"snnprobe, version {snn_probe.__version__}\n")
    assert usage.returncode == 0 and "doctor" in usage.stdout
    done = snnprobe("doctor", "--json")
    assert done.returncode == 1 and done.stderr == ""
    report = json.loads(done.stdout)
    place = tmp_path / "torch"
    (problem,) = report["problems"]
    assert problem == {
        "what": f"torch does not load from {place}: OSError: libcudart.so.13: cannot open shared object file",
        "fix": f"mv {place} {place}.aside (it stands before the installed torch)",
    }
    assert not report["ok"] and report["data"] is None and report["kernels"] is None
    text = "\n".join(lines_of(report))
    assert "data sets\n  not looked for: torch does not load\n" in text
    assert f"To fix:\n  1. {problem['what']}\n     {problem['fix']}" in text
    assert f"  spikingjelly  {metadata.version('spikingjelly')}  not tried: torch does not load\n" in text


def test_a_command_whose_library_does_not_load_sends_to_doctor(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('libtorch.so is too old', name='torch')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "snn_probe", "presets"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        "Error: torch cannot be imported (libtorch.so is too old); snnprobe doctor says what is wrong.\n"
    )


def test_a_library_that_raises_ends_or_hangs_harms_no_other(tmp_path, monkeypatch):
    modules(
        tmp_path,
        sound="__version__ = '1.5'\nprint('hello')",
        raising="raise SystemExit('no licence')",
        ending="import os; os._exit(3)",
        hanging="import time; time.sleep(600)",
        warning="import sys, warnings; warnings.warn('old'); sys.stderr.write('careful')",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    outcomes = attempt(["sound", "raising", "ending", "hanging", "absent", "warning"], seconds=4)
    assert outcomes["sound"] == Outcome("1.5")
    assert outcomes["raising"].error == "SystemExit: no licence"
    assert outcomes["ending"].error == "it ended the interpreter (exit status 3)"
    assert outcomes["hanging"].error == "it did not answer within 4 seconds"
    assert outcomes["absent"].error == "ModuleNotFoundError: No module named 'absent'"
    assert outcomes["warning"].error is None and outcomes["warning"].heard.split("\n") == ["careful", "old"]


def test_what_does_not_load_is_installed_anew(tmp_path, monkeypatch):
    installed(tmp_path, "snn_probe", "9.0", "lame<3,>=2", "gone>=1.5")
    installed(tmp_path, "lame", "2.1")
    only(monkeypatch, modules(tmp_path, lame="import absent"), "lame", "gone")
    report = doctor.examine()
    assert [tuple(problem.values()) for problem in report["problems"]] == [
        ("gone is not installed", 'pip install "gone>=1.5"'),
        (
            f"lame does not load from {tmp_path / 'lame.py'}: ModuleNotFoundError: No module named 'absent'",
            'pip install --force-reinstall "lame<3,>=2"',
        ),
    ]
    lame, gone = report["libraries"]
    assert (lame["version"], lame["loads"]) == ("2.1", False) and (gone["version"], gone["loads"]) == (None, None)


@pytest.mark.parametrize("ending", ["", "raise ImportError('numpy.core.multiarray failed to import')"])
def test_a_build_for_numpy_1_is_recognised(tmp_path, monkeypatch, ending):
    installed(tmp_path, "old", "1.2")
    only(monkeypatch, modules(tmp_path, old=f"import sys\nsys.stderr.write({NUMPY_1!r})\n{ending}"), "old")
    (problem,) = doctor.examine()["problems"]
    assert problem == {
        "what": f"old 1.2 was built for numpy 1, but numpy {metadata.version('numpy')} is installed",
        "fix": 'pip install --upgrade "old" (or: pip install "numpy<2")',
    }


FAMILY = {"torchvision": ("0.26.0", ["torch (==2.11.0)"]), "torchaudio": ("2.11.0", [])}
COMPANIONS = 'pip install "torchvision==0.25.*" "torchaudio==2.10.*"'
ALL_THREE = 'pip install "torch==2.11.*" "torchvision==0.26.*" "torchaudio==2.11.*"'
OURS = "snn_probe 9.0 requires torch<2.12,>=2.6, but torch 2.12.0.dev1 is installed"


@pytest.mark.parametrize(
    ("torch", "said", "fix"),
    [
        ("2.11.0+cpu", [], None),
        ("2.10.0", ["torchvision 0.26.0 requires torch==2.11.0, but torch 2.10.0 is installed"], COMPANIONS),
        ("2.12.0.dev1", [OURS, "torchvision 0.26.0 requires torch==2.11.0, but torch 2.12.0.dev1 is installed"], ALL_THREE),
        ("3.0", ["snn_probe 9.0 requires torch<2.12,>=2.6, but torch 3.0 is installed",
                 "torchvision 0.26.0 requires torch==2.11.0, but torch 3.0 is installed"], ALL_THREE),
    ],
)  # fmt: skip
def test_versions_of_torch_and_its_companions_that_do_not_fit(tmp_path, monkeypatch, torch, said, fix):
    installed(tmp_path, "snn_probe", "9.0", "torch>=2.6,<2.12", 'pytest<1; extra == "test"')
    installed(tmp_path, "torch", torch)
    for name, (version, requirements) in FAMILY.items():
        installed(tmp_path, name, version, *requirements)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = conflicts(["torch", "torchvision", "torchaudio"])
    release = torch.partition("+")[0]
    if said:
        said = [*said, f"torchaudio 2.11.0 goes with torch 2.11, but torch {release} is installed"]
    assert found == [Problem(sentence, fix) for sentence in said]
    assert family_fix(None) == ALL_THREE


def test_bounds_that_a_library_declares_are_kept(tmp_path, monkeypatch):
    installed(tmp_path, "old", "1.2", "numpy<2", "absent>=3", 'click<1; extra == "all"', "not a requirement")
    monkeypatch.syspath_prepend(str(tmp_path))
    version = metadata.version("numpy")
    said = f"old 1.2 requires numpy<2, but numpy {version} is installed"
    assert conflicts(["old"]) == [Problem(said, 'pip install "numpy<2"')]


def test_damaged_data_are_a_problem_and_absent_ones_are_not(tmp_path, monkeypatch):
    write_cifar10(tmp_path)
    broken = tmp_path / "cifar-10-batches-py" / "test_batch"
    broken.write_bytes(b"")
    only(monkeypatch, tmp_path, "torch")
    report = doctor.examine(str(tmp_path))
    (problem,) = report["problems"]
    assert problem["what"] == f"cifar10: {broken} is no batch of CIFAR or is cut off (EOFError)"
    assert problem["fix"].startswith("unpack ")
    assert f"  cifar10       {broken.parent} (see below)" in lines_of(report)


def test_a_root_that_is_no_folder_is_said_once(tmp_path, monkeypatch):
    only(monkeypatch, tmp_path)
    problem = {"what": f"the folder of the data sets, {tmp_path}/x, is no folder", "fix": "export SNNPROBE_DATA=DIR"}
    assert doctor.examine(f"{tmp_path}/x")["problems"] == [problem]
    monkeypatch.setenv("SNNPROBE_DATA", f"{tmp_path}/x")
    assert doctor.examine()["problems"] == [problem]
    assert doctor.examine(str(tmp_path))["problems"] == []


@pytest.mark.parametrize(
    ("build", "devices", "said"),
    [
        (None, [], "there is an NVIDIA driver, but this torch was built for the CPU alone"),
        ("13.0", [], "there is an NVIDIA driver, but torch (built for CUDA 13.0) sees no device"),
        ("13.0", [{"device": "cuda:0", "name": "H", "memory": 8e9, "free": 4e9}], None),
    ],
)
def test_a_driver_without_a_device_is_a_problem(tmp_path, monkeypatch, build, devices, said):
    only(monkeypatch, modules(tmp_path, torch=""), "torch")
    answers = {"torch": Outcome("2.11"), "devices": Outcome({"threads": 2, "cuda_build": build, "cuda": devices})}
    monkeypatch.setattr(doctor, "attempt", lambda names, **_: {n: answers.get(n, Outcome()) for n in names})
    assert doctor.examine()["ok"]
    doctor.DRIVER.write_text("NVRM")
    report = doctor.examine()
    assert [problem["what"] for problem in report["problems"]] == ([said] if said else [])
    assert ("  cuda:0        H, 8.0 GB memory, 4.0 GB free" in lines_of(report)) == bool(devices)


def test_every_library_that_the_package_declares_is_looked_at():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements):
        return {one.partition(";")[0].split(">")[0].split("<")[0].split("=")[0].strip() for one in requirements}

    assert set(doctor.REQUIRED) == names(project["dependencies"]) | {
        "torchaudio"
    }  # which SpikingJelly's data sets need
    extras = project["optional-dependencies"]
    for extra in set(extras) - {"test", "bench"}:
        assert names(extras[extra]) <= set(doctor.OPTIONAL) | set(doctor.REQUIRED), extra
    assert set(doctor.PURPOSE) == set(doctor.OPTIONAL)


def test_fused_kernels_that_are_missing_say_why():
    report = {"kernels": {"cuda:0": {"implementation": "torch", "unavailable": {"triton": "No module named 'triton'"}}}}
    bare = {
        "snn_probe": "1",
        "python": "3",
        "platform": "L",
        "libraries": [],
        "devices": [],
        "data": [],
        "problems": [],
    }
    lines = lines_of(bare | report)
    assert lines[lines.index("  cuda:0        torch") + 1] == "                not triton: No module named 'triton'"


def test_a_question_without_an_answer_is_a_problem(tmp_path, monkeypatch):
    only(monkeypatch, modules(tmp_path, torch=""), "torch")
    answers = {"torch": Outcome("2.11"), "devices": Outcome(error="RuntimeError: CUDA error: device busy")}
    monkeypatch.setattr(doctor, "attempt", lambda names, **_: {n: answers.get(n, Outcome()) for n in names})
    (problem,) = doctor.examine()["problems"]
    assert problem["what"] == "asking for the devices failed: RuntimeError: CUDA error: device busy"
