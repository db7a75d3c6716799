"""What two processes do for test_distributed.py: every probe, commands and training, in one start of both."""

import contextlib
import os
import traceback
import warnings
from datetime import timedelta
from pathlib import Path

import networks
import torch
from commands import run
from test_temporal import same, snapshot
from torch.distributed import FileStore, destroy_process_group, init_process_group
from torch.multiprocessing import spawn

from snn_probe import distributed, probes, training
from snn_probe.config import RunConfig
from snn_probe.distributed import dealing
from snn_probe.objectives import SDT, TET, TRT
from snn_probe.runs import one_epoch

PROBES = {
    "fisher": lambda model, batches: probes.fisher_trace(model, batches),
    "fisher of groups": lambda model, batches: probes.fisher_trace(model, batches, group_size=3),
    "fisher of sampled labels": lambda model, batches: probes.fisher_trace(model, batches, labels="sampled", seed=3),
    "fisher of groups of sampled labels": lambda model, batches: probes.fisher_trace(
        model, batches, group_size=2, labels="sampled", readout="instantaneous"
    ),
    "gradients": lambda model, batches: probes.temporal_gradient_norms(model, batches, TET()),
    "timesteps": lambda model, batches: probes.timestep_accuracy(model, batches),
    "activity": lambda model, batches: probes.spiking_activity(model, batches),
    "landscape": lambda model, batches: probes.loss_slice(
        model, batches, [SDT(), TET()], alphas=(-1.0, 0.0, 1.0), betas=(0.0, 0.5)
    ),
    "eigenvalues": lambda model, batches: probes.hessian_eigenvalues(model, batches, TRT(), k=2, tol=1e-5),
    "one eigenvalue": lambda model, batches: probes.hessian_eigenvalues(model, batches, TET(), k=1, tol=1e-2),
    "eigenvalues of few parameters": lambda model, batches: probes.hessian_eigenvalues(
        model, batches, SDT(), k=4, tol=1e-6, operator="ggn", params=lambda name: name == "net.1.bias"
    ),
    "trace": lambda model, batches: probes.hessian_trace(model, batches, TRT(strength=0.1), num_probes=3),
    "density": lambda model, batches: probes.hessian_density(
        model, batches, TET(), num_probes=2, num_steps=5, operator="ggn", forward="relaxed"
    ),
}
SEVERAL = ("fisher", "gradients", "timesteps", "activity", "landscape", "trace")
SIZES = {"ragged": (4, 3, 3, 1), "one batch": (5,)}  # of one batch the second process has nothing

RUN = dict(dataset="digits", num_steps=2, learning_rate=0.01, method="trt", train_examples=33, batch_size=4, epochs=2)
"""33 examples in batches of 4: in the last step the second process has no example of its own."""


def batches(sizes, **options):
    """Batches of these sizes for ``networks.convolutional()``."""
    x, y = networks.examples(sum(sizes), **options)
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


class Spoilt:
    """Batches whose ``bad``-th makes the model fail; all pass the checks of what the probe is given."""

    def __init__(self, bad, value):
        self.pairs = batches((2, 2, 2, 2))
        self.pairs[bad][0][:] = value

    def __iter__(self):
        return iter(self.pairs)


def spoilt_model(kind):
    """``networks.convolutional()``, but inputs of 77 give logits that are not finite or an error."""
    model, spoilt = networks.convolutional(), False

    def look(module, args):
        nonlocal spoilt
        spoilt = bool((args[0] == 77).all())

    def spoil(module, args, logits):
        if spoilt and kind == "error":
            raise KeyError("planted")
        return logits * float("nan") if spoilt else None

    model.net[0].register_forward_pre_hook(look)
    model.net[-1].register_forward_hook(spoil)
    return model


def measured(probe, model, examples):
    """What a probe gives and whether it left the model alone; or the error it ends with."""
    before = snapshot(model)
    try:
        result = probe(model, examples)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "pure": same(before, snapshot(model))}
    return {"table": result.table, "settings": result.settings, "environment": result.environment,
            "pure": same(before, snapshot(model))}  # fmt: skip


def calls(probe):
    """How often a probe runs the network on twelve batches of one example."""
    model, count = networks.convolutional(), 0

    def add(module, args):
        nonlocal count
        count += 1

    model.net[0].register_forward_pre_hook(add)
    probe(model, batches((1,) * 12))
    return count


def failures(probe):
    """A probe whose second process fails, and one whose first does."""
    cases = (("error", 2), ("error", 3), ("nan", 3))
    return {(kind, bad): measured(probe, spoilt_model(kind), Spoilt(bad, 77.0)) for kind, bad in cases}


def resumed(rank, folder):
    """A slice of which the first process alone knows a part; whether ``save`` was called."""
    model, examples, saved = networks.convolutional(), batches((3, 3, 2)), []
    part = probes.loss_slice(model, examples, [SDT()], alphas=(0.0, 1.0), seed=2)
    known = part if rank == 0 else None
    if rank == 0:
        known.table.loc[known.table["alpha"] == 1.0, "loss"] = 123.0  # so that it shows that it was not measured anew
    grid = dict(alphas=(0.0, 1.0), seed=2, save=saved.append)
    table = probes.loss_slice(model, examples, [SDT()], resume=known, **grid).table
    fresh = probes.loss_slice(model, examples, [SDT()], alphas=(0.5, 2.0), seed=2, save=saved.append).table
    return table, fresh, len(saved)


def trained(folder, **options):
    """Train in ``folder``; metrics of each epoch, the weights after each, and this process's shares of each step."""
    shares, share = [], one_epoch.share

    def noted(indices):
        shares.append((indices, *share(indices)))
        return shares[-1][1:]

    one_epoch.share = noted
    try:
        epochs = training.train(RunConfig(**RUN), folder=folder, **options)
        found = [(c.card["metrics"], c.state_dict, c.card["environment"]["processes"]) for c in epochs]
    finally:
        one_epoch.share = share
    return {"epochs": found, "shares": shares}


def first_epoch(folder):
    epochs = training.train(RunConfig(**RUN), folder=folder)
    next(epochs)
    epochs.close()


def all_commands(checkpoint, out):
    """Every probe command on a checkpoint; what each printed."""
    common = ["--num-examples", 12, "--batch-size", 5, "--no-figure"]
    lines = {
        "fisher": ["--labels", "sampled", "--group-size", 2],
        "hessian": ["-k", 1, "--tol", 0.01, "--num-probes", 2, "--layer", "net.bn2"],
        "gradients": [],
        "timesteps": [],
        "activity": ["--json"],
        "landscape": ["--points", 3, "--along", "eigenvectors"],
    }
    return {name: run(name, checkpoint, "--out", out, *common, *own).output for name, own in lines.items()}


def failing_command(checkpoint, blocked):
    """One that fails where the first process writes."""
    return run("timesteps", checkpoint, "--num-examples", 8, "--out", blocked, status=1).output


def _work(rank, folder, checkpoint):
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    torch.manual_seed(100 + rank)  # what is random must not come from the process's own state
    store = FileStore(str(folder / "store"), 2)
    init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=50))
    found = {}
    try:
        if rank == 1:
            found["alone"] = measured(PROBES["timesteps"], networks.convolutional(), batches((3, 2)))
        with dealing():
            for name, probe in PROBES.items():
                for sizes in SIZES:
                    found[name, sizes] = measured(probe, networks.convolutional(), batches(SIZES[sizes]))
            for name in ("one eigenvalue", "fisher"):
                single = networks.convolutional(double=False)
                examples = batches((4, 3, 3), dtype=torch.float32)
                found[name, "single precision"] = measured(PROBES[name], single, examples)
            for name in SEVERAL:
                found[name, "failing"] = failures(PROBES[name])
                found[name, "calls"] = calls(PROBES[name])
            found["resumed"] = resumed(rank, folder)
        found["members outside"] = distributed.members()
        (folder / "blocked").write_text("a file where a folder should be") if rank == 0 else None
        found["commands"] = all_commands(checkpoint, folder / "two")
        found["failing command"] = failing_command(checkpoint, folder / "blocked")
        found["trained"] = trained(folder / "run")
        first_epoch(folder / "from two to one")
        found["from one to two"] = trained(folder / "from one to two", resume=True)
        found["taken"] = measured(lambda *_: trained(folder / "run"), networks.lif(), None)
    except BaseException:
        (folder / f"{rank}.txt").write_text(traceback.format_exc())
        raise
    finally:
        torch.save(found, folder / f"{rank}.pt")
        with contextlib.suppress(Exception):
            destroy_process_group()


def both(folder: Path, checkpoint: Path) -> list[dict]:
    """What each of two processes found."""
    os.environ.pop("RANK", None)
    first_epoch(folder / "from one to two")
    spawn(_work, args=(folder, checkpoint), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
