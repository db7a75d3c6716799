"""Shell completion: the script that a shell reads once, and the names that options complete.

The names are written out here, because a key press must not wait for torch; a test compares them with the registries.
"""

from collections.abc import Callable

import click

METHODS = ("sdt", "tet", "trt")
DATASETS = (
    "digits", "event-digits", "cifar10", "cifar100", "imagenet", "image-folder", "cifar10-dvs", "n-caltech101",
    "dvs128-gesture", "n-mnist",
)  # fmt: skip
MODELS = ("tiny", "cnn5", "vggsnn", "vggsnn-woap", "resnet19", "resnet19-kim", "sew-resnet34", "spiking-resnet34")

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def one_of(*names: str) -> Complete:
    """For an option's ``shell_complete``: those of the names that begin with what is typed."""
    return lambda ctx, param, incomplete: [name for name in names if name.startswith(incomplete)]


def preset_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """As :func:`one_of`, of the published settings."""
    from snn_probe.presets import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and their values on TAB.

    bash: eval "$(snnprobe completion bash)" in ~/.bashrc; zsh the same in ~/.zshrc; fish: snnprobe completion fish >
    ~/.config/fish/completions/snnprobe.fish
    """
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None  # these three are click's own
    click.echo(script(ctx.find_root().command, {}, "snnprobe", "_SNNPROBE_COMPLETE").source())
