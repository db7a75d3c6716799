"""Fisher traces at T = 10 against the published procedure, on the same batches; and a training step's memory."""

import torch
import torch.nn.functional as F
from cases import T, resnet_case, tiny_case, vgg_case
from contests import Contest, Work

from snn_probe.probes import fisher_trace
from snn_probe.results import Result

CASES = {
    "vggsnn": ("VGGSNN half width 2x48x48, T=10", vgg_case, (4, 8)),
    "resnet19": ("ResNet-19 half width 3x32x32, T=10", resnet_case, (2, 4)),
    "tiny": ("tiny on event-digits, T=10", tiny_case, (4, 64)),
}
ERROR = (
    "of the trace at t=T; reference: one gradient per example. The published procedure squares the gradient of a "
    "batch mean, which is another quantity"
)


def published(model, batches) -> float:
    """The procedure of arXiv 2211.14406: for each t all T steps over all batches, batch-mean gradient squared."""
    params = [p for p in model.parameters() if p.requires_grad]
    traces = []
    for t in range(1, T + 1):
        total = 0.0
        for inputs, labels in batches:
            loss = F.cross_entropy(sum(model(inputs)[:t]) / t, labels)
            total += sum(g.square().sum().item() for g in torch.autograd.grad(loss, params))
        traces.append(total / len(batches))
    return traces[-1]


def per_example(model, batches) -> float:
    params = [p for p in model.parameters() if p.requires_grad]
    total, count = 0.0, 0
    for inputs, labels in batches:
        for x, y in zip(inputs.split(1), labels.split(1), strict=True):
            loss = F.cross_entropy(model(x).mean(0), y)
            total += sum(float(g.double().square().sum()) for g in torch.autograd.grad(loss, params))
            count += 1
    return total / count


def prepared(case, count: int, size: int):
    def prepare(small: bool) -> Work:
        model, batches = case(1, 1) if small else case(count, size)
        exact = None

        def error(answer) -> float:
            nonlocal exact
            exact = per_example(model, batches) if exact is None else exact
            if isinstance(answer, Result):
                answer = answer.table.query("layer == 'all'")["trace"].iloc[-1]
            return abs(answer - exact) / exact

        return Work(lambda: published(model, batches), lambda: fisher_trace(model, batches), error)

    return prepare


def training_step(case, size: int):
    """One training step against the probe on the same batch; for its memory, its time is no peer's."""

    def prepare(small: bool) -> Work:
        model, ((inputs, labels),) = case(1, 1 if small else size)

        def step():
            model.train()
            F.cross_entropy(model(inputs).mean(0), labels).backward()

        return Work(step, lambda: fisher_trace(model, [(inputs, labels)]), lambda answer: 0.0)

    return prepare


CONTESTS = [
    Contest(f"fisher-{key}", f"Fisher, {text}, {count * size} examples", f"published procedure, batches of {size}",
            prepared(case, count, size), ERROR)
    for key, (text, case, (count, size)) in CASES.items()
]  # fmt: skip
MEMORY = [
    Contest(
        f"memory-{key}", f"Fisher, {text}, one batch of {size}", "plain training step", training_step(case, size), ""
    )
    for key, (text, case, (_, size)) in CASES.items()
]
