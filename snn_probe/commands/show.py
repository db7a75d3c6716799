"""What a file holds, in a few lines for a person."""

from pathlib import Path
from typing import Any

from snn_probe.checkpoint import FORMAT, Checkpoint
from snn_probe.checkpoint import load as load_checkpoint
from snn_probe.machine.files import read_json
from snn_probe.results import load as load_result
from snn_probe.runs.run_folder import RunFolder


def describe(path: Path) -> list[str]:
    """Lines about a checkpoint, a result (JSON) or a run's folder. Raises ValueError for anything else."""
    _check_there(path)
    if path.is_dir():
        return _run(path)
    if path.suffix == ".json" and path.name != "config.json":
        return _result(path)
    return _checkpoint(path)


def document(path: Path) -> dict[str, Any]:
    """The same for machines: a result's own JSON, a checkpoint's card, a run's configuration and files (bytes)."""
    _check_there(path)
    if path.is_dir():
        run = _run_of(path)
        return {"run": str(path), "config": run.read_config(), "files": _files(run)}
    if path.suffix == ".json" and path.name != "config.json":
        load_result(path)
        return read_json(path)
    checkpoint = load_checkpoint(path)
    return {"format": FORMAT, "parameters": _weights(checkpoint), "card": checkpoint.card}


def _check_there(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"{path} does not exist; give a run's folder, a checkpoint or a result.")


def _weights(checkpoint: Checkpoint) -> int:
    """How many numbers a checkpoint holds besides batch norm's statistics."""
    state = checkpoint.state_dict
    return sum(t.numel() for name, t in state.items() if "running_" not in name and "num_batches" not in name)


def _checkpoint(path: Path) -> list[str]:
    checkpoint = load_checkpoint(path)
    card = checkpoint.card
    return [
        f"{path}: checkpoint",
        *_aligned(
            {
                "run": card.get("run"),
                "kind": card.get("kind"),
                "epoch": card["epoch"],
                **_flat(card["config"]),
                "parameters": _weights(checkpoint),
                **{f"metrics.{name}": value for name, value in (card.get("metrics") or {}).items()},
                **_flat(card.get("environment") or {}),
                "sha256": card["sha256"],
            }
        ),
    ]


def _result(path: Path) -> list[str]:
    result = load_result(path)
    rows = result.table.head(12).to_string(index=False).splitlines()
    more = [f"  ... {len(result.table) - 12} more rows"] if len(result.table) > 12 else []
    source = {"measured on": f"{result.source.get('run')}, epoch {result.source.get('epoch')}"} if result.source else {}
    facts = {**source, **_flat(result.settings), **_flat(result.environment)}
    return [f"{path}: result of {result.probe}", *_aligned(facts), *(f"  {row}" for row in rows), *more]


def _run_of(path: Path) -> RunFolder:
    run = RunFolder(path)
    if not run.config.exists():
        raise ValueError(f"{path} holds no config.json; give a run's folder, a checkpoint or a result.")
    return run


def _files(run: RunFolder) -> dict[str, int]:
    """The run's files, relative to its folder, and their sizes in bytes."""
    return {str(p.relative_to(run.path)): p.stat().st_size for p in sorted(run.path.rglob("*")) if p.is_file()}


def _run(path: Path) -> list[str]:
    run = _run_of(path)
    sizes = [f"  {name}  {size / 1024:.0f} KiB" for name, size in _files(run).items()]
    return [f"{run.path}: run", *_aligned(_flat(run.read_config())), *sizes]


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _aligned(facts: dict[str, Any]) -> list[str]:
    width = max(map(len, facts), default=0)
    return [
        f"  {key:<{width}}  {f'{value:.6g}' if isinstance(value, float) else value}" for key, value in facts.items()
    ]
