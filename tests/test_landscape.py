"""Loss slices: a closed form, the plain procedure on a copy, and everything that must not change the numbers."""

import copy
import math

import networks
import numpy as np
import pandas as pd
import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from test_temporal import same, snapshot
from torch import nn

from snn_probe import probes, results
from snn_probe.objectives import SDT, TET, TRT
from snn_probe.parameters import trainable
from snn_probe.probes.directions import direction_between, filter_normalized, random_direction
from snn_probe.probes.landscape import loss_slice
from snn_probe.temporal import from_spikingjelly
from snn_probe.training import evaluate

ALPHAS, BETAS = [-1.0, 0.0, 0.5], [0.0, 0.25]
COLUMNS = ["objective", "alpha", "beta", "loss", "accuracy", "finite"]
X, Y = networks.examples(6, 4)


def batches(x, y, *sizes):
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def at(table, alpha, beta=0.0, objective="sdt"):
    rows = table[(table["alpha"] == alpha) & (table["beta"] == beta) & (table["objective"] == objective)]
    assert len(rows) == 1
    return rows.iloc[0]


class Regression(nn.Module):
    """Logits W x at two timesteps."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4, bias=False)

    def forward(self, x):
        return self.linear(x).expand(2, len(x), 4)


def squared(logits, labels, params):
    return (logits - nn.functional.one_hot(labels, logits.shape[-1])).square().mean()


# What is measured


def test_a_quadratic_loss_in_closed_form():
    """L(a, b) = mean (r + a u + b v)^2 with r = W x - y, u = A x, v = B x: six dot products say it all."""
    torch.manual_seed(0)
    model = Regression().double()
    x, y = torch.randn(7, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1, 3])
    first, second = ({"linear.weight": torch.randn(4, 3, dtype=torch.float64)} for _ in range(2))
    alphas, betas = [-2.0, 0.0, 0.3, 5.0], [-1.0, 0.0, 2.0]
    found = loss_slice(
        model, batches(x, y, 3, 4), {"squared": squared}, alphas=alphas, betas=betas, directions=(first, second)
    )
    r = model.linear(x).detach() - nn.functional.one_hot(y, 4)
    u, v = (x @ d["linear.weight"].T for d in (first, second))
    dot = {p + q: float((s * t).mean()) for p, s in zip("ruv", (r, u, v)) for q, t in zip("ruv", (r, u, v))}  # noqa: B905
    assert list(found.table.columns) == COLUMNS and len(found.table) == 12
    for row in found.table.itertuples():
        a, b = row.alpha, row.beta
        squares = dot["rr"] + a * a * dot["uu"] + b * b * dot["vv"]
        mixed = a * dot["ru"] + b * dot["rv"] + a * b * dot["uv"]
        assert row.loss == pytest.approx(squares + 2 * mixed, rel=1e-12)
    norms = [float(d["linear.weight"].norm()) for d in (first, second)]
    assert found.settings["direction_norms"] == pytest.approx(norms)
    cosine = float((first["linear.weight"] * second["linear.weight"]).sum()) / norms[0] / norms[1]
    assert found.settings["direction_cosine"] == pytest.approx(cosine)


@pytest.mark.parametrize("num_steps", [None, 4])
def test_equals_the_plain_procedure_on_a_copy(num_steps):
    """Weights moved in place in a deep copy, then evaluated; random directions remade by hand."""
    model = networks.convolutional(num_steps)
    x, y = networks.examples(7, num_steps)
    data = batches(x, y, 4, 3)
    found = loss_slice(model, data, [SDT(), TET()], alphas=ALPHAS, betas=BETAS, seed=5)
    params = trainable(model)
    directions = [filter_normalized(random_direction(params, seed=5, index=i), params) for i in (0, 1)]
    for alpha in ALPHAS:
        for beta in BETAS:
            moved = copy.deepcopy(model)
            with torch.no_grad():
                for name, p in moved.named_parameters():
                    p += alpha * directions[0][name] + beta * directions[1][name]
            for objective in (SDT(), TET()):
                expected = evaluate(moved, data, objective)
                row = at(found.table, alpha, beta, objective.name)
                assert row["loss"] == pytest.approx(expected.loss, rel=1e-10)
                assert row["accuracy"] == expected.accuracy and row["finite"]
    assert found.table["loss"].nunique() > 6


def test_the_origin_is_the_evaluation_bit_for_bit():
    model = networks.convolutional(4, double=False)
    data = batches(*networks.examples(7, 4, dtype=torch.float32), 4, 3)
    table = loss_slice(model, data, [SDT(), TET(), TRT()], alphas=[-1, 0], betas=[0, 1]).table
    for objective in (SDT(), TET(), TRT(strength=0.0)):
        expected = evaluate(model, data, objective)
        row = at(table, 0.0, 0.0, objective.name)
        assert (row["loss"], row["accuracy"]) == (expected.loss, expected.accuracy)


def test_a_line_between_two_networks_ends_at_the_other_one_with_its_batch_norms():
    model, other = networks.convolutional(4), networks.convolutional(4, seed=3)
    line = direction_between(model.state_dict(), other.state_dict())
    table = loss_slice(model, [(X, Y)], [SDT()], alphas=[0, 0.5, 1], directions=line).table
    assert at(table, 1.0)["loss"] == pytest.approx(evaluate(other, [(X, Y)]).loss, rel=1e-9)
    assert at(table, 1.0)["accuracy"] == evaluate(other, [(X, Y)]).accuracy


def test_several_objectives_share_the_forward_passes_and_agree_with_one_at_a_time():
    model = networks.convolutional(4)
    calls = []
    handle = model.net[-1].register_forward_hook(lambda *_: calls.append(1))
    objectives = [SDT(), TET(), TRT(), TRT(strength=1.0)]
    named = dict(zip("abcd", objectives, strict=True))
    together = loss_slice(model, [(X, Y)], named, alphas=ALPHAS, betas=BETAS)
    first = len(calls)
    for name, objective in named.items():
        alone = loss_slice(model, [(X, Y)], {name: objective}, alphas=ALPHAS, betas=BETAS)
        rows = together.table[together.table["objective"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone.table, check_exact=True)
    assert len(calls) == 5 * first
    handle.remove()
    assert together.table["objective"].tolist() == [name for name in "abcd" for _ in range(6)]
    assert at(together.table, 0.0, 0.0, "c")["loss"] == at(together.table, 0.0, 0.0, "d")["loss"]  # no penalty
    assert together.settings["objectives"]["d"].startswith("TRT(strength=1.0")
    assert together.settings["objectives"]["d"].endswith("without its penalty")
    assert together.settings["objectives"]["a"] == "SDT()"


def test_a_hand_written_network_and_an_objective_that_reads_the_moved_weights():
    model = networks.Recurrent().double()
    x, y = torch.randn(5, 4, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    direction = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    direction["leak"] += 0.5
    objectives = {"leak": lambda logits, labels, params: params["leak"] * 1.0}
    table = loss_slice(model, [(x, y)], objectives, alphas=[-1, 0, 2], directions=direction).table
    assert table["loss"].tolist() == pytest.approx([0.1, 0.6, 1.6], rel=1e-6)


# What must not change the numbers


def test_any_split_into_batches_gives_the_same_answer(monkeypatch):
    model = networks.convolutional()
    x, y = networks.examples(12)
    options = dict(alphas=ALPHAS, betas=BETAS, seed=2)
    reference = loss_slice(model, [(x, y)], [SDT(), TRT()], **options)
    for sizes in ((1,) * 12, (5, 7), (11, 1)):
        found = loss_slice(model, batches(x, y, *sizes), [SDT(), TRT()], **options)
        assert found.settings == reference.settings
        assert found.table["loss"].to_numpy() == pytest.approx(reference.table["loss"].to_numpy(), rel=1e-10)
        assert found.table.drop(columns="loss").equals(reference.table.drop(columns="loss"))
    monkeypatch.setattr(probes.examples, "HELD_BYTES", 0)
    streamed = loss_slice(model, [(x, y)], [SDT(), TRT()], **options)
    assert streamed.table.equals(reference.table) and streamed.settings == reference.settings


def test_a_line_is_the_middle_of_the_plane():
    model = networks.convolutional(4)
    plane = loss_slice(model, [(X, Y)], [SDT()], alphas=ALPHAS, betas=[-1, 0, 1]).table
    line = loss_slice(model, [(X, Y)], [SDT()], alphas=ALPHAS).table
    assert plane[plane["beta"] == 0].reset_index(drop=True).equals(line)
    other = loss_slice(model, [(X, Y)], [SDT()], alphas=ALPHAS, seed=1).table
    assert not other["loss"].equals(line["loss"])


def test_order_of_the_grid_and_rounded_zeros():
    model = networks.convolutional(4)
    table = loss_slice(model, [(X, Y)], [SDT()], alphas=torch.tensor([0.3, -0.1]), betas=np.array([1.0, 1e-17])).table
    assert table["beta"].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert table["alpha"].tolist() == pytest.approx([0.3, 0.3, -0.1, -0.1], rel=1e-6)


def test_directions_of_a_layer_alone_move_that_layer_alone():
    model = networks.convolutional(4)
    chosen = {"net.4.weight"}
    direction = {"net.4.weight": torch.randn_like(model.net[4].weight)}
    table = loss_slice(
        model, [(X, Y)], [SDT()], alphas=[0, 1], directions=direction, params=lambda name: name in chosen
    ).table
    with torch.no_grad():
        moved = copy.deepcopy(model)
        moved.net[4].weight += direction["net.4.weight"]
    assert at(table, 1.0)["loss"] == pytest.approx(evaluate(moved, [(X, Y)]).loss, rel=1e-10)
    random = loss_slice(model, [(X, Y)], [SDT()], alphas=[1], params=lambda name: name in chosen)
    assert random.settings["params"] == ["net.4.weight"]
    assert random.settings["direction_norms"] == pytest.approx([float(model.net[4].weight.detach().norm())])


def test_tied_weights_move_together():
    torch.manual_seed(0)
    model = networks.Recurrent(features=7, hidden=7).double()
    model.recurrent.weight = model.inward.weight
    x, y = torch.randn(5, 4, 7, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.inward.weight *= 3.0
    line = direction_between(model.state_dict(), other.state_dict())
    table = loss_slice(model, [(x, y)], [SDT()], alphas=[0, 1], directions=line).table
    assert at(table, 1.0)["loss"] == pytest.approx(evaluate(other, [(x, y)]).loss, rel=1e-10)
    assert at(table, 1.0)["loss"] != at(table, 0.0)["loss"]


# Purity


@pytest.mark.parametrize("fails_at", [None, 1, 2, 5, 6, 9])
def test_the_model_is_left_as_it_was(fails_at):
    """The objective raises at its n-th use; two batches, so also in the middle of a point."""
    model = networks.convolutional(4)
    model.net[3].eval()
    model.net[4].weight.requires_grad_(False)
    model.net[0].weight.grad = torch.ones_like(model.net[0].weight)
    pointers = {name: t.data_ptr() for name, t in model.state_dict().items()}
    before, calls = snapshot(model), []

    def objective(logits, labels, params):
        calls.append(1)
        if len(calls) == fails_at:
            raise RuntimeError("planted")
        return SDT()(logits, labels)

    def run():
        loss_slice(model, batches(X, Y, 4, 2), {"mine": objective}, alphas=ALPHAS, betas=BETAS)

    if fails_at is None:
        run()
        assert len(calls) == 12
    else:
        with pytest.raises(RuntimeError, match="planted"):
            run()
    assert same(before, snapshot(model))
    assert pointers == {name: t.data_ptr() for name, t in model.state_dict().items()}


# What is not finite


def test_points_that_are_not_finite_are_values_with_a_mask():
    model = networks.convolutional(4, double=False)
    x, y = networks.examples(6, 4, dtype=torch.float32)
    direction = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    direction["net.11.weight"] += 1e30
    table = loss_slice(model, [(x, y)], [SDT(), TET()], alphas=[0, 1, 1e10], directions=direction).table
    assert table["finite"].tolist() == [True, True, False, True, False, False]
    assert math.isfinite(at(table, 1.0)["loss"]) and at(table, 1.0, objective="tet")["loss"] == math.inf
    assert not math.isfinite(at(table, 1e10)["loss"]) and at(table, 1e10)["accuracy"] == 0.0


def test_a_silenced_network_is_not_called_finite():
    """A negative variance makes currents NaN, NaN does not spike, and the loss looks like a number."""
    model = networks.convolutional(4)
    line = {name: torch.zeros_like(t) for name, t in model.state_dict().items() if t.is_floating_point()}
    line["net.5.running_var"] += 1.0
    table = loss_slice(model, [(X, Y)], [SDT()], alphas=[-5, 0], directions=line).table
    assert math.isfinite(at(table, -5.0)["loss"]) and not at(table, -5.0)["finite"]
    assert at(table, 0.0)["finite"]


# Resuming


class Interrupting:
    """SDT that a user interrupts at its n-th use, if n is given."""

    name = "sdt"

    def __init__(self, n=None):
        self.n, self.calls = n, 0

    def __call__(self, logits, labels, params):
        self.calls += 1
        if self.calls == self.n:
            raise KeyboardInterrupt
        return SDT()(logits, labels)


@pytest.mark.parametrize("n", [2, 4, 6])
def test_an_interrupted_slice_resumes_to_the_identical_table(n, tmp_path):
    model, path = networks.convolutional(4), tmp_path / "partial.json"
    options = dict(alphas=ALPHAS, betas=BETAS, seed=1)
    whole = loss_slice(model, [(X, Y)], [Interrupting()], **options)
    with pytest.raises(KeyboardInterrupt):
        loss_slice(model, [(X, Y)], [Interrupting(n)], save=lambda part: results.save(part, path), **options)
    partial = results.load(path)
    assert partial.table.equals(whole.table.head(n - 1))
    assert partial.settings == whole.settings
    again = Interrupting()
    finished = loss_slice(model, batches(X, Y, 6), [again], resume=partial, **options)
    assert again.calls == 6 - (n - 1)
    pd.testing.assert_frame_equal(finished.table, whole.table, check_exact=True)
    assert finished.environment["seconds"] > partial.environment["seconds"]
    complete = Interrupting()
    loss_slice(model, [(X, Y)], [complete], resume=finished, **options)
    assert complete.calls == 0


def test_resuming_keeps_what_is_not_finite(tmp_path):
    model = networks.convolutional(4)

    def options(n=None, first=0):
        uses = iter(range(first, 100))

        def mine(logits, labels, params):
            k = next(uses)
            if k == n:
                raise KeyboardInterrupt
            return logits.new_tensor([math.nan, math.inf, 2.0][k])

        return dict(objectives={"mine": mine}, alphas=[0, 1, 2])

    path = tmp_path / "partial.json"
    with pytest.raises(KeyboardInterrupt):
        loss_slice(model, [(X, Y)], save=lambda part: results.save(part, path), **options(2))
    table = loss_slice(model, [(X, Y)], resume=results.load(path), **options(first=2)).table  # the third point alone
    assert math.isnan(table["loss"][0]) and table["loss"][1] == math.inf and table["loss"][2] == 2.0
    assert table["finite"].tolist() == [False, False, True]


def test_points_of_other_code_are_refused():
    """An objective of the same name that was edited, and a network of the same weights with other thresholds."""

    def once():
        def mine(logits, labels, params):
            return logits.square().mean()

        return mine

    def edited():
        def mine(logits, labels, params):
            return 2 * logits.square().mean()

        mine.__qualname__ = once().__qualname__
        return mine

    def spiking(threshold):
        torch.manual_seed(0)
        node = neuron.LIFNode(v_threshold=threshold)
        return from_spikingjelly(nn.Sequential(layer.Linear(6, 4), node, layer.Linear(4, 3)), 2)

    flat, labels = torch.randn(4, 6), torch.arange(4) % 3
    given = dict(alphas=[0.0, 1.0])
    stored = loss_slice(spiking(1.0), [(flat, labels)], {"mine": once()}, **given)
    assert loss_slice(spiking(1.0), [(flat, labels)], {"mine": once()}, resume=stored, **given).table.equals(
        stored.table
    )
    for model, objective in ((spiking(1.0), edited()), (spiking(0.5), once())):
        with pytest.raises(ValueError, match=r"^resume was measured with other code"):
            loss_slice(model, [(flat, labels)], {"mine": objective}, resume=stored, **given)


def test_save_is_called_as_often_as_asked_and_at_the_end():
    model, saved = networks.convolutional(4), []
    options = dict(alphas=ALPHAS, save=saved.append)
    loss_slice(model, [(X, Y)], [SDT()], save_every=0.0, **options)
    assert [len(part.table) for part in saved] == [1, 2, 3]
    saved.clear()
    loss_slice(model, [(X, Y)], [SDT()], save_every=1e9, **options)
    assert [len(part.table) for part in saved] == [3]


def test_a_save_that_fails_is_not_hidden():
    def fail(part):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        loss_slice(networks.convolutional(4), [(X, Y)], [SDT()], alphas=ALPHAS, save=fail, save_every=0.0)


def test_progress_wraps_the_points():
    seen = []

    def progress(points, label):
        seen.append((len(points), label))
        return points

    loss_slice(networks.convolutional(4), [(X, Y)], [SDT()], alphas=ALPHAS, betas=BETAS, progress=progress)
    assert seen == [(6, "loss_slice")]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(alphas=[0, 1]), "alphas"),
        (dict(seed=4), "seed, directions_sha256"),
        (dict(objectives=[TET()]), "objectives"),
        (dict(model=networks.convolutional(4, seed=9)), "directions_sha256, weights_sha256"),
        (dict(batches=[(X[:4], Y[:4])]), "examples_sha256, num_examples"),
        (dict(batches=[(X, Y.flip(0))]), "examples_sha256"),
    ],
)
def test_resuming_something_else_is_refused(change, sentence):
    given = dict(model=networks.convolutional(4), batches=[(X, Y)], objectives=[SDT()], alphas=ALPHAS, seed=1)
    partial = loss_slice(given.pop("model"), given.pop("batches"), given.pop("objectives"), **given)
    given = dict(model=networks.convolutional(4), batches=[(X, Y)], objectives=[SDT()], alphas=ALPHAS, seed=1)
    given |= change
    with pytest.raises(ValueError, match=f"resume was measured with other {sentence}.*; give the same arguments"):
        loss_slice(given.pop("model"), given.pop("batches"), given.pop("objectives"), resume=partial, **given)


def test_resuming_needs_a_loss_slice():
    other = results.Result("fisher_trace", pd.DataFrame(), {})
    for resume in (other, "partial.json"):
        with pytest.raises(ValueError, match=r"resume is no result of loss_slice; give one that save received"):
            loss_slice(networks.convolutional(4), [(X, Y)], [SDT()], alphas=ALPHAS, resume=resume)


# Bad input


def zeros(model=None):
    return {name: torch.zeros_like(p) for name, p in (model or networks.convolutional(4)).named_parameters()}


def ones(**changes):
    found = {name: torch.ones_like(p) for name, p in networks.convolutional(4).named_parameters()}
    return {name: d for name, d in {**found, **changes}.items() if d is not None}


def silent():
    model = networks.convolutional(4)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    return model


def diverged():
    model = networks.convolutional(4)
    model.net[4].weight.data[0] = math.nan
    return model


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (dict(alphas=[]), r"alphas is empty; give at least one number, 0 among them"),
        (dict(betas=[]), r"betas is empty; give at least one number"),
        (dict(alphas=[0.0, math.nan]), r"alphas contains nan; give finite numbers\."),
        (dict(betas=[math.inf]), r"betas contains inf; give finite numbers\."),
        (dict(alphas=[0.0, 1.0, 1.0]), r"alphas contains 1 twice; give each coordinate once\."),
        (dict(alphas=3), r"alphas is 3; give a list of numbers\."),
        (dict(alphas="abc"), r"alphas is 'abc'; give a list of numbers\."),
        (dict(seed=-2), r"seed is -2; give a whole number of at least 0\."),
        (dict(objectives=[]), r"objectives is empty; give at least one, such as \[SDT\(\)\]\."),
        (dict(objectives=SDT()), r"objectives is SDT\(\); give a list as \[SDT\(\), TET\(\)\] or a dict"),
        (dict(objectives=[SDT(), SDT()]), r"objectives has 'sdt' twice; give a dict with a name for each\."),
        (dict(objectives=[lambda *a: 0]), r"An objective of the list has no name; give a dict {name: objective}\."),
        (dict(objectives={"a": 3}), r"objectives\['a'\] is 3; give a function of \(logits, labels, params\)\."),
        (dict(objectives=[SDT]), r"objectives\['sdt'\] is <class .*; give a function of"),
        (
            dict(objectives={"a": lambda logits, labels, params: params["fc.weight"].sum()}),
            r"objectives\['a'\] needs the parameter 'fc\.weight', which the model does not have; give an objective",
        ),
        (dict(objectives={"a": lambda *a: 1.0}), r"objectives\['a'\] returned float; give a scalar tensor, the mean"),
        (dict(objectives={"a": lambda z, y, p: z}), r"objectives\['a'\] returned shape \(4, 6, 5\); give a scalar"),
        (dict(directions=zeros()), r"directions\[0\] is zero everywhere, so nothing would move; give a direction"),
        (dict(directions=[ones(), zeros()], betas=[0, 1]), r"directions\[1\] is zero everywhere"),
        (dict(directions=[]), r"directions must be one dict of tensors by parameter name, or a list of one or two"),
        (dict(directions=[ones()] * 3), r"directions must be one dict of tensors"),
        (dict(directions=["random"]), r"directions must be one dict of tensors"),
        (dict(directions=ones(), betas=[0, 1]), r"betas has values other than 0 but there is only one direction"),
        (dict(directions=ones(**{"net.0.weight": None})), r"directions\[0\] lacks 'net\.0\.weight'; give tensors of"),
        (dict(directions=ones(more=torch.ones(2))), r"directions\[0\] has 'more', which the weights do not have"),
        (
            dict(directions=ones(**{"net.0.weight": torch.ones(4, 3)})),
            r"directions\[0\] has shape \(4, 3\) for 'net\.0\.weight' where the weights have \(4, 2, 3, 3\)",
        ),
        (
            dict(directions=ones(**{"net.0.bias": torch.full((4,), math.nan)})),
            r"directions\[0\] is not finite in 'net\.0\.bias'; give finite tensors\.",
        ),
        (
            dict(directions=ones(), params=lambda name: name == "net.4.weight"),
            r"directions\[0\] moves 'net\.0\.bias', which params leaves out; leave it out of the direction too\.",
        ),
        (dict(model=silent()), r"No weight with two or more axes is other than zero, so nothing would move"),
        (dict(model=diverged()), r"The model's weights are not finite in 'net\.4\.weight'; probe a checkpoint"),
        (dict(batches=[]), r"batches is empty; give at least one batch"),
        (dict(batches=[(X * math.nan, Y)]), r"Batch 0 contains NaN or infinite inputs"),
        (dict(batches=[(X, Y[:2])]), r"Batch 0 has 6 inputs and 2 labels"),
        (dict(params=lambda name: False), r"params selects no trainable parameter of the model"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, sentence):
    given = dict(model=networks.convolutional(4), batches=[(X, Y)], objectives=[SDT()], alphas=ALPHAS) | arguments
    with pytest.raises(ValueError, match=sentence):
        loss_slice(given.pop("model"), given.pop("batches"), given.pop("objectives"), **given)
