"""Options that the commands measuring networks share, and what they stand for."""

import os
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from snn_probe.commands.completion import DATASETS, MODELS, one_of
from snn_probe.commands.kinds import Device

OBJECTIVES = ("sdt", "tet", "trt")


class ObjectiveName(click.ParamType):
    """One of some names, or package.module:name for an objective of the user's own."""

    name = "objective"

    def __init__(self, *names: str):
        self.names = names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.names and ":" not in str(value):
            self.fail(
                f"{value!r} is not one of {', '.join(map(repr, self.names))}, or package.module:name.", param, ctx
            )
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self.names if name.startswith(incomplete)]

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(self.names)}|MODULE:NAME]"


DRY_RUN = click.option("--dry-run", is_flag=True, help="Say how many passes it is and what it costs in time, memory and "
                       "disk, after a short calibration; write nothing.")  # fmt: skip
DEVICES = click.option("--devices", type=click.IntRange(min=1), metavar="N",
                       help="With --dry-run: on so many devices, or processes that share the work.  [1]")  # fmt: skip


def planned_devices(
    options: dict[str, Any], instead: str = "start processes with torchrun --nproc-per-node={}"
) -> int | None:
    """On how many devices a dry run is to plan, taken from the options; None if it is none. ``instead`` says how the
    command itself is given so many devices."""
    dry_run, devices = options.pop("dry_run"), options.pop("devices")
    if not dry_run:
        if devices is not None:
            raise click.UsageError(f"--devices {devices} is for --dry-run alone; {instead.format(devices)}.")
        return None
    if options.get("as_json"):
        raise click.UsageError("--dry-run and --json exclude each other; a dry run has no results to print.")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise click.UsageError("--dry-run calibrates in one process; leave torchrun out and give --devices N.")
    return devices or 1


def _shared(command: Callable, *, simulates: bool) -> Callable:
    @wraps(command)
    def with_subjects(**options: Any) -> None:
        command(**_with_subjects(options, simulates=simulates))

    wrapped: Callable = with_subjects
    steps = "Simulate up to this T (static images only)  [the run's T]; " * simulates
    for option in reversed(
        (
            click.argument("checkpoints", nargs=-1, metavar="[CKPT...]", type=click.Path(path_type=Path)),
            click.option("--model", "models", multiple=True, metavar="NAME", shell_complete=one_of(*MODELS),
                         help="Without CKPT: the network, by name or as MODULE:FACTORY. With CKPT: the MODULE:FACTORY "
                              "that it names may be imported; may be repeated."),
            click.option("--weights", multiple=True, metavar="FILE", type=click.Path(path_type=Path),
                         help="Weights of --model, trained elsewhere; may be repeated.  [as it is made]"),
            click.option("--data", "datasets", multiple=True, metavar="NAME", shell_complete=one_of(*DATASETS),
                         help="The data, by name, as MODULE:FACTORY, or a folder of images or frames by class; of CKPT "
                              "the one that it names.  [digits]"),
            click.option("--num-steps", type=click.IntRange(min=1), help=f"{steps}Timesteps T of --model.  [4]"),
            click.option("--split", default="train", show_default=True, type=click.Choice(("train", "validation", "test"))),
            click.option("--num-examples", type=click.IntRange(min=1), help="The first N of the split.  [512, or all if fewer]"),
            click.option("--batch-size", default=64, show_default=True, type=click.IntRange(min=1)),
            click.option("--out", type=click.Path(path_type=Path), help="Folder for results and figures.  [reports/<run>]"),
            click.option("--no-figure", is_flag=True, help="Write the results only."),
            click.option("--data-root", envvar="SNNPROBE_DATA", type=click.Path(path_type=Path),
                         help="Folder of the data sets on the disk.  [$SNNPROBE_DATA]"),
            click.option("--device", default="cpu", show_default=True, type=Device(), help="cpu, cuda or cuda:N; full precision."),
            click.option("--deterministic", is_flag=True,
                         help="Deterministic algorithms alone, also on CUDA; often slower."),
            click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of a table."),
            DRY_RUN,
            DEVICES,
        )
    ):  # fmt: skip
        wrapped = option(wrapped)
    return wrapped


shared = partial(_shared, simulates=False)
"""Arguments and options that every probe command has; the command gets ``subjects`` in place of those that say what is
measured."""
shared_simulating = partial(_shared, simulates=True)
"""The same, with ``num_steps`` of checkpoints passed on to the command."""


def _with_subjects(options: dict[str, Any], *, simulates: bool) -> dict[str, Any]:
    """The options with ``subjects`` in place of checkpoints, models, weights and data. What the user has named may be
    imported from here to the end of the command."""
    from snn_probe.machine.determinism import deterministically
    from snn_probe.own import allowing

    options["planned_devices"] = planned_devices(options)
    if options.pop("deterministic"):
        click.get_current_context().with_resource(deterministically())
    checkpoints, models, weights = (options.pop(name) for name in ("checkpoints", "models", "weights"))
    datasets, num_steps = _folders(options, options.pop("datasets")), options.pop("num_steps")
    objectives = options.get("objectives", (options.get("objective"),))
    click.get_current_context().with_resource(allowing((*models, *datasets, *objectives)))
    if simulates:
        options["num_steps"] = num_steps if checkpoints else None
    elif checkpoints and num_steps is not None:
        raise click.UsageError("--num-steps is for --model without CKPT; a checkpoint knows its timesteps.")
    if checkpoints and weights:
        raise click.UsageError("--weights and CKPT exclude each other; a checkpoint has its own weights.")
    _check_files(checkpoints, "a checkpoint file such as <run>/checkpoints/last.pt")
    if checkpoints:
        return {**options, "subjects": _of_checkpoints(checkpoints, {"model": models, "data": datasets})}
    if len(models) != 1 or len(datasets) > 1:
        raise click.UsageError("Give CKPT, or a network by one --model NAME [--weights FILE] [--data NAME].")
    _check_files(weights, "a file of weights: .pt, .pth, .pth.tar or .safetensors")
    chosen = (models[0], weights, datasets[0] if datasets else "digits", num_steps)
    return {**options, "subjects": _of_networks(*chosen, options["data_root"])}


def _check_files(files: tuple[Path, ...], wanted: str) -> None:
    """Each once and there, before anything is measured."""
    places = [file.resolve() for file in files]
    if twice := [file for file in files if places.count(file.resolve()) > 1]:
        raise click.UsageError(f"{twice[0]} is given twice; give each file once.")
    if gone := [file for file in files if not file.exists()]:
        raise ValueError(f"{gone[0]} does not exist; give {wanted}.")


def _folders(options: dict[str, Any], datasets: tuple[str, ...]) -> list[str]:
    """The names of the data sets; one that is a folder is found there."""
    from snn_probe.data import named

    names = []
    for text in datasets:
        name, root = named(text)
        names.append(name)
        options["data_root"] = root or options["data_root"]
    return names


def _of_checkpoints(checkpoints: tuple[Path, ...], given: dict[str, Any]) -> tuple[Any, ...]:
    from snn_probe.checkpoint import load
    from snn_probe.subjects import of_checkpoint

    if any(given.values()):
        configs = [load(file).config for file in checkpoints]
        for option, of_one in (("model", lambda c: c.model), ("data", lambda c: c.dataset)):
            named = list(dict.fromkeys(map(of_one, configs)))
            if other := [name for name in given[option] if name not in named]:
                raise click.UsageError(
                    f"--{option} is {other[0]!r}, but the checkpoints name {', '.join(map(repr, named))}; give that, or "
                    "leave it out."
                )
    return tuple(map(of_checkpoint, checkpoints))


def _of_networks(
    model: str, weights: tuple[Path, ...], dataset: str, num_steps: int | None, data_root: Path | None
) -> tuple[Any, ...]:
    from snn_probe.config import RunConfig
    from snn_probe.subjects import DEFAULT_STEPS, of_network
    from snn_probe.system import check_names

    try:
        config = RunConfig(model=model, dataset=dataset, num_steps=num_steps or DEFAULT_STEPS)
        check_names(config)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return tuple(of_network(config, file, data_root) for file in weights or (None,))


OBJECTIVE = click.option(
    "--objective",
    default="own",
    show_default=True,
    type=ObjectiveName("own", *OBJECTIVES),
    help="Loss to differentiate: the one the checkpoint was trained with (one of your own: name it, and it has the "
    "hyperparameters it was trained with), or another with its defaults.",
)


def objective_of(asked: str, job: Any) -> Any:
    """The objective that ``--objective`` names, for this checkpoint; one of the user's own that it was trained with has
    the hyperparameters that it was trained with."""
    from snn_probe.objectives import OBJECTIVES as BUILT_IN
    from snn_probe.own import is_own
    from snn_probe.own.objective import own_objective
    from snn_probe.subjects import trained_here

    known, stage = trained_here(job.checkpoint), job.checkpoint.stage
    if asked == "own" and not known:
        raise ValueError(
            f"It is not known how {job.file} was trained; name the loss with --objective sdt, tet, trt or MODULE:NAME."
        )
    name = stage.method if asked == "own" else asked
    trained_with = known and name == stage.method
    if is_own(name):
        return own_objective(name, stage.hyperparameters if trained_with else {}, option="--objective")
    return stage.objective() if asked == "own" else BUILT_IN[name]()
