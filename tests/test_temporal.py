"""The temporal contract: what is accepted, what each broken promise is told, and that probing leaves no trace."""

import random

import networks
import numpy as np
import pytest
import torch
from spikingjelly.activation_based import base, functional, layer, neuron
from torch import nn

from snn_probe.models import build
from snn_probe.temporal import check_temporal, from_spikingjelly, probing, spiking_layers, unrolled

X = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(0))  # N=5, T=3


class Model(nn.Module):
    """Linear on every step of (N, T, F), then ``change``."""

    def __init__(self, change=lambda self, logits, inputs: logits, classes=4):
        super().__init__()
        self.linear, self.change, self.calls = nn.Linear(6, classes), change, 0

    def forward(self, inputs):
        self.calls += 1
        return self.change(self, self.linear(inputs.transpose(0, 1)), inputs)


def test_an_honest_model_gives_t():
    assert check_temporal(Model(), X) == 3
    assert check_temporal(Model(), X[:1]) == 3
    assert check_temporal(Model(), X[:3]) == 3  # N = T
    assert check_temporal(networks.Recurrent(), X) == 3


BROKEN = {
    "rank": (lambda m, z, x: z.mean(0), r"returned shape \(5, 4\); a temporal model returns logits \(T, N, C\)"),
    "type": (lambda m, z, x: (z, None), r"returned tuple; a temporal model returns logits"),
    "swapped": (lambda m, z, x: z.transpose(0, 1), r"time and batch are swapped: return logits\.transpose\(0, 1\)"),
    "examples": (lambda m, z, x: z[:, :2], r"logits \(3, 2, 4\) for 5 examples, not \(T, 5, C\); the second axis must"),
    "classes": (lambda m, z, x: z[..., :1], r"returned 1 logits per example where at least 2 classes"),
    "state": (lambda m, z, x: z + m.calls, r"state is carried over between calls; reset it at the start of forward"),
    "state of every second call": (lambda m, z, x: z + m.calls % 2, r"state is carried over between calls"),
    "state of every third call": (lambda m, z, x: z + 1.0 * (m.calls % 3 == 1), r"state is carried over between calls"),
    "state while a graph is made": (
        lambda m, z, x: z + m.calls * torch.is_grad_enabled(),
        r"state is carried over between calls",
    ),
    "noise": (
        lambda m, z, x: z + torch.randn_like(z),
        r"depend on the random state even in eval mode; remove the noise",
    ),
    "noise of numpy": (
        lambda m, z, x: z + torch.from_numpy(np.random.rand(*z.shape)).to(z),  # noqa: NPY002
        r"depend on the random state even in eval mode; remove the noise \(of a Poisson encoder, say\)",
    ),
    "noise of python": (lambda m, z, x: z * random.random(), r"depend on the random state even in eval mode"),
    "other T": (
        lambda m, z, x: z[: 1 + m.calls % 3],
        r"returned \d timesteps, and \d when called again on the same inp",
    ),
    "no time": (
        lambda m, z, x: z.sum(0),
        r"returned shape \(5, 4\); .* for each timestep and example, before any mean",
    ),
    "no classes": (lambda m, z, x: z.sum(2), r"returned shape \(3, 5\); a temporal model returns logits \(T, N, C\)"),
    "detached": (lambda m, z, x: z.detach(), r"No gradient reaches any trainable parameter from the logits"),
    "hard": (lambda m, z, x: (z > 0).float(), r"No gradient reaches any trainable parameter from the logits"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_each_broken_promise_has_its_sentence(broken):
    change, sentence = BROKEN[broken]
    with pytest.raises(ValueError, match=sentence):
        check_temporal(Model(change), X)


class Poisson(nn.Module):
    """An encoder that draws spikes anew at each call."""

    def __init__(self):
        super().__init__()
        self.body = Model()

    def forward(self, x):
        return self.body(torch.bernoulli(x.sigmoid()))


def test_an_encoder_that_draws_anew_is_noise_and_one_that_seeds_itself_is_not():
    model = Poisson()
    with pytest.raises(
        ValueError, match=r"depend on the random state .*Poisson encoder, say.*that forward seeds itself"
    ):
        check_temporal(model, X)
    drawn = lambda x: torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(0))  # noqa: E731
    model.forward = lambda x: model.body((x.sigmoid() > drawn(x)).to(x))
    assert check_temporal(model, X) == 3


class Insisting(nn.Module):
    """Calls self.train() in its own forward."""

    def __init__(self, part):
        super().__init__()
        self.inner = Norm(part)

    def forward(self, x):
        return self.train().inner(x)


def test_a_network_that_puts_itself_in_training_mode():
    with pytest.raises(
        ValueError, match=r"batch norm 'inner\.norm' uses the statistics of the batch; let it use running"
    ):
        check_temporal(Insisting(nn.BatchNorm1d(8)), X)
    with pytest.raises(
        ValueError, match=r"random state even in eval mode; let 'inner\.norm', which is in training mode"
    ):
        check_temporal(Insisting(nn.Dropout(0.5)), X)
    before = snapshot(model := Insisting(nn.BatchNorm1d(8)).eval())
    with pytest.raises(ValueError, match="depend on the other examples"):
        check_temporal(model, X)
    assert same(before, snapshot(model))
    assert check_temporal(Insisting(nn.LayerNorm(8)), X) == 3


def test_inputs_that_the_network_does_not_take():
    with pytest.raises(
        ValueError, match=r"weights are torch\.float32 but the inputs torch\.float64, .*give inputs\.to"
    ):
        check_temporal(Model(), X.double())
    with pytest.raises(
        ValueError, match=r"weights are torch\.float32 but the inputs torch\.int64, .*inputs\.to\(torch\.fl"
    ):
        check_temporal(Model(), X.long())
    with pytest.raises(RuntimeError, match="mat1 and mat2"):  # nothing to add to what torch says
        check_temporal(Model(), X[..., :5])
    assert check_temporal(Model(lambda m, z, x: z), X) == 3
    converting = Model()
    converting.forward = lambda x: Model.forward(converting, x.float())
    assert check_temporal(converting, X.double()) == check_temporal(converting, X.long()) == 3
    net = nn.Sequential(layer.Conv2d(2, 3, 3), neuron.IFNode(), layer.Flatten(), layer.Linear(3, 4))
    streams, images = torch.rand(3, 4, 2, 3, 3), torch.rand(3, 2, 3, 3)
    for model, wrong, fix in (
        (from_spikingjelly(net), images, r"read as streams .*for static images give num_steps"),
        (
            from_spikingjelly(net, 4),
            streams,
            r"read as images \(N, \.\.\.\), shown 4 times .*for streams give num_steps=None",
        ),
    ):
        with pytest.raises(ValueError, match=rf"The network does not take inputs of shape .*{fix}"):
            check_temporal(model, wrong)


def test_swapped_axes_are_seen_when_n_equals_t():
    with pytest.raises(ValueError, match="time and batch are swapped"):
        check_temporal(Model(BROKEN["swapped"][0]), X[:3])


def test_t_and_classes_that_were_promised():
    with pytest.raises(ValueError, match="returned 3 timesteps where T is 7"):
        check_temporal(Model(), X, num_steps=7)
    with pytest.raises(ValueError, match="returned 4 logits per example where 10 classes are expected"):
        check_temporal(Model(), X, num_classes=10)
    model = networks.convolutional(4)
    model.num_steps = 6  # and the network keeps to it
    assert check_temporal(model, networks.examples(3, 4)[0]) == 6


def test_a_frozen_model_is_told_so():
    model = Model()
    model.requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"Every parameter of the model is frozen .*call model\.requires_grad_\(True\)"
    ):
        check_temporal(model, X)


class Norm(nn.Module):
    """A batch norm between two linear layers, then ``spikes``."""

    def __init__(self, norm, spikes=nn.Identity()):  # noqa: B008
        super().__init__()
        self.inward, self.norm, self.spikes, self.outward = nn.Linear(6, 8), norm, spikes, nn.Linear(8, 4)

    def forward(self, x):
        return torch.stack([self.outward(self.spikes(self.norm(self.inward(step)))) for step in x.unbind(1)])


class AlwaysTraining(nn.BatchNorm1d):
    def train(self, mode=True):
        return super().train(True)


def test_a_batch_norm_in_training_mode():
    """Left in training mode it changes nothing, since probes use eval mode; where that does not help, it is named."""
    model = Norm(nn.BatchNorm1d(8)).train()
    assert check_temporal(model, X) == 3 and check_temporal(model, X[:1]) == 3
    with probing(model):
        probed = model(X)
    assert model.norm.training and torch.equal(probed, model.eval()(X))
    for norm in (nn.BatchNorm1d(8, track_running_stats=False), AlwaysTraining(8)):
        with pytest.raises(
            ValueError, match=r"depend on the other examples .*batch norm 'norm' uses the statistics of"
        ):
            check_temporal(Norm(norm), X)
    for norm in (nn.LayerNorm(8), nn.GroupNorm(2, 8)):
        assert check_temporal(Norm(norm), X) == 3


def test_time_and_batch_swapped_inside_the_network():
    """The shape is right, but a neuron takes examples for timesteps."""

    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.inward, self.outward, self.node = (
                nn.Linear(6, 8),
                nn.Linear(8, 4),
                networks.lif(step_mode="m", v_threshold=0.3),
            )

        def forward(self, x):
            functional.reset_net(self)
            return self.outward(self.node(self.inward(x))).transpose(0, 1)

    for x in (X, X[:3], X[:2]):
        with pytest.raises(
            ValueError, match=r"depend on the other examples of its batch, .*swapped inside the network"
        ):
            check_temporal(Inside(), 3 * x)


def test_probabilities_in_place_of_logits():
    for change in (lambda m, z, x: z.softmax(-1), lambda m, z, x: z.cumsum(0).softmax(2)):
        with pytest.raises(
            ValueError, match=r"returned probabilities \(each row sums to 1\) .*what the softmax is given"
        ):
            check_temporal(Model(change), X)
    one_hot = lambda z: nn.functional.one_hot(z.argmax(-1), z.shape[-1]).to(z) + 0 * z  # noqa: E731
    for fine in (lambda m, z, x: z.log_softmax(-1), lambda m, z, x: one_hot(z)):
        assert check_temporal(Model(fine), X) == 3


SIGMOIDS = {
    "all": lambda m, z, x: z.sigmoid(),
    "steps": lambda m, z, x: torch.stack([step.sigmoid() for step in z]),
    "rows": lambda m, z, x: (
        z.transpose(0, 1).flatten(0, 1).sigmoid().unflatten(0, (-1, 3)).transpose(0, 1).contiguous()
    ),
    "late": lambda m, z, x: torch.cat([step[None].sigmoid() for step in z]),
}


@pytest.mark.parametrize("name", SIGMOIDS)
def test_a_sigmoid_at_the_end_is_warned_of(name):
    with pytest.warns(
        UserWarning,
        match=r"^A sigmoid ends the network, so the model returned prob.* return what the sigmoid is given\.$",
    ):
        assert check_temporal(Model(SIGMOIDS[name]), X) == 3


def test_values_between_0_and_1_are_fine_without_a_sigmoid_at_the_end():
    for fine in (lambda m, z, x: 0.5 + 1e-3 * z, lambda m, z, x: z.sigmoid().mul(2), lambda m, z, x: z.sigmoid().log()):
        assert check_temporal(Model(fine), X) == 3


def test_images_that_are_read_as_streams_are_warned_of():
    net = nn.Sequential(layer.Flatten(), layer.Linear(64, 8), neuron.LIFNode(), layer.Linear(8, 4))
    for channels in (1, 3):
        images = torch.rand(5, channels, 8, 8)
        with pytest.warns(
            UserWarning,
            match=rf"^Inputs of shape \(5, {channels}, 8, 8\) are read as streams of {channels} timesteps; if they are "
            r"images, give num_steps when wrapping the network\.$",
        ):
            assert check_temporal(from_spikingjelly(net), images) == channels
    assert check_temporal(from_spikingjelly(net), torch.rand(5, 4, 8, 8)) == 4
    assert check_temporal(from_spikingjelly(net), torch.rand(5, 3, 2, 32)) == 3
    assert check_temporal(from_spikingjelly(net, num_steps=2), torch.rand(5, 1, 8, 8)) == 2


def test_a_threshold_without_a_surrogate_gradient_is_named_as_a_cause():
    model = Model(lambda m, z, x: m.readout((z > 0).to(z)))
    model.readout = nn.Linear(4, 4)
    with pytest.warns(
        UserWarning, match=r"2 parameters \(linear\.weight, linear\.bias\).*as a threshold without a surrog"
    ):
        check_temporal(model, X)


def test_unused_parameters_are_named():
    model = Model()
    model.spare, model.other = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.warns(
        UserWarning, match=r"No gradient reaches 4 parameters \(spare.weight, .*, \.\.\.\) .*count as zero"
    ):
        check_temporal(model, X)
    model.other.requires_grad_(False)
    model.spare.bias.requires_grad_(False)
    with pytest.warns(
        UserWarning, match=r"No gradient reaches parameter spare\.weight from the logits, because the forw"
    ):
        check_temporal(model, X)
    model.spare.requires_grad_(False)
    assert check_temporal(model, X) == 3


class Careful(nn.Module):
    """A neuron that saves its surrogate for training."""

    def forward(self, x):
        return networks.Spike.apply(x) if self.training else (x >= 0).to(x)


def test_neurons_that_lose_their_surrogate_gradient_in_eval_mode():
    sentence = (
        r"No gradient reaches 4 parameters \(inward.weight, .*\) in eval mode, but .* loses its surrogate gradient"
    )
    for x in (X, X[:1]):
        with pytest.raises(ValueError, match=sentence):
            check_temporal(Norm(nn.BatchNorm1d(8), Careful()), x)
    named = Careful()
    named.surrogate_function = networks.Spike.apply
    assert check_temporal(Norm(nn.BatchNorm1d(8), named), X) == 3
    before = snapshot(model := Norm(nn.BatchNorm1d(8), Careful()))
    with pytest.raises(ValueError, match=sentence):
        check_temporal(model, X)
    assert same(before, snapshot(model))


def test_a_forward_that_takes_a_gradient_of_its_own_passes():
    def change(model, z, x):
        (gradient,) = torch.autograd.grad(z.logsumexp(-1).sum(), z, create_graph=True)
        return z + gradient

    assert check_temporal(Model(change), X) == 3


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_state_of_the_batch_is_called_a_state(count):
    """Whatever the number of examples: a smaller batch would not fit to the state of a larger one."""

    class Kept(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.v = nn.Linear(6, 4), 0.0

        def forward(self, x):
            steps = []
            for one in x.transpose(0, 1):
                self.v = 0.5 * self.v + self.linear(one)
                steps.append(self.v)
            return torch.stack(steps)

    with pytest.raises(ValueError, match="state is carried over between calls"):
        check_temporal(Kept(), X[:count])


class Quiet(nn.Module):
    """Its neuron is far from firing, so that what it carries over shows in no spike of a few examples."""

    def __init__(self, forgets):
        super().__init__()
        self.linear, self.forgets = nn.Linear(6, 4), forgets

    def forward(self, x):
        self.begin(len(x))
        return torch.stack([self.linear(one) + self.spikes(self.linear(one)) for one in x.transpose(0, 1)])


class QuietNode(Quiet):
    def __init__(self, forgets):
        super().__init__(forgets)
        self.node = neuron.LIFNode(v_threshold=50.0)

    def begin(self, count):
        if self.forgets:
            self.node.reset()

    def spikes(self, current):
        return self.node(current)


class QuietByHand(Quiet):
    def __init__(self, forgets):
        super().__init__(forgets)
        self.v, self.calls, self.cache = None, torch.zeros(()), None

    def begin(self, count):
        self.calls = self.calls + 1.0  # of no matter
        self.cache = torch.ones(4) if self.cache is None else self.cache  # made once, used ever after
        if self.forgets or self.v is None or len(self.v) != count:
            self.v = torch.zeros(count, 4)

    def spikes(self, current):
        self.v = 0.5 * self.v + current
        return (self.v >= 50.0).float() * self.cache


@pytest.mark.parametrize("kind", [QuietNode, QuietByHand])
def test_a_state_that_changes_no_logit_of_the_examples_is_found_all_the_same(kind):
    with pytest.raises(ValueError, match="state is carried over between calls"):
        check_temporal(kind(forgets=False), X[:2])
    model = kind(forgets=True)
    before = {name: value for name, value in vars(model).items()}
    assert check_temporal(model, X[:2]) == 3
    assert vars(model) == before


def test_a_spikingjelly_network_without_reset_is_caught_and_with_it_passes():
    net = nn.Sequential(layer.Linear(6, 8), neuron.LIFNode(v_threshold=0.3), layer.Linear(8, 4))
    functional.set_step_mode(net, "m")

    class Forgot(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x.transpose(0, 1))

    with pytest.raises(ValueError, match="state is carried over"):
        check_temporal(Forgot(), 3 * X)
    functional.reset_net(net)
    assert check_temporal(from_spikingjelly(net), 3 * X) == 3


@pytest.mark.parametrize("num_steps", [None, 4])
def test_wrapped_logits_are_those_of_plain_spikingjelly(num_steps):
    model = networks.convolutional(num_steps).eval()
    x, _ = networks.examples(3, num_steps)
    sequence = x.transpose(0, 1) if num_steps is None else x.unsqueeze(0).repeat(num_steps, 1, 1, 1, 1)
    functional.reset_net(model.net)
    expected = model.net(sequence)
    functional.reset_net(model.net)
    for logits in (model(x), model(x), torch.stack(unrolled(model, x))):
        assert torch.allclose(logits, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num_steps", [None, 4])
def test_unrolled_gradients_are_those_of_the_whole(num_steps):
    model = networks.convolutional(num_steps).eval()
    x, y = networks.examples(3, num_steps)
    for t in (1, 3):
        gradients = []
        for logits in (model(x), torch.stack(unrolled(model, x))):
            loss = nn.functional.cross_entropy(logits[:t].mean(0), y)
            gradients.append(torch.autograd.grad(loss, list(model.parameters())))
        assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-14) for a, b in zip(*gradients, strict=True))


def test_training_through_the_shared_first_layers_changes_nothing():
    """Same gradients and running statistics as when the image is repeated T times before the first layer."""
    x, y = networks.examples(4, 3)
    found = []
    for share in (True, False):
        model = networks.convolutional(3)
        functional.reset_net(model.net)
        logits = model(x) if share else model.net(x.unsqueeze(0).repeat(3, 1, 1, 1, 1))
        nn.functional.cross_entropy(logits.mean(0), y).backward()
        found.append([p.grad for p in model.parameters()] + list(model.buffers()))
    assert all(torch.allclose(a.double(), b.double(), rtol=1e-10, atol=1e-14) for a, b in zip(*found, strict=True))


def stem(momentum=0.1, tracked=True):
    """Two batch norms and a pool before the first neuron."""
    torch.manual_seed(0)
    norms = [layer.BatchNorm2d(c, momentum=momentum, track_running_stats=tracked) for c in (3, 4)]
    net = nn.Sequential(
        layer.Conv2d(2, 3, 3, bias=False),
        norms[0],
        layer.Conv2d(3, 4, 3, stride=2),
        norms[1],
        layer.AvgPool2d(2),
        networks.lif(),
        layer.Flatten(),
        layer.Linear(4, 5),
    )
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias, 0.8, 0.3)
    return from_spikingjelly(net, num_steps=4).double().train()


@pytest.mark.parametrize("num_examples", [1, 3])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.6}, {"momentum": None}, {"momentum": 1.0}, {"tracked": False}])
def test_batch_norms_computed_once_in_training_are_those_of_the_copies(options, num_examples):
    """Logits, gradients and running statistics of three training steps, to rounding."""
    found = []
    for share in (True, False):
        model, seen = stem(**options), []
        for step in range(3):
            x, y = networks.examples(num_examples, 4, seed=step)
            functional.reset_net(model.net)
            logits = model(x) if share else model.net(x.unsqueeze(0).repeat(4, 1, 1, 1, 1))
            loss = nn.functional.cross_entropy(logits.mean(0), y)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            seen += [logits, *gradients, *(b.double().clone() for b in model.buffers())]
            with torch.no_grad():
                for p, g in zip(model.parameters(), gradients, strict=True):
                    p -= 0.1 * g
        found.append(seen)
    assert len(found[0]) == 3 * (1 + 9 + (6 if options.get("tracked", True) else 0))
    assert all(a.abs().sum() > 0 for a in found[0][1:3])
    assert all(torch.allclose(a, b, rtol=1e-11, atol=1e-14) for a, b in zip(*found, strict=True))


def test_a_batch_norm_of_one_value_per_channel_is_that_of_its_copies():
    """It has no unbiased variance of its own; T copies of it have."""
    found = []
    for share in (True, False):
        torch.manual_seed(0)
        model = from_spikingjelly(nn.Sequential(layer.BatchNorm1d(6), networks.lif(), layer.Linear(6, 4)), 3).double()
        nn.init.normal_(model.net[0].bias, 1.0)
        x = X[:1, 0].double()
        logits = model(x) if share else model.net(x.repeat(3, 1, 1))
        logits.square().sum().backward()
        found.append([logits, *(p.grad for p in model.parameters()), *(b.double() for b in model.buffers())])
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_layers_before_the_first_neuron_see_a_static_image_once(training):
    model = build("tiny", input_shape=(1, 8, 8), num_classes=10, num_steps=6).train(training)
    seen = []
    for first in model.net[:3]:
        first.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    model(torch.rand(3, 1, 8, 8))
    assert seen == [(1, 3, 1, 8, 8), (1, 3, 32, 8, 8), (6, 3, 32, 8, 8)]


def test_no_graph_or_state_is_left_behind():
    model = networks.convolutional()
    model(networks.examples(3)[0])
    assert all(isinstance(v, float) for m in model.modules() if isinstance(m, base.MemoryModule) for v in m.memories())


@pytest.mark.parametrize("num_steps", [0, -1, 2.0, True, "4"])
def test_bad_num_steps(num_steps):
    with pytest.raises(ValueError, match=r"num_steps is .*; give a whole number of at least 1"):
        from_spikingjelly(nn.Sequential(layer.Linear(2, 2)), num_steps)


def test_bad_networks_and_streams():
    with pytest.raises(ValueError, match=r"net is str; give a torch\.nn\.Module"):
        from_spikingjelly("net")

    class OnlySingle(nn.Identity, base.SingleStepModule):
        step_mode = "s"

    with pytest.raises(ValueError, match=r"Layer '0' \(OnlySingle\) has no multi-step mode"):
        from_spikingjelly(nn.Sequential(OnlySingle()))
    with pytest.raises(ValueError, match=r"inputs have shape \(5, 6\); streams are \(N, T, \.\.\.\)"):
        from_spikingjelly(nn.Sequential(layer.Linear(6, 2)))(X[:, 0])


def test_a_layer_without_single_step_is_not_unrolled():
    net = nn.Sequential(layer.Conv2d(2, 3, 3), layer.ThresholdDependentBatchNorm2d(1.0, 1.0, 3), neuron.LIFNode())
    model = from_spikingjelly(net).double()
    assert unrolled(model, networks.examples(2)[0]) is None
    assert all(m.step_mode == "m" for m in net)


def test_spiking_layers_by_name():
    model = networks.convolutional()
    assert list(spiking_layers(model)) == ["net.2", "net.6", "net.10"]


class Itself:
    """Equal to the same object only."""

    def __init__(self, thing):
        self.thing = thing

    def __eq__(self, other):
        return self.thing is other.thing


def snapshot(model):
    """All that a probe must leave as it was."""
    state = {k: v.detach().clone() for k, v in (*model.state_dict().items(), *model.named_buffers())}
    attributes = [{k: v.clone() for k, v in vars(m).items() if isinstance(v, torch.Tensor)} for m in model.modules()]
    flags = [(m.training, getattr(m, "step_mode", None)) for m in model.modules()]
    grads = [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    memories = [dict(m._memories) for m in model.modules() if hasattr(m, "_memories")]
    hooks = [{k: len(v) for k, v in vars(m).items() if k.endswith("_hooks")} for m in model.modules()]
    names = [[list(vars(m)), list(m._parameters), list(m._buffers), list(m._modules)] for m in model.modules()]
    objects = [Itself(thing) for p in model.parameters() for thing in (p, p.grad)]
    lists = [[list(map(Itself, v)) for v in vars(m).values() if isinstance(v, list)] for m in model.modules()]
    numbers = [{k: v for k, v in vars(m).items() if isinstance(v, int | float | str)} for m in model.modules()]
    chance = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    return state, flags, grads, memories, hooks, attributes, names, objects, lists, numbers, chance


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def disturb(model):
    with probing(model):
        assert not model.net[1].training and model.net[2].training
        model.net[1].running_mean += 1
        torch.randn(3)
        model.net[0].weight.requires_grad_(False)
        model.net[0].weight.grad = torch.ones_like(model.net[0].weight)
        model.net(networks.examples(2)[0].transpose(0, 1))
        model.train()
        raise KeyError("from inside")


def test_probing_restores_everything_also_after_an_exception():
    model = networks.convolutional()
    model.net[3].eval()
    model.net[4].weight.requires_grad_(False)
    model.net[0].weight.grad = torch.full_like(model.net[0].weight, 2.0)
    model.net(networks.examples(2)[0].transpose(0, 1))  # leaves membrane states behind
    before = snapshot(model)
    with pytest.raises(KeyError):
        disturb(model)
    assert same(before, snapshot(model))


class Remembering(nn.Module):
    """States as a network written by hand keeps them: attributes, also changed in place, a list, a number, a buffer, a
    hook, and one made at the first call."""

    def __init__(self):
        super().__init__()
        self.linear, self.potential, self.fixed = nn.Linear(6, 4), torch.zeros(4), torch.ones(4)
        self.register_buffer("trace", torch.zeros(4), persistent=False)

        self.seen, self.calls = [], 0

    def forward(self, x):
        self.calls += 1
        self.seen.append(self.calls)
        self.fixed *= 2
        self.register_forward_hook(lambda module, args, result: None)
        self.potential = self.made = self.linear(x).sum((0, 1))
        self.trace = self.potential * 2
        self.trace += 1
        self.register_buffer("late", torch.zeros(2))
        return self.linear(x.transpose(0, 1))


def test_probing_restores_states_of_every_kind():
    model = Remembering()
    before, trace = snapshot(model), model.trace
    with probing(model):
        model(X)
        trace.add_(1)
    assert same(before, snapshot(model)) and model.trace is trace
    assert not hasattr(model, "made") and not hasattr(model, "late")


def test_probing_restores_the_random_states_of_numpy_and_python_too():
    model = Model()
    before = snapshot(model)
    with probing(model):
        random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
        random.random(), np.random.rand(3), torch.rand(3)  # noqa: NPY002
    assert same(before, snapshot(model))


def test_probing_takes_gradients_inside_no_grad():
    model = Model()
    with torch.no_grad(), probing(model):
        assert model(X).requires_grad
    with torch.inference_mode(), probing(model):
        assert model(X).requires_grad
