"""Training with torch.compile is training, to rounding; what cannot be compiled is said in one sentence."""

import copy

import pytest
import torch
from torch import nn

from snn_probe import penalty
from snn_probe.adapters.spikingjelly import at_rest
from snn_probe.config import RunConfig
from snn_probe.models import build
from snn_probe.neurons.multi_step import fast_training
from snn_probe.objectives import OBJECTIVES, trt_penalty
from snn_probe.runs import compiling
from snn_probe.runs.compiling import CompiledForward
from snn_probe.runs.step import TrainingStep

pytestmark = [  # torch.compile's own: of SpikingJelly's surrogates, and of what it imports
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning"),
]
needs_compiler = pytest.mark.skipif(not compiling._compiler(), reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def nothing_kept():
    yield
    torch.compiler.reset()
    penalty._kernel.cache_clear()


def network(name="tiny", side=8, **options):
    torch.manual_seed(0)
    return build(name, input_shape=(3, side, side), num_classes=4, num_steps=3, **options).train()


@pytest.mark.parametrize("name", ["cnn5", "vggsnn", "resnet19"])
def test_every_network_is_one_graph(name):
    """fullgraph raises where Python has to run in between; aot_eager traces the backward pass as well."""
    model = network(name, 32, width=0.02)
    with fast_training(model), at_rest(model.net):
        logits = torch.compile(model.from_rest, backend="aot_eager", fullgraph=True)(torch.rand(2, 3, 32, 32))
    logits.sum().backward()
    assert logits.shape == (3, 2, 4) and all(p.grad is not None for p in model.parameters())


def steps(model, sizes, **options):
    config = RunConfig(method="trt", batch_size=8, **options)
    model = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    step = TrainingStep(config, model, optimizer, OBJECTIVES["trt"](strength=1e-2))
    generator = torch.Generator().manual_seed(1)
    found = []
    with step.ready():
        for number, size in enumerate(sizes):
            inputs, labels = torch.rand(size, 3, 8, 8, generator=generator), torch.arange(size) % 4
            found.append(step(inputs, labels, 1.0, where=f"step {number}")[:2])
    return model, found


@needs_compiler
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_steps_are_those_without_compile(amp, monkeypatch):
    """Of a network with a convolution after a pool, where Inductor's layout gave wrong gradients in bfloat16."""
    monkeypatch.setattr(penalty, "_COMPILED", 64)
    model, sizes = network(), [8, 8, 3, 8]  # the last batch of an epoch is smaller
    plain, expected = steps(model, sizes, amp=amp)
    traced = []
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **o: traced.append(f) or original(f, **o))
    mine, found = steps(model, sizes, amp=amp, compile=True, channels_last=True)
    assert {f.__name__ for f in traced} == {"from_rest", "whole"}  # the forward and the penalty
    tolerance = 1e-4 if amp == "off" else 0.1  # in bfloat16 a rounding makes some neurons fire or not
    for mine_now, plain_now in zip(found, expected, strict=True):  # loss and gradient norm
        assert mine_now == pytest.approx(plain_now, rel=tolerance)
    assert "from_rest" not in mine.__dict__ and mine.state_dict().keys() == plain.state_dict().keys()
    if amp == "off":
        for a, b in zip(mine.state_dict().values(), plain.state_dict().values(), strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-3)


def test_only_batches_of_the_first_size_are_compiled(monkeypatch):
    sizes = []
    monkeypatch.setattr(torch, "compile", lambda f, **options: lambda *x: sizes.append(len(x[0])) or f(*x))
    monkeypatch.setattr(compiling, "_compiler", lambda: "g++")
    monkeypatch.setattr(penalty, "_COMPILED", 1 << 30)
    steps(network(), [8, 8, 3, 8], compile=True)
    assert sizes == [8, 8, 8]


def test_a_model_without_an_adapter(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda f, **options: lambda x: f(x) + 1)
    monkeypatch.setattr(compiling, "_compiler", lambda: "g++")
    model, x = nn.Linear(3, 2), torch.rand(5, 3)
    forward = CompiledForward(model, torch.device("cpu"))
    with forward.on(x):
        inside = model(x)
    assert torch.equal(inside, model(x) + 1) and "forward" not in model.__dict__


def test_no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(
        ValueError, match=r"^compile is true but there is no C\+\+ compiler .* install one, or train with"
    ):
        CompiledForward(nn.Linear(3, 2), torch.device("cpu"))


def test_the_next_epoch_is_not_compiled_anew(monkeypatch):
    graphs = []
    original = torch.compile

    def counted(f, **options):
        return original(f, dynamic=False, backend=lambda graph, inputs: graphs.append(graph) or graph.forward)

    monkeypatch.setattr(torch, "compile", counted)
    monkeypatch.setattr(compiling, "_compiler", lambda: "g++")
    monkeypatch.setattr(penalty, "_COMPILED", 1 << 30)
    model, x = network(), torch.rand(4, 3, 8, 8)
    forward = CompiledForward(model, torch.device("cpu"))
    for _ in range(3):
        with fast_training(model), forward.on(x):
            model(x)
        model.eval()
        model(x)
        model.train()
    assert len(graphs) == 1


@needs_compiler
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_compiled_penalty(decay, monkeypatch):
    monkeypatch.setattr(penalty, "_COMPILED", 3)
    shapes = {"a.weight": (7, 5), "b.weight": (11,), "c.weight": (2,), "d.weight": (4, 3, 3, 3), "d.bias": (4,)}
    generator = torch.Generator().manual_seed(0)
    params = {n: torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for n, s in shapes.items()}
    params["e.weight"] = torch.rand(6, 4, dtype=torch.float64).t().requires_grad_()  # not contiguous: not compiled
    weights = [p for n, p in params.items() if "bias" not in n]
    options = dict(strength=1e-3, decay=decay, epsilon=1e-5)
    expected = trt_penalty(params, 5, **options)
    slopes = torch.autograd.grad(expected, weights)
    with penalty.compiled_penalty():
        found = trt_penalty(params, 5, **options)
        mine = torch.autograd.grad(found, weights)
    assert penalty._kernel.cache_info().currsize == 1
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip(mine, slopes, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=0)
