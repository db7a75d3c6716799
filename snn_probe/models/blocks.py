"""The pieces the papers' networks share."""

from torch import nn


def lif() -> nn.Module:
    """The neuron of TET and TRT: h[t] = v[t-1]/2 + x[t], a spike where h >= V_th = 1, hard reset to 0, not detached.

    The surrogate derivative is the triangle max(0, 1 - |h - V_th|). The papers spike where h > V_th; SpikingJelly also
    at equality. SpikingJelly's leak is 1 - 1/tau, so its tau = 2 is the papers' tau = 2.
    """
    from spikingjelly.activation_based import neuron, surrogate

    return neuron.LIFNode(
        tau=2.0,
        decay_input=False,
        v_threshold=1.0,
        v_reset=0.0,
        detach_reset=False,
        surrogate_function=surrogate.PiecewiseQuadratic(alpha=1.0),
    )


def conv_bn(inward: int, outward: int) -> tuple[nn.Module, nn.Module]:
    """A 3x3 convolution without bias, kaiming-normal (fan_out) as released, and batch norm over the merged T*N axis."""
    from spikingjelly.activation_based import layer

    conv = layer.Conv2d(inward, outward, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv, layer.BatchNorm2d(outward)
