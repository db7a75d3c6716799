"""How much a result of each kind of a recipe's probes goes through, told from one such result."""

from snn_probe.costs.curvature_efforts import typical_products
from snn_probe.costs.passes import CHECKS, FORWARD, FORWARD_AND_BACKWARD, curvature_passes, fisher_passes
from snn_probe.measurement import Passes
from snn_probe.results import Result
from snn_probe.studies.recipe_probes import Probe

KEEPING = ("eigenvalues", "hessian_trace", "density", "landscape", "plane", "eigenslice")
"""The kinds that keep something of every example, so that their memory grows with these."""


def passes_of(probe: Probe, found: Result, batch: int) -> Passes:
    """Passes through all examples, ``batch`` of them at a time. As many products for eigenvalues as ``found`` took; for
    the eigenvector of a slice, which does not say it, what is typical."""
    settings, options = found.settings, probe.options
    match probe.kind:
        case "fisher" | "fisher_batch_mean":
            return fisher_passes(settings, batch)
        case "eigenvalues":
            return curvature_passes(settings, int(found.table["products"].iloc[0]) + CHECKS)
        case "hessian_trace":
            return curvature_passes(settings, options["num_probes"])
        case "density":
            return curvature_passes(settings, options["num_probes"] * options["num_steps"])
        case "landscape":
            return options["num_directions"] * options["points"], 0, 0
        case "plane":
            return options["points"] ** 2, 0, 0
        case "eigenslice":
            return 1 + options["points"], 1, typical_products(1, "hessian") + CHECKS
        case "gradients":
            return FORWARD_AND_BACKWARD
    return FORWARD
