"""Float32 stays float32 in probes, whatever the program around them allows, and the program keeps its own settings."""

import subprocess
import sys

import pytest

NEW = """
switches = [torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul]
def state():
    return [place.fp32_precision for place in switches]
"""
CODE = """
import torch
from torch import nn
from snn_probe.temporal import probing
{told}
{new}
class Net(nn.Linear):
    def forward(self, x):
        seen.append(state())
        return super().forward(x).unsqueeze(0)

seen, net = [], Net(2, 2)
before = state()
with probing(net):
    net(torch.ones(1, 2))
    try:
        with probing(net):
            raise KeyError
    except KeyError:
        pass
    net(torch.ones(1, 2))
assert seen == [["ieee"] * 3] * 2, seen
assert state() == before, before
print(before)
"""
TOLD = {
    "nothing": ("", "['tf32', 'tf32', 'none']"),
    "the old way": ("torch.backends.cuda.matmul.allow_tf32 = True", "['tf32', 'tf32', 'tf32']"),
    "for all": ("torch.set_float32_matmul_precision('high')", "['tf32', 'tf32', 'tf32']"),
    "the new way": ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", "['tf32', 'tf32', 'tf32']"),
    "the new way, on the CPU": (
        "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
        "['tf32', 'tf32', 'none']",
    ),
}


@pytest.mark.parametrize("told", TOLD)
def test_probes_keep_all_digits_and_put_the_settings_back(told):
    import torch

    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("these settings came with PyTorch 2.9")
    code, said = TOLD[told]
    command = [sys.executable, "-W", "ignore", "-c", CODE.format(told=code, new=NEW)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == said


def test_the_switches_of_earlier_versions(monkeypatch):
    from types import SimpleNamespace

    import torch

    from snn_probe.machine.precision import full_precision

    cudnn, products = SimpleNamespace(allow_tf32=True), SimpleNamespace(allow_tf32=True)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends, "cudnn", cudnn)
        patch.setattr(torch.backends.cuda, "matmul", products)
        with full_precision():
            assert not cudnn.allow_tf32 and not products.allow_tf32
    assert cudnn.allow_tf32 and products.allow_tf32
