"""Temporal gradients against a neuron worked out by hand and a loop over examples, and what must not change them."""

import math
import subprocess
import sys

import networks
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from test_temporal import same, snapshot
from torch import nn

from snn_probe.drawing import over_time as time_figures
from snn_probe.drawing import style as figure_style
from snn_probe.objectives import SDT, TET, TRT
from snn_probe.probes.gradients import gradient_ratio, temporal_gradient_norms
from snn_probe.results import Result, combine
from snn_probe.temporal import from_spikingjelly


def values(result, column="norm"):
    return {(r.layer, r.timestep): getattr(r, column) for r in result.table.itertuples()}


def batches(x, y, *sizes):
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def first_logit(logits, labels, params=None):
    return logits[:, :, 0].sum(0).mean()


def triangle(**options):
    return networks.lif(surrogate_function=surrogate.PiecewiseQuadratic(alpha=1.0), **options)


def one_neuron(neuron):
    """The neuron on its own, read out as it is: logits (s[t], 0)."""
    net = nn.Sequential(neuron, layer.Linear(1, 2, bias=False))
    net[1].weight.data = torch.tensor([[1.0], [0.0]])
    return from_spikingjelly(net).double()


def test_one_neuron_worked_out_by_hand():
    """h[t] = v[t-1]/2 + I[t], s = (h >= 1), v = (1 - s) h, S'(h) = max(0, 1 - |h - 1|), L = s[1] + s[2] + s[3].

    I    = 0.8, 0.9, 0.3
    h    = 0.8, 0.4 + 0.9 = 1.3, 0 + 0.3 = 0.3      (spikes 0, 1, 0; v = 0.8, 0, 0.3)
    S'   = 0.8, 0.7, 0.3                             = P, as dL/ds = 1 and dh/dI = 1
    dv/dh = (1 - s) - h S' = 1 - 0.64 = 0.36 at t = 1, and 0 - 0.91 at t = 2; from v[t] to h[t+1] it is 1/2.
    dL/dh[3] = 0.3;  dL/dh[2] = 0.7 - 0.3 x 0.91/2 = 0.5635;  dL/dh[1] = 0.8 + 0.5635 x 0.36/2 = 0.90143

    A second example, I = -1.5, 0, 0, stays more than 1 below the threshold: its gradients are exactly zero.
    """
    x = torch.tensor([[0.8, 0.9, 0.3], [-1.5, 0.0, 0.0]], dtype=torch.float64).unsqueeze(-1)
    y = torch.zeros(2, dtype=torch.int64)
    alone = temporal_gradient_norms(one_neuron(triangle()), [(x[:1], y[:1])], first_logit).table
    assert list(alone.columns) == ["layer", "timestep", "norm", "norm_spatial", "fraction_zero"]
    assert list(alone["timestep"]) == [1, 2, 3] and set(alone["layer"]) == {"net.0"}
    assert list(alone["norm"]) == pytest.approx([0.90143, 0.5635, 0.3], rel=1e-12)
    assert list(alone["norm_spatial"]) == pytest.approx([0.8, 0.7, 0.3], rel=1e-12)
    assert list(alone["fraction_zero"]) == [0, 0, 0]
    both = temporal_gradient_norms(one_neuron(triangle()), [(x, y)], first_logit).table
    assert list(both["norm"]) == pytest.approx([0.90143 / 2, 0.5635 / 2, 0.15], rel=1e-12)
    assert list(both["norm_spatial"]) == pytest.approx([0.4, 0.35, 0.15], rel=1e-12)
    assert list(both["fraction_zero"]) == [0.5, 0.5, 0.5]


def test_a_neuron_that_scales_its_input_scales_the_gradient():
    """With decay_input and tau = 4, dh/dI = 1/4; T = 1, I = 3, h = 0.75: dL/dI = S'(0.75)/4 = 0.75/4."""
    model = one_neuron(triangle(tau=4.0, decay_input=True))
    result = temporal_gradient_norms(model, [(torch.full((1, 1, 1), 3.0).double(), torch.tensor([0]))], first_logit)
    assert result.table[["norm", "norm_spatial"]].to_numpy().ravel() == pytest.approx([0.75 / 4] * 2, rel=1e-12)


CHARGE = {  # of the neurons of networks.convolutional: h from v and I, and dh/dI
    "net.2": (lambda v, i: v - v / 2.0 + i, 1.0),
    "net.6": (lambda v, i: v + (i - v) / 2.0, 0.5),
    "net.10": (lambda v, i: v + i, 1.0),
}


def loop(model, x, y, objective, num_steps):
    """norm, norm_spatial and fraction_zero by running every example alone, step by step, with ``backward``."""
    model.eval()
    rows = {}
    for n in range(len(y)):
        functional.reset_net(model.net)
        functional.set_step_mode(model.net, "s")
        seen, logits = {}, []
        for t in range(num_steps or x.shape[1]):
            z = x[n : n + 1] if num_steps else x[n : n + 1, t]
            for i, module in enumerate(model.net):
                name = f"net.{i}"
                if name in CHARGE:
                    z.retain_grad()
                    charge, scale = CHARGE[name]
                    before = module.v.detach() if isinstance(module.v, torch.Tensor) else module.v
                    distance = (charge(before, z.detach()) - module.v_threshold).requires_grad_()
                    (slope,) = torch.autograd.grad(module.surrogate_function(distance).sum(), distance)
                    current, z = z, module(z) * 1.0
                    z.retain_grad()
                    seen[name, t + 1] = (current, z, slope * scale)
                else:
                    z = module(z)
            logits.append(z)
        objective(torch.stack(logits), y[n : n + 1], dict(model.named_parameters())).backward()
        for key, (current, spikes, slope) in seen.items():
            g, cut = current.grad, spikes.grad * slope
            found = (float(g.norm()), float(cut.norm()), float((g == 0).double().mean()))
            rows[key] = [a + b / len(y) for a, b in zip(rows.get(key, (0, 0, 0)), found, strict=True)]
    return rows


@pytest.mark.parametrize("num_steps", [None, 4])
@pytest.mark.parametrize("objective", [SDT(), TET(), TRT()])
def test_equals_a_loop_over_single_examples(num_steps, objective):
    """Three kinds of neuron, a ragged last batch; float64, 1e-10. The penalty of TRT does not matter."""
    x, y = networks.examples(5, num_steps)
    expected = loop(networks.convolutional(num_steps), x, y, objective, num_steps)
    result = temporal_gradient_norms(networks.convolutional(num_steps), batches(x, y, 2, 2, 1), objective)
    assert result.settings["spatial_left_out"] == {} and result.settings["num_examples"] == 5
    assert list(values(result)) == list(sorted(expected, key=lambda key: (int(key[0][4:]), key[1])))
    for r in result.table.itertuples():
        found = (r.norm, r.norm_spatial, r.fraction_zero)
        assert found == pytest.approx(expected[r.layer, r.timestep], rel=1e-10), (r.layer, r.timestep)
        assert r.norm > 0
    last = result.table[result.table["timestep"] == result.table["timestep"].max()]
    assert list(last["norm"]) == pytest.approx(list(last["norm_spatial"]), rel=1e-12)  # no later timestep to come from


def test_zeros_are_counted():
    """A triangle is exactly zero away from the threshold."""
    torch.manual_seed(0)
    net = nn.Sequential(layer.Linear(6, 40), triangle(), layer.Linear(40, 3))
    model = from_spikingjelly(net).double()
    x = 4 * torch.randn(3, 4, 6, dtype=torch.float64)
    found = values(temporal_gradient_norms(model, batches(x, torch.tensor([0, 1, 2]), 2, 1), SDT()), "fraction_zero")
    for t in range(1, 5):
        current = net[0](x.transpose(0, 1))
        gradients = []
        for n in range(3):
            leaf = current[:, n : n + 1].detach().requires_grad_()
            functional.reset_net(net)
            loss = nn.functional.cross_entropy(net[2](net[1](leaf)).mean(0), torch.tensor([n]))
            gradients.append(torch.autograd.grad(loss, leaf)[0])
        assert found["net.1", t] == pytest.approx(float((torch.cat(gradients, 1)[t - 1] == 0).double().mean()), abs=0)
    assert 0 < found["net.1", 1] < 1


def test_any_split_into_batches_gives_the_same_answer():
    x, y = networks.examples(7)
    reference = temporal_gradient_norms(networks.convolutional(), batches(x, y, 7), TET()).table
    for sizes in ((1,) * 7, (3, 4), (6, 1)):
        found = temporal_gradient_norms(networks.convolutional(), batches(x, y, *sizes), TET()).table
        pd.testing.assert_frame_equal(found, reference, rtol=1e-10)


class Act(nn.Module):
    """A stateless spiking activation of the user's own."""

    def __init__(self):
        super().__init__()
        self.surrogate_function = surrogate.ATan()

    def forward(self, x):
        return self.surrogate_function(x - 0.2)


class Arranged(nn.Module):
    """The same network with its tensors in another order; SpikingJelly's neuron only where it can stand it."""

    def __init__(self, kind, spiking):
        super().__init__()
        torch.manual_seed(0)
        self.inward, self.spiking, self.outward = nn.Linear(4, 4), spiking, nn.Linear(4, 4)
        self.kind = kind

    def forward(self, inputs):
        functional.reset_net(self)
        current = self.inward(inputs)
        n, t = current.shape[:2]
        if self.kind == "time first":
            s = self.spiking(current.transpose(0, 1))
        elif self.kind == "batch first":
            s = self.spiking(current).transpose(0, 1)
        elif self.kind == "merged":
            s = self.spiking(current.transpose(0, 1).flatten(0, 1)).unflatten(0, (t, n))
        elif self.kind == "merged, batch first":
            s = self.spiking(current.flatten(0, 1)).unflatten(0, (n, t)).transpose(0, 1)
        elif self.kind == "in place":
            z = current.transpose(0, 1) * 1
            s = self.spiking(z).mul_(2).div_(2)
            z.mul_(0)
        elif self.kind == "once":
            s = self.spiking(current.mean(1)).expand(t, n, -1)
        elif self.kind == "twice":
            s = self.spiking(self.spiking(current.transpose(0, 1)))
        elif self.kind == "unused":
            s = current.transpose(0, 1)
        else:
            s = torch.stack([self.spiking(x) for x in current.unbind(1)])
        return self.outward(s).cumsum(0)


ARRANGEMENTS = ["batch first", "merged", "merged, batch first", "in place", "steps"]
Y = torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize("kind", ARRANGEMENTS)
@pytest.mark.parametrize("n", [4, 3, 1])
def test_the_axes_of_time_and_examples_are_found(kind, n):
    """4 timesteps, 4 neurons and up to 4 examples: shapes alone do not tell them apart."""
    x = torch.randn(n, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = temporal_gradient_norms(Arranged("time first", Act()).double(), [(x, Y[:n])], SDT())
    found = temporal_gradient_norms(Arranged(kind, Act()).double(), [(x, Y[:n])], SDT())
    assert values(found) == pytest.approx(values(expected), rel=1e-12)
    assert list(found.table["layer"].unique()) == ["spiking"]
    assert found.table["norm_spatial"].isna().all()
    assert found.settings["spatial_left_out"] == {"spiking": "not a SpikingJelly neuron"}


@pytest.mark.parametrize("kind", ["steps", "in place"])
def test_a_neuron_called_once_per_timestep_is_split_as_well(kind):
    """There the reset uses the very tensor that is emitted; only what flows on belongs to dL/ds."""
    x = torch.randn(4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    many = networks.lif(v_threshold=0.3, step_mode="m")
    one = networks.lif(v_threshold=0.3, step_mode="m" if kind == "in place" else "s")
    expected = temporal_gradient_norms(Arranged("time first", many).double(), [(x, Y)], SDT()).table
    found = temporal_gradient_norms(Arranged(kind, one).double(), [(x, Y)], SDT()).table
    pd.testing.assert_frame_equal(found, expected, rtol=1e-12)
    assert found["norm_spatial"].notna().all() and found["norm"][0] != found["norm_spatial"][0]
    assert one.step_mode == ("m" if kind == "in place" else "s")


def test_only_what_flows_through_the_layer_counts():
    """Where the current is also added to the spikes, the shortcut is no part of the layer's gradient."""

    class Shortcut(Arranged):
        def forward(self, inputs):
            functional.reset_net(self)
            current = self.inward(inputs).transpose(0, 1)
            return self.outward(current + self.spiking(current))

    x = torch.randn(4, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model = Shortcut("", networks.lif(v_threshold=0.3, step_mode="m")).double()
    found = values(temporal_gradient_norms(model, [(x, Y)], SDT()))
    current = model.inward(x).transpose(0, 1).detach()
    leaf = current.clone().requires_grad_()
    functional.reset_net(model)
    loss = nn.functional.cross_entropy(model.outward(current + model.spiking(leaf)).mean(0), Y) * 4
    norms = torch.autograd.grad(loss, leaf)[0].norm(dim=2).mean(1)
    assert list(found.values()) == pytest.approx(norms.tolist(), rel=1e-12)


class Odd(neuron.LIFNode):
    """Does something else over a sequence than step by step."""

    def multi_step_forward(self, x):
        return super().multi_step_forward(2 * x)


def test_what_the_neuron_does_not_let_is_nan_and_says_why():
    torch.manual_seed(0)
    net = nn.Sequential(layer.Linear(6, 9), Odd(v_threshold=0.2), layer.Linear(9, 9), neuron.PSN(3), layer.Linear(9, 9),
                        neuron.ParametricLIFNode(v_threshold=0.1), layer.Linear(9, 3))  # fmt: skip
    model = from_spikingjelly(net).double()
    x = torch.randn(4, 3, 6, dtype=torch.float64)
    result = temporal_gradient_norms(model, [(x, Y % 3)], SDT())
    assert result.settings["spatial_left_out"] == {
        "net.1": "run alone it emits other spikes",
        "net.3": "not a SpikingJelly neuron",
    }
    missing = result.table.groupby("layer", sort=False)["norm_spatial"].agg(lambda column: column.isna().all())
    assert missing.to_dict() == {"net.1": True, "net.3": True, "net.5": False}
    assert result.table["norm"].min() > 0


def test_layers_may_be_chosen_by_name():
    x, y = networks.examples(3)
    whole = values(temporal_gradient_norms(networks.convolutional(), [(x, y)], SDT()))
    some = temporal_gradient_norms(networks.convolutional(), [(x, y)], SDT(), layers=["net.10", "net.2"])
    assert list(some.table["layer"].unique()) == ["net.2", "net.10"] == some.settings["layers"]
    assert values(some) == {key: value for key, value in whole.items() if key[0] != "net.6"}
    other = temporal_gradient_norms(networks.convolutional(), [(x, y)], SDT(), layers=["net.11"])
    assert other.table["norm"].min() > 0 and other.table["norm_spatial"].isna().all()


def test_float32_agrees_with_float64():
    x, y = networks.examples(4, dtype=torch.float32)
    single = values(temporal_gradient_norms(networks.convolutional(double=False), [(x, y)], SDT()))
    double = values(temporal_gradient_norms(networks.convolutional(), [(x.double(), y)], SDT()))
    assert single == pytest.approx(double, rel=1e-3)


@pytest.mark.parametrize("calls", [None, *range(1, 12)])
def test_the_model_is_left_as_it_was_also_after_a_failure(calls):
    model = networks.convolutional()
    model.net[3].eval()
    model.net[4].weight.requires_grad_(False)
    count = 0

    def fail(module, args):
        nonlocal count
        count += 1
        if count == calls:
            raise KeyError("planted")

    handle = model.net[10].register_forward_pre_hook(fail)
    before = snapshot(model)
    if calls is None:
        temporal_gradient_norms(model, [networks.examples(3)], TRT())
        assert count > 12  # so every failure above was planted inside the probe
    else:
        with pytest.raises(KeyError, match="planted"):
            temporal_gradient_norms(model, [networks.examples(3)], TRT())
    assert same(before, snapshot(model))
    handle.remove()


def table(norms, layer="lif1"):
    return pd.DataFrame({"layer": layer, "timestep": range(1, len(norms) + 1), "norm": norms})


def test_ratio_of_first_to_last_timestep():
    whole = pd.concat([table([0.5, 3.0, 2.0]), table([1.0, 0.0], "lif2")])
    ratios = gradient_ratio(whole.iloc[::-1])
    assert dict(zip(ratios["layer"], ratios["ratio"], strict=True)) == pytest.approx(
        {"lif1": 0.25, "lif2": math.nan}, nan_ok=True
    )
    cards = [{"run": method, "config": {"method": method}} for method in ("sdt", "trt")]
    both = combine(Result("temporal_gradient_norms", whole, {}, card) for card in cards)
    found = gradient_ratio(both)
    assert list(found["method"]) == ["sdt", "sdt", "trt", "trt"] and list(found["ratio"])[::2] == [0.25, 0.25]
    with pytest.raises(
        ValueError, match=r"the table has no column 'norm'; give the table of a temporal_gradient_norms"
    ):
        gradient_ratio(whole.drop(columns="norm"))
    with pytest.raises(ValueError, match=r"layer 'lif1' has a timestep twice"):
        gradient_ratio(pd.concat([whole, whole]))


X, LABELS = networks.examples(4)


def broken(kind):
    return Arranged(kind, Act()).double()


def streams(n=4):
    return [(torch.randn(n, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), Y[:n])]


def nan_model():
    model = networks.convolutional()
    model.net[-1].bias.data[0] = math.nan
    return model


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (dict(objective="sdt"), r"objective is 'sdt'; give SDT\(\), TET\(\), TRT\(\) or a function of"),
        (dict(objective=lambda z, y, p: z), r"The objective must return a scalar tensor that depends on the logits"),
        (dict(objective=lambda z, y, p: 1.0), r"The objective must return a scalar tensor"),
        (
            dict(objective=lambda z, y, p: z.square().sum()),
            r"The objective of several examples is not the mean of theirs",
        ),
        (dict(objective=TRT(penalize="hidden_weights"), model=broken("steps"), batches=streams()), None),
        (
            dict(
                objective=TRT(penalize="hidden_weights"),
                model=one_neuron(triangle()),
                batches=[(torch.ones(2, 2, 1).double(), Y[:2] % 2)],
            ),
            r"penalize='hidden_weights' selects none of the parameters net\.1\.weight; give the model's weights",
        ),
        (
            dict(layers="net.2"),
            r"layers is 'net\.2'; give None or a list of names of modules, .*: net\.2, net\.6, net\.10\.",
        ),
        (dict(layers=[]), r"layers is \[\]; give None or a list"),
        (dict(layers=3), r"layers is 3; give None or a list"),
        (
            dict(layers=["net.2", "lif"]),
            r"layers has 'lif', which is no module of the model; its spiking ones are: net\.2",
        ),
        (
            dict(model=networks.Recurrent().double(), batches=[(X[:, :, 0, 0, :6], Y)]),
            r"The model has no spiking layers .*; call the surrogate .* or name such modules with layers=",
        ),
        (dict(model=broken("unused"), batches=streams()), r"Layer 'spiking' is not used in the model's forward"),
        (
            dict(model=broken("once"), batches=streams(3)),
            r"Layer 'spiking' does not run once per timestep \(calls: 1, T: 4\)",
        ),
        (
            dict(model=broken("twice"), batches=streams()),
            r"Layer 'spiking' does not run once per timestep \(calls: 2, T: 4\)",
        ),
        (
            dict(batches=[(X, LABELS), (X[:, :4], LABELS)]),
            r"returned 4 timesteps where it returned 5 before; give streams of one",
        ),
        (dict(batches=[]), r"batches is empty; give at least one batch"),
        (dict(batches=iter([(X, LABELS)])), r"batches is a one-shot iterator; give a list"),
        (dict(batches=[(X * math.nan, LABELS)]), r"Batch 0 contains NaN or infinite inputs"),
        (dict(model=nan_model()), r"The model's logits are not finite; probe a checkpoint from before"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, sentence):
    given = {"model": networks.convolutional(), "batches": [(X, LABELS)], "objective": SDT(), **arguments}
    positional = [given.pop(name) for name in ("model", "batches", "objective")]
    if sentence is None:
        temporal_gradient_norms(*positional, **given)
        return
    with pytest.raises(ValueError, match=sentence):
        temporal_gradient_norms(*positional, **given)


# Figures


def measured(norms, method="trt", epoch=20, spatial=None):
    """A result whose layers have these norms; ``spatial`` a fraction of them."""
    parts = [table(values, name).assign(fraction_zero=0.0) for name, values in norms.items()]
    whole = pd.concat(parts, ignore_index=True)
    whole["norm_spatial"] = whole["norm"] * spatial if spatial else math.nan
    card = {"run": f"{method}-0", "epoch": epoch, "config": {"method": method, "seed": 0, "num_steps": 3}}
    return Result("temporal_gradient_norms", whole, {}, card)


NORMS = {"lif1": [0.01, 0.1, 1.0], "lif2": [0.0, 0.2, 2.0]}


def labels(ax):
    return [
        label for handle, label in zip(*ax.get_legend_handles_labels(), strict=True) if not figure_style.is_note(handle)
    ]


def notes(ax):
    return [
        label for handle, label in zip(*ax.get_legend_handles_labels(), strict=True) if figure_style.is_note(handle)
    ]


def test_lines_of_one_checkpoint():
    ax = time_figures.gradient_norms(measured(NORMS, spatial=0.5).table, Figure().subplots())
    assert [(line.get_label(), line.get_linestyle()) for line in ax.lines[::2]] == [("lif1", "-"), ("lif2", "-")]
    assert list(ax.lines[0].get_ydata()) == NORMS["lif1"]
    assert math.isnan(ax.lines[2].get_ydata()[0])  # zero is a gap on a logarithmic axis
    assert list(ax.lines[1].get_ydata()) == [0.005, 0.05, 0.5] and ax.lines[1].get_linestyle() == "--"
    assert ax.lines[1].get_color() is ax.lines[0].get_color()
    assert labels(ax) == ["lif1", "lif2"] and notes(ax) == ["dashed, hollow: path through time cut"]
    assert (ax.get_xlabel(), ax.get_yscale()) == ("Timestep", "log")
    assert list(ax.get_xticks()) == [1, 2, 3]
    assert ax.lines[0].get_linewidth() > ax.lines[2].get_linewidth()  # lines on each other show
    assert ax.lines[0].get_markersize() > ax.lines[2].get_markersize()
    assert {line.get_markerfacecolor() for line in ax.lines[1::2]} == {"none"}
    uncut = time_figures.gradient_norms(measured(NORMS).table, Figure().subplots())
    assert notes(uncut) == ["no dashed lines: the path through time of these neurons cannot be cut"]
    some = measured(NORMS, spatial=0.5).table
    some.loc[some["layer"] == "lif2", "norm_spatial"] = math.nan
    assert notes(time_figures.gradient_norms(some, Figure().subplots())) == [
        "dashed, hollow: path through time cut (where it can be)"
    ]
    (alone,) = time_figures.draw("gradient_norms", combine([measured(NORMS)])).axes
    assert alone.get_title() == "TRT, epoch 20"
    flat = time_figures.gradient_norms(measured({"lif1": [0.0, 0.0]}).table, Figure().subplots())
    assert flat.get_yscale() == "linear"


def test_of_many_layers_some_are_lines_and_all_are_on_the_map():
    deep = measured({f"lif{i}": [1.0, 2.0] for i in range(20)}).table
    ax = time_figures.gradient_norms(deep, Figure().subplots())
    assert labels(ax)[0] == "lif0" and labels(ax)[-1] == "lif19" and len(labels(ax)) == 8
    assert notes(ax)[0].endswith("cannot be cut; 8 of 20 layers")
    ax = time_figures.gradient_map(deep, Figure().subplots())
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"lif{i}" for i in range(20)]


def test_one_layer_of_several_checkpoints_and_panels():
    both = combine([measured(NORMS, "sdt"), measured(NORMS, "trt", spatial=0.5)])
    ax = time_figures.gradient_norms(both, Figure().subplots(), layer="lif2")
    assert labels(ax) == ["SDT", "TRT"] and "lif2" in ax.get_ylabel()
    for name in ("gradient_norms", "gradient_map"):
        for width in (3.25, 6.75):
            panels = time_figures.draw(name, both, width=width, title="both").axes
            assert [panel.get_title() for panel in panels[:2]] == ["SDT", "TRT"]
    assert panels[0].images[0].norm is panels[1].images[0].norm  # one scale
    assert panels[0].images[0].norm.vmin == 0.01 and panels[0].images[0].norm.vmax == 2.0
    assert panels[0].images[0].get_array().mask.tolist() == [[False] * 3, [True, False, False]]
    assert notes(panels[0]) == ["hatched: zero"] and panels[2].get_ylabel() == "Gradient norm"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda t, ax: time_figures.gradient_norms(t, ax),
            r"the table holds 2 checkpoints; give layer=\.\.\., or draw",
        ),
        (lambda t, ax: time_figures.gradient_map(t, ax), r"the table holds 2 checkpoints; give one, or use draw"),
        (
            lambda t, ax: time_figures.gradient_norms(t, ax, layer="x"),
            r"layer 'x' is not in the table; choose one of lif1, lif2",
        ),
        (
            lambda t, ax: time_figures.gradient_map(t.drop(columns="norm"), ax),
            r"no column 'norm'; give the table of a temporal_g",
        ),
        (
            lambda t, ax: time_figures.gradient_map(pd.concat([t, t]), ax),
            r"timestep 1 occurs twice for one checkpoint; give",
        ),
        (
            lambda t, ax: time_figures.draw("norms", t),
            r"draw: there is no figure 'norms'; choose one of gradient_norms, grad",
        ),
    ],
)
def test_figures_say_what_is_wrong(call, sentence):
    both = combine([measured(NORMS, "sdt"), measured(NORMS, "trt")])
    with pytest.raises(ValueError, match=sentence):
        call(both, Figure().subplots())


def test_figures_do_not_load_torch_and_are_named():
    code = "import sys, snn_probe.drawing.over_time; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    many = measured(NORMS).table
    assert time_figures.figure_names("temporal_gradient_norms", many) == ["gradient_norms", "gradient_map"]
    assert time_figures.figure_names("temporal_gradient_norms", many[many["timestep"] == 1]) == ["gradient_map"]
    assert time_figures.figure_names("fisher_trace", many) == []
