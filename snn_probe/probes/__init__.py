"""Probes: plain functions ``probe(model, batches, ...) -> Result`` on any temporal model, and functions of their tables."""

from snn_probe.probes.activity import energy_ratio, spiking_activity
from snn_probe.probes.fisher import fisher_trace, information_centroid
from snn_probe.probes.gradients import gradient_ratio, temporal_gradient_norms
from snn_probe.probes.hessian import hessian_density, hessian_eigenvalues, hessian_eigenvectors, hessian_trace
from snn_probe.probes.landscape import loss_slice
from snn_probe.probes.timesteps import timestep_accuracy

__all__ = [
    "energy_ratio",
    "fisher_trace",
    "gradient_ratio",
    "hessian_density",
    "hessian_eigenvalues",
    "hessian_eigenvectors",
    "hessian_trace",
    "information_centroid",
    "loss_slice",
    "spiking_activity",
    "temporal_gradient_norms",
    "timestep_accuracy",
]
