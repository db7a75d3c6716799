"""Passes that networks make, counted by hooks on them."""

from functools import partial

import torch

from snn_probe.probes.operator import CurvatureOperator
from snn_probe.temporal import spiking_layers


class Counted:
    """Passes through all examples of the last layer (for Fisher, which goes back in time, of the first neuron), of calls
    with a whole batch; and curvature products. Of networks that ``module`` builds."""

    def __init__(self, monkeypatch, module, batch, examples, neuron):
        self.batch, self.examples = batch, examples
        self.forward = self.backward = self.products = 0.0
        original, product = module.build_model, CurvatureOperator._product

        def hooked(checkpoint):
            model = original(checkpoint)
            steps = checkpoint.stage.num_steps
            (last,) = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
            layer = next(iter(spiking_layers(model).values())) if neuron else last
            layer.register_forward_hook(partial(self.count, steps))
            return model

        def counted(operator, vector):
            self.products += 1
            return product(operator, vector)

        monkeypatch.setattr(module, "build_model", hooked)
        monkeypatch.setattr(CurvatureOperator, "_product", counted)

    def count(self, steps, layer, args, found):
        lead = found.shape[: 2 if found.shape[0] == steps else 1]
        if lead[-1] != self.batch:  # a check on a few examples
            return
        share = lead.numel() / steps / self.examples
        self.forward += share
        if found.requires_grad:
            found.register_hook(lambda gradient: self.add(share))

    def add(self, share):
        self.backward += share
