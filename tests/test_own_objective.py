"""An objective of the user's own: the worked example trains, is recorded, probed and drawn beside the built-in ones."""

import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import SMALL, failed, run
from own_code import own_place  # noqa: F401  the fixture place

import snn_probe
from snn_probe import own, results
from snn_probe.checkpoint import build_model, load
from snn_probe.config import RunConfig, Stage
from snn_probe.data import batches
from snn_probe.data import load as load_data
from snn_probe.drawing.style import METHODS
from snn_probe.figures import draw
from snn_probe.objectives import TET
from snn_probe.own.objective import own_objective
from snn_probe.probes import hessian_eigenvalues, temporal_gradient_norms
from snn_probe.system import resolved

EXAMPLE = Path(snn_probe.__file__).parents[1] / "analyses" / "own_objective.py"
LATE = "own_objective:LateTET"

OTHERS = """
from dataclasses import dataclass

import torch
import torch.nn.functional as F


def last_step(logits, labels, params):
    return F.cross_entropy(logits[-1], labels)


class Plain:
    def __init__(self, power=2.0):
        self.power = power

    def __call__(self, logits, labels, params):
        return F.cross_entropy(logits.mean(0), labels) ** self.power


class WithPenalty(Plain):
    def without_penalty(self, logits, labels):
        return F.cross_entropy(logits.mean(0), labels)


@dataclass(frozen=True)
class Needs:
    strength: float


class NoCall:
    pass


def per_example(logits, labels, params):
    return F.cross_entropy(logits.mean(0), labels, reduction="none")


def number(logits, labels, params):
    return 1.0


def detached(logits, labels, params):
    return F.cross_entropy(logits.mean(0), labels).detach()


def raises(logits, labels, params):
    return params["readout.weight"].square().sum()


value = 3
"""


@pytest.fixture
def example(place):
    """The current folder with the worked example and other objectives in it, not yet imported."""
    shutil.copy(EXAMPLE, place / "own_objective.py")
    (place / "mynet.py").write_text(OTHERS)
    return place


def late(growth, logits, labels):
    """sum_t w_t CE(O(t), y), w = softmax(growth t), as an explicit loop."""
    weights = [math.exp(growth * t) for t in range(1, len(logits) + 1)]
    total = 0.0
    for weight, at_t in zip(weights, logits.tolist(), strict=True):
        losses = [math.log(sum(map(math.exp, row))) - row[y] for row, y in zip(at_t, labels.tolist(), strict=True)]
        total += weight / sum(weights) * sum(losses) / len(losses)
    return total


def test_the_example_is_what_it_says(example):
    own.allow(LATE)
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 7, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (7,), generator=generator)
    for growth in (-0.7, 0.0, 2.5):
        found = own_objective(LATE, {"growth": growth})(logits, labels, {})
        assert found.item() == pytest.approx(late(growth, logits, labels), rel=1e-12)
    plain = TET(mse_weight=0.0)(logits, labels)
    assert own_objective(LATE, {"growth": 0})(logits, labels).item() == pytest.approx(plain.item(), rel=1e-12)


def test_it_trains_is_recorded_probed_and_drawn_beside_sdt(example):
    """The example from the command line to one figure of both methods."""
    run("train", "--method", "sdt", *SMALL, "--out", "a")
    run("train", "--method", LATE, "-p", "growth=0.5", *SMALL, "--out", "b")
    checkpoint = load("b/checkpoints/last.pt")
    assert (checkpoint.config.method, checkpoint.config.hyperparameters) == (LATE, {"growth": 0.5})
    metrics = pd.read_csv("b/metrics.csv")
    assert metrics["objective"].iloc[-1] < metrics["objective"].iloc[0]
    assert (metrics["objective"] != metrics["train_loss"]).all()
    sdt = load("a/checkpoints/last.pt")
    assert not torch.equal(sdt.state_dict["net.conv1.weight"], checkpoint.state_dict["net.conv1.weight"])

    run("fisher", "a/checkpoints/last.pt", "b/checkpoints/last.pt", "--num-examples", 12, "--out", "out")
    assert (example / "out" / "fisher_trace.pdf").exists()
    both = [results.load(example / "out" / f"fisher_{name}_last.json") for name in "ab"]
    table = results.combine(both)
    assert table["method"].unique().tolist() == ["sdt", LATE]
    axes = draw("fisher_trace", table, estimator="empirical").axes[0]
    lines = {line.get_label(): line for line in axes.get_lines() if len(line.get_xdata()) == 2}
    assert list(lines) == ["SDT", "LateTET"]
    colors = [line.get_color().upper() for line in lines.values()]
    assert colors[0] == METHODS["sdt"][1] and colors[1] not in [color for _, color, _ in METHODS.values()]
    for line, result in zip(lines.values(), both, strict=True):
        np.testing.assert_allclose(line.get_ydata(), result.table.query("layer == 'all'")["trace"])


@pytest.fixture
def trained(example):
    run("train", "--method", LATE, "-p", "growth=0.5", *SMALL, "--out", "run")
    return example / "run" / "checkpoints" / "last.pt"


def test_probes_use_the_hyperparameters_that_it_was_trained_with(trained, example):
    few = ("--num-examples", 8, "--no-figure", "--out", "out")
    run("hessian", trained, "--objective", LATE, "--quantity", "eigenvalues", "-k", 1, *few)
    run("gradients", trained, "--objective", LATE, *few)
    run("landscape", trained, "--objective", LATE, "--objective", "sdt", "--points", 3, *few)
    own.allow(LATE)
    objective, model = own_objective(LATE, {"growth": 0.5}), build_model(load(trained))
    data = batches(load_data("digits", "train", num_examples=8), 64)
    found = results.load(example / "out" / "hessian_eigenvalues_last.json")
    assert found.settings["objective"] == "LateTET(growth=0.5)"
    pd.testing.assert_frame_equal(found.table, hessian_eigenvalues(model, data, objective, k=1).table)
    found = results.load(example / "out" / "gradients_last.json")
    pd.testing.assert_frame_equal(found.table, temporal_gradient_norms(model, data, objective).table)
    found = results.load(example / "out" / "landscape_last.json")
    assert found.settings["objectives"][LATE] == "LateTET(growth=0.5)"
    (inputs, labels), centre = next(iter(data)), found.table.query("alpha == 0").set_index("objective")["loss"]
    assert centre[LATE] == pytest.approx(late(0.5, model(inputs), labels), rel=1e-5)
    run("hessian", trained, "--objective", "sdt", "--quantity", "eigenvalues", "-k", 1, *few)


def test_no_file_has_its_code_run(trained):
    refused = (
        f"The configuration names '{LATE}', code that is no part of this program and is never run because a file says so; "
        f"if you know and trust it, give {{}} {LATE} (from Python: snn_probe.own.allow('{LATE}'))."
    )
    assert failed("hessian", trained) == refused.format("--objective")
    assert failed("train", "--resume", "--out", "run") == refused.format("--method")
    run("timesteps", trained, "--num-examples", 4, "--no-figure")  # needs no objective
    run("show", trained)
    assert RunConfig.from_dict(load(trained).card["config"]).stages == ()


def test_the_same_command_with_resume_goes_on(trained):
    before = trained.read_bytes()
    run("train", "--method", LATE, "-p", "growth=0.5", *SMALL, "--out", "run", "--resume")
    assert trained.read_bytes() == before
    said = failed("train", "--method", LATE, "-p", "growth=1", *SMALL, "--out", "run", "--resume")
    assert said.startswith(
        "The run in run has another configuration (hyperparameters {'growth': 0.5} -> {'growth': 1.0});"
    )


def test_defaults_are_filled_in_when_training_begins(example):
    config = RunConfig(method=LATE, num_steps=2)
    assert config.hyperparameters == {}
    own.allow(LATE)
    assert resolved(config).hyperparameters == {"growth": 1.0}
    staged = RunConfig(stages=({"epochs": 1}, {"epochs": 1, "method": LATE}))
    assert [stage.hyperparameters for stage in resolved(staged).stages] == [{}, {"growth": 1.0}]
    assert RunConfig.from_dict(resolved(staged).to_dict()) == resolved(staged)
    assert config.run_name() == "digits-tiny-own_objective.LateTET-seed0"


def test_stages_and_the_switch_take_it(example):
    few = "--train-examples 20 --batch-size 16 --num-steps 2".split()
    run("train", "--stage", "epochs=1", "--stage", f"epochs=1,method={LATE},growth=2", *few, "--out", "a")
    assert load("a/checkpoints/last.pt").stage.hyperparameters == {"growth": 2.0}
    run("train", "--switch", f"{LATE}:1", "--epochs", 2, *few, "--out", "b")
    assert [stage.method for stage in load("b/checkpoints/last.pt").config.stages] == [LATE, "sdt"]


def test_a_function_and_a_plain_class(example):
    logits, labels = torch.randn(3, 4, 5), torch.arange(4)
    for name in ("last_step", "Plain", "WithPenalty"):
        own.allow(f"mynet:{name}")
    last, plain = own_objective("mynet:last_step", {}), own_objective("mynet:Plain", {"power": 3.0})
    assert last(logits, labels, {}) == torch.nn.functional.cross_entropy(logits[-1], labels)
    assert repr(last) == "last_step()" and repr(plain) == "Plain(power=3.0)"
    assert plain(logits, labels) == torch.nn.functional.cross_entropy(logits.mean(0), labels) ** 3
    assert not hasattr(last, "without_penalty")
    assert own_objective("mynet:WithPenalty", {}).without_penalty(logits, labels) == plain(logits, labels) ** (1 / 3)
    assert own_objective("mynet:Plain", {}).hyperparameters == {"power": 2.0}


WRONG = {
    "mynet:NoCall": "mynet:NoCall is NoCall, which cannot be called; name a function of (logits, labels, params), or a "
                    "class with such a __call__.",
    "mynet:value": "mynet:value is int, which cannot be called; ",
    "mynet:Needs": "mynet:Needs needs a value of 'strength'; give -p strength=VALUE, or it a default.",
    "mynet:per_example": "mynet:per_example returned a tensor of shape (3,); return a scalar tensor, the mean over the "
                         "examples.",
    "mynet:number": "mynet:number returned float; return a scalar tensor, the mean over the examples.",
    "mynet:detached": "mynet:detached returned a loss without a gradient; compute it from the logits without detach or "
                      "item.",
    "mynet:raises": "mynet:raises raised KeyError ('readout.weight'); correct it.",
    "mynet:absent": "mynet:absent: mynet has no 'absent'; it has last_step, Plain, WithPenalty, Needs, ",
    "nowhere:Loss": "nowhere:Loss: there is no module 'nowhere' ",
    f"{LATE} -p growth=fast": f"{LATE} raised ValueError (growth is 'fast'; give a number between -100 and 100); correct it.",
    f"{LATE} -p grow=2": f"{LATE} has no hyperparameter 'grow'; it has growth.",
    "mynet:last_step -p growth=2": "mynet:last_step has no hyperparameter 'growth'; it has none.",
}  # fmt: skip


@pytest.mark.parametrize("given", WRONG)
def test_a_wrong_objective_is_one_sentence(example, given):
    assert failed("train", "--method", *given.split(), *SMALL, "--out", "run").startswith(WRONG[given])
    assert not (example / "run" / "checkpoints").exists()


def test_hyperparameters_of_code_that_is_not_looked_at_are_plain():
    said = "growth of own_objective:LateTET is [1]; give a finite number, true, false or a word."
    with pytest.raises(ValueError) as refused:
        Stage(1, method=LATE, hyperparameters={"growth": [1]})
    assert str(refused.value) == said
    with pytest.raises(ValueError, match="growth of own_objective:LateTET is nan"):
        Stage(1, method=LATE, hyperparameters={"growth": math.nan})


def test_an_unknown_objective_of_a_probe_is_wrong_usage(trained):
    said = failed("hessian", trained, "--objective", "mse", status=2)
    assert said == (
        "Invalid value for '--objective': 'mse' is not one of 'own', 'sdt', 'tet', 'trt', or package.module:name."
    )
