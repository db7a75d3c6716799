"""Completion on TAB: the script, the words, and no wait for heavy imports."""

import os
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete
from commands import failed, run

from snn_probe.cli import main
from snn_probe.commands import completion
from snn_probe.data import DATASETS
from snn_probe.models import MODELS
from snn_probe.objectives import OBJECTIVES
from snn_probe.presets import PRESETS


def words(*typed):
    """What TAB offers after these words, the last of which is incomplete."""
    found = ShellComplete(main, {}, "snnprobe", "_SNNPROBE_COMPLETE").get_completions(list(typed[:-1]), typed[-1])
    return [item.value if item.type == "plain" else item.type for item in found]


def test_names_are_those_of_the_registries():
    assert completion.METHODS == tuple(OBJECTIVES)
    assert completion.DATASETS == tuple(DATASETS)
    assert completion.MODELS == tuple(MODELS)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (("tr",), ["train"]),
        (("train", "--method", "t"), ["tet", "trt"]),
        (("train", "--method", ""), list(OBJECTIVES)),
        (("train", "--dataset", "cifar10"), ["cifar10", "cifar100", "cifar10-dvs"]),
        (("train", "--dataset", "n"), ["n-caltech101", "n-mnist"]),
        (("train", "--model", "sew"), ["sew-resnet34"]),
        (("train", "--preset", "kim"), ["kim-cifar10"]),
        (("train", "--preset", ""), list(PRESETS)),
        (("train", "--tens",), ["--tensorboard"]),
        (("data", "dig"), ["digits"]),
        (("hessian", "--objective", ""), ["own", "sdt", "tet", "trt"]),
        (("landscape", "--objective", "t"), ["tet", "trt"]),
        (("fisher", "--model", "ti"), ["tiny"]),
        (("fisher", "--data", "event"), ["event-digits"]),
        (("fisher", "trained_models/"), ["file"]),
        (("landscape", "x.pt", "--to", "tr"), ["file"]),
        (("export", "rep"), ["file"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
    ],
)  # fmt: skip
def test_what_is_offered(typed, offered):
    assert words(*typed) == offered


@pytest.mark.parametrize(
    ("shell", "sign"), [("bash", "complete -o"), ("zsh", "#compdef snnprobe"), ("fish", "--command snnprobe")]
)
def test_the_script_is_printed_and_calls_back(shell, sign):
    done = run("completion", shell)
    assert sign in done.stdout and f"_SNNPROBE_COMPLETE={shell}_complete" in done.stdout and done.stderr == ""


def test_another_shell_is_refused():
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'." in failed("completion", "tcsh", status=2)


def test_tab_answers_without_heavy_imports():
    """As the script calls: the words in the environment, the answer on stdout."""
    code = (
        "import sys\nfrom snn_probe.cli import main\n"
        "try:\n    main(prog_name='snnprobe')\n"
        "except SystemExit:\n    print([m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    )
    typed = {"_SNNPROBE_COMPLETE": "bash_complete", "COMP_WORDS": "snnprobe train --model sew", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **typed}
    )
    assert done.stdout.splitlines() == ["plain,sew-resnet34", "[]"]
