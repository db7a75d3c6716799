"""``snnprobe train``."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from snn_probe.commands.completion import DATASETS as SETS
from snn_probe.commands.completion import METHODS, one_of, preset_names
from snn_probe.commands.completion import MODELS as NETWORKS
from snn_probe.commands.kinds import Device
from snn_probe.commands.probe_options import DEVICES, DRY_RUN, planned_devices
from snn_probe.commands.train_options import before, class_file, epochs, pairs, stages

_log = logging.getLogger(__name__)


@click.command()
@click.option("--preset", metavar="NAME", shell_complete=preset_names,
              help="Published settings by name (snnprobe presets); other options override them.")  # fmt: skip
@click.option("--method", default="sdt", show_default=True, shell_complete=one_of(*METHODS),
              help="Objective: sdt, tet, trt, or MODULE:NAME of your own.")  # fmt: skip
@click.option(
    "--dataset",
    "--data",
    default="digits",
    show_default=True,
    shell_complete=one_of(*SETS),
    help="Data set by name (snnprobe data lists them), MODULE:FACTORY of your own, or a folder of images or frames by class.",
)
@click.option("--data-root", envvar="SNNPROBE_DATA", type=click.Path(path_type=Path),
              help="Folder of the data sets on the disk.  [$SNNPROBE_DATA]")  # fmt: skip
@click.option("--download", is_flag=True, help="Fetch the data set first if it is missing.")
@click.option("--image-size", type=int, help="Side of square images or frames.  [the data set's own]")
@click.option("--classes", type=click.Path(path_type=Path), callback=class_file, metavar="FILE",
              help="Use these classes alone, one folder name per line (imagenet, image-folder).")  # fmt: skip
@click.option("--model", default="tiny", show_default=True, shell_complete=one_of(*NETWORKS),
              help="tiny, cnn5, vggsnn, vggsnn-woap, resnet19, resnet19-kim, sew-resnet34 or spiking-resnet34; or "
                   "MODULE:FACTORY of your own.")  # fmt: skip
@click.option("--weights", "weights_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Begin from these weights (.pt, .pth, .pth.tar, .safetensors).  [drawn from the seed]")  # fmt: skip
@click.option("--width", default=1.0, show_default=True, help="Scales every channel count of the network.")
@click.option("--neuron", multiple=True, callback=pairs, metavar="NAME=VALUE",
              help="leak, scale_input, threshold, reset, detach_reset, surrogate or sharpness; may be repeated.")  # fmt: skip
@click.option("--num-steps", default=4, show_default=True, help="Timesteps T.")
@click.option("--epochs", default=20, show_default=True)
@click.option("--tit", callback=before, metavar="2:300",
              help="Time inheritance: before that, 300 epochs with 2 timesteps.")  # fmt: skip
@click.option("--switch", callback=before, metavar="sdt:200",
              help="The first 200 of the epochs with SDT, on the same learning-rate schedule.")  # fmt: skip
@click.option("--stage", "stages", multiple=True, callback=stages, metavar="epochs=N,...",
              help="A stage of training: epochs, num_steps, method, optimizer (restart or continue), hyperparameters; "
                   "what it leaves out is as given without stages. Give two or more.")  # fmt: skip
@click.option("--batch-size", default=64, show_default=True, help="Of all processes together.")
@click.option("--learning-rate", default=1e-3, show_default=True, help="Of Adam, before the cosine schedule.")
@click.option("--train-examples", type=int, help="Use the first N training examples, balanced over classes.  [all]")
@click.option(
    "--eval-examples", type=int, help="Evaluate the first N of validation and of test after each epoch.  [all]"
)
@click.option("--augment/--no-augment", default=False, help="The data set's augmentation of training inputs.  [no]")
@click.option("--amp", default="off", show_default=True, help="Precision of the training forward: off, bf16 or fp16.")
@click.option("--channels-last/--no-channels-last", default=False, help="Memory format of images: often faster.  [no]")
@click.option(
    "--compile/--no-compile",
    default=False,
    help="torch.compile forward and penalty: a minute or two once, then shorter steps.  [no]",
)
@click.option("--device", default="cpu", show_default=True, type=Device(), help="cpu, cuda or cuda:N.")
@click.option("--seed", default=0, show_default=True)
@click.option("-p", "hyperparameters", multiple=True, callback=pairs, metavar="NAME=VALUE",
              help="Hyperparameter of the objective; may be repeated.")  # fmt: skip
@click.option("--save-epochs", callback=epochs, metavar="1,5,20", help="Epochs whose checkpoints are kept.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.  [trained_models/<run>]")
@click.option("--resume", is_flag=True, help="Continue the run in its folder exactly where it stopped.")
@click.option(
    "--override", is_flag=True, help="With --resume: go on although the configuration, or the data, are others."
)
@click.option("--deterministic", is_flag=True, help="Deterministic algorithms alone, also on CUDA; often slower.")
@click.option("--tensorboard", is_flag=False, flag_value="", metavar="[DIR]",
              help="Write the metrics for TensorBoard too.  [<out>/tensorboard]")  # fmt: skip
@DRY_RUN
@DEVICES
@click.pass_context
def train(
    ctx: click.Context, out: Path | None, resume: bool, override: bool, deterministic: bool, tensorboard: str | None, save_epochs: list[int], device: str, data_root: Path | None,
    download: bool, weights_file: Path | None, **options: Any,
) -> None:  # fmt: skip
    """Train a network; write its checkpoints and metrics."""
    from snn_probe.data import named
    from snn_probe.distributed import processes, rank
    from snn_probe.machine.determinism import deterministically
    from snn_probe.machine.progress import Progress, Remaining
    from snn_probe.own import allowing
    from snn_probe.runs.run_folder import RunFolder
    from snn_probe.training import train as train_epochs

    devices = planned_devices(options)
    if override and not resume:
        raise click.UsageError("--override changes how a run goes on; give --resume too.")
    if deterministic:
        ctx.with_resource(deterministically())
    options["dataset"], root = named(options["dataset"])
    data_root = root or data_root
    given = {k: v for k, v in options.items() if ctx.get_parameter_source(k) is ParameterSource.COMMANDLINE}
    ctx.with_resource(allowing(_named_code(given)))
    folder = out or Path("trained_models") / _configuration(options, given).run_name()
    if resume and RunFolder(folder).config.exists():
        stored = RunFolder(folder).read_config()
        if given.keys() & {"tit", "switch", "stages"}:  # relative to what is given, not to what they were made into
            stored = {key: value for key, value in stored.items() if key not in _OF_STAGES}
        options = {**options, **stored}
    config = _configuration(options, given)
    beyond = [e for e in save_epochs if not 1 <= e <= config.epochs]
    if beyond:
        raise click.UsageError(f"--save-epochs has {beyond[0]}; give epochs from 1 to {config.epochs}.")
    if config.amp == "fp16" and device == "cpu":
        click.echo("Warning: fp16 is very slow on a CPU; give --amp bf16 or --amp off.", err=True)
    run = RunFolder(folder)
    if resume and not run.config.exists():  # as a job does that is put back into its queue, however far it came
        _log.warning("%s", f"There is no run in {folder} yet; starting a new one.")
    done = _epochs_done(run) if resume else 0
    if devices is not None:
        _plan(config, save_epochs, devices, done=done, data_root=data_root, device=device)
        return
    with processes(device):
        if download:
            _download(config, data_root)
        shown = Progress if rank() == 0 else None
        where: dict[str, Any] = dict(folder=folder, device=device, data_root=data_root, weights=weights_file)
        begin = partial(
            train_epochs, config, resume=resume, override=override, save_epochs=save_epochs, progress=shown, **where
        )
        checkpoints = begin() if tensorboard is None else _followed(begin, tensorboard, folder)
        for _ in Remaining(checkpoints, "training", total=config.epochs - done) if rank() == 0 else checkpoints:
            pass  # training logs each epoch
        if rank() == 0:
            _report_training(run, config.epochs)


def _plan(config: Any, save_epochs: list[int], devices: int, *, data_root: Path | None, **options: Any) -> None:
    """Say what the run, or what is left of it, would cost."""
    from snn_probe.costs.training import training_lines
    from snn_probe.system import resolved

    config = resolved(config, data_root)
    for line in training_lines(config, kept=len(set(save_epochs)), devices=devices, data_root=data_root, **options):
        click.echo(line)


def _epochs_done(run: Any) -> int:
    """How many epochs the run's metrics hold."""
    return max(0, len(run.metrics.read_text(errors="replace").splitlines()) - 1) if run.metrics.exists() else 0


def _named_code(given: dict[str, Any]) -> list[Any]:
    """The code of the user's own that the command line names, which may be imported."""
    stages = [stage.get("method") for stage in given.get("stages", [])]
    return [*(given.get(name) for name in ("model", "dataset", "method")), *stages, (given.get("switch") or [None])[0]]


def _followed(begin: Callable[[], Iterator[Any]], tensorboard: str, folder: Path) -> Iterator[Any]:
    """The epochs, with their metrics written for TensorBoard; nothing is begun if its folder is refused."""
    from snn_probe.runs.tensorboard import to_tensorboard

    def epochs() -> Iterator[Any]:
        yield from begin()

    return to_tensorboard(epochs(), tensorboard or folder / "tensorboard", run=folder)


_OF_STAGES = ("method", "num_steps", "epochs", "hyperparameters", "stages")


def _download(config: Any, data_root: Path | None) -> None:
    """Fetch what is missing of the data set; the first process does."""
    from snn_probe.data import load
    from snn_probe.distributed import dealing, rank, together

    with dealing(), together():
        if rank() == 0:
            load(config.dataset, "train", num_steps=config.num_steps, num_examples=1, root=data_root, download=True,
                 image_size=config.image_size, classes=config.classes)  # fmt: skip


def _configuration(base: dict[str, Any], given: dict[str, Any]) -> Any:
    """``base`` (the defaults, or the run to be resumed), over it the preset's options, over these what was given."""
    from snn_probe.config import RunConfig
    from snn_probe.presets import preset
    from snn_probe.system import check_names

    shorthand = [name for name in ("tit", "switch", "stages") if given.get(name)]
    if len(shorthand) > 1:
        raise click.UsageError("--stage, --tit and --switch exclude each other; give the stages with --stage.")
    try:
        stated = dict(preset(given["preset"]).options) if "preset" in given else {}
        merged = _merged(_merged(base, stated), given)
        for name in ("preset", "tit", "switch"):
            merged.pop(name, None)
        if shorthand:
            if merged.get("stages") and "epochs" not in given:  # of the preset: its last stage is what comes after
                merged["epochs"] = merged["stages"][-1]["epochs"] if "tit" in given else merged["epochs"]
            merged["stages"] = given.get("stages") or _stages_before(merged, given.get("tit"), given.get("switch"))
        config = RunConfig.from_dict(merged)
        check_names(config)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    for name in ("epochs", "num_steps", "method"):
        if name in given and given[name] != getattr(config, name) and not ("tit" in shorthand and name == "epochs"):
            option = name.replace("_", "-")
            raise click.UsageError(
                f"--{option} is {given[name]}, but the stages make it {getattr(config, name)}; change the stages with "
                "--stage."
            )
    return config


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` on ``base``; hyperparameters (of the same method) and the neuron's values one by one."""
    merged = {**base, **over}
    same_method = merged.get("method") == base.get("method")
    for name, kept in (("hyperparameters", same_method), ("neuron", True)):
        values = {**((base.get(name) or {}) if kept else {}), **(over.get(name) or {})}
        merged[name] = values or (None if name == "neuron" else {})
    return merged


def _stages_before(merged: dict[str, Any], tit: tuple[str, int] | None, switch: tuple[str, int] | None) -> list[Any]:
    """The two stages that --tit or --switch stands for."""
    if tit:
        if not tit[0].isdigit():
            raise click.UsageError(f"--tit begins with {tit[0]!r}; give the timesteps before, for example 2:300.")
        return [{"epochs": tit[1], "num_steps": int(tit[0])}, {"epochs": merged["epochs"]}]
    assert switch is not None
    left = merged["epochs"] - switch[1]
    if left < 1:
        raise click.UsageError(f"--switch after {switch[1]} epochs leaves none of {merged['epochs']}; give fewer.")
    return [{"epochs": switch[1], "method": switch[0]}, {"epochs": left, "optimizer": "continue"}]


def _report_training(run: Any, epochs: int) -> None:
    from snn_probe.checkpoint import load

    for kind in ("last", "best"):
        path = run.checkpoint(kind, epochs)
        try:
            checkpoint = load(path)
        except ValueError:  # lost, which training has said
            continue
        row = checkpoint.card["metrics"]
        chosen = "chosen on validation" if kind == "best" else "end of training"
        click.echo(f"{path}  epoch {checkpoint.epoch} ({chosen}): test accuracy {row['test_accuracy']:.2%}")
    click.echo(run.metrics)
