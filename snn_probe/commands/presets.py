"""``snnprobe presets``."""

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON instead.")
def presets(as_json: bool) -> None:
    """The published settings that train --preset takes, with their sources."""
    from snn_probe.config import RunConfig
    from snn_probe.presets import PRESETS
    from snn_probe.results import strict_json

    if as_json:
        full = {name: (RunConfig.from_dict(entry.options).to_dict(), entry) for name, entry in PRESETS.items()}
        said = {n: {"config": config, "source": e.source, "published": e.published} for n, (config, e) in full.items()}
        click.echo(strict_json(said))
        return
    for name, entry in PRESETS.items():
        config = RunConfig.from_dict(entry.options)
        stages = ", then ".join(f"{s.method} T={s.num_steps} for {s.epochs} epochs" for s in config.schedule())
        click.echo(f"{name}\n  {config.dataset}, {config.model}, {stages}, batch {config.batch_size}")
        own = {key: value for key, value in config.hyperparameters.items() if key in entry.options["hyperparameters"]} \
            if "hyperparameters" in entry.options else {}  # fmt: skip
        if own:
            click.echo("  " + ", ".join(f"{key}={value:g}" for key, value in own.items()))
        augmented = "augmentation" if config.augment else "no augmentation"
        click.echo(f"  Adam {config.learning_rate:g}, amp {config.amp}, {augmented}")
        if config.neuron:
            options = (f"{key}={value}" for key, value in entry.options["neuron"].items())
            click.echo(f"  neuron {', '.join(options)}")
        click.echo(f"  source: {entry.source}\n  published: {entry.published}")
