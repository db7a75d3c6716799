"""Probes: plain functions ``probe(model, batches, ...) -> Result`` on any temporal model."""

from snn_probe.probes.fisher import fisher_trace, information_centroid

__all__ = ["fisher_trace", "information_centroid"]
