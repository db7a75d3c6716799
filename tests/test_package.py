"""The wheel and the source distribution: what is in them, and that the wheel works in an environment of its own."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import snn_probe

ROOT = Path(snn_probe.__file__).parents[1]
NAME = f"snn_probe-{snn_probe.__version__}"


def run(*command, cwd):
    """What the command prints; it must succeed. Neither this folder nor PYTHONPATH is on its path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The files of this project, without what git ignores."""
    folder = tmp_path_factory.mktemp("sources") / "tree"
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", *ignored), symlinks=True)
    return folder


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory):
    """The wheel, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-q", "-w", folder, sources, cwd=folder)  # fmt: skip
    (found,) = folder.iterdir()
    return found


def modules():
    """The files of the package, as paths below the project."""
    found = (path.relative_to(ROOT) for path in (ROOT / "snn_probe").rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


def test_the_wheel_has_the_package_and_nothing_else(wheel):
    assert wheel.name == f"{NAME}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        about = archive.read(f"{NAME}.dist-info/METADATA").decode()
        scripts = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
    assert {name for name in names if ".dist-info/" not in name} == modules()
    assert "snn_probe/py.typed" in names and "snn_probe/probes/fisher.py" in names
    assert f"{NAME}.dist-info/licenses/LICENSE" in names
    assert "snnprobe = snn_probe.cli:main" in scripts
    assert "Requires-Python: >=3.11" in about and "Requires-Dist: torch<2.12,>=2.6" in about


def test_the_source_distribution_builds_the_same_package(sources, tmp_path):
    code = "from setuptools import build_meta; import sys; print(build_meta.build_sdist(sys.argv[1]))"
    run(sys.executable, "-c", code, tmp_path, cwd=sources)
    with tarfile.open(tmp_path / f"{NAME}.tar.gz") as archive:
        names = {member.name.removeprefix(f"{NAME}/") for member in archive.getmembers() if member.isfile()}
    assert modules() | {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert not {name.partition("/")[0] for name in names} & {"reports", "trained_models", ".git", "demo"}


def test_the_installed_wheel_works_in_an_empty_folder(wheel, tmp_path):
    """A new environment with the wheel in it, which sees the other libraries of this one."""
    place = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=tmp_path)
    python = place / "bin" / "python"
    purelib = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-q", wheel, cwd=tmp_path
    )
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (purelib / "others.pth").write_text("".join(f"import site; site.addsitedir({place!r})\n" for place in others))
    empty = tmp_path / "empty"
    empty.mkdir()
    found = run(python, "-c", "import snn_probe; print(snn_probe.__file__)", cwd=empty).strip()
    assert Path(found).parent == purelib / "snn_probe"
    assert run(place / "bin" / "snnprobe", "--version", cwd=empty) == f"snnprobe, version {snn_probe.__version__}\n"
    assert "fisher" in run(python, "-m", "snn_probe", "--help", cwd=empty)
    small = "--epochs 1 --train-examples 20 --num-steps 2 --out run".split()
    run(place / "bin" / "snnprobe", "train", "--method", "sdt", *small, cwd=empty)
    checkpoint = "run/checkpoints/last.pt"
    run(place / "bin" / "snnprobe", "timesteps", checkpoint, "--num-examples", "20", "--out", "out", cwd=empty)
    results = [json.loads(path.read_text()) for path in (empty / "out").glob("*.json")]
    assert [(result["probe"], result["settings"]["num_examples"]) for result in results] == [("timestep_accuracy", 20)]
    assert {path.name for path in empty.iterdir()} == {"run", "out"}
