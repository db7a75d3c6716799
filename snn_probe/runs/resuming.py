"""Taking a run's folder: what is in it is gone on with if it is of this configuration and these data, and made whole."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch

from snn_probe.checkpoint import Checkpoint, load, make_checkpoint, save
from snn_probe.config import RunConfig
from snn_probe.data import SPLITS, fingerprint
from snn_probe.distributed import dealing, rank, together, world_size
from snn_probe.machine.files import check_room, remove_leftovers, shortened
from snn_probe.machine.folder_lock import locked
from snn_probe.results import environment
from snn_probe.runs.run_folder import RunFolder, described, differing
from snn_probe.runs.state import Position, TrainingState

_OTHERWISE = "or let it go on otherwise with --override (override=True)."

_log = logging.getLogger(__name__)


def take(
    state: TrainingState,
    run: RunFolder,
    held: ExitStack,
    splits: Mapping[str, Any],
    *,
    resume: bool,
    override: bool,
) -> None:
    """Lock the run's folder and begin or continue what is in it, if there is room for what training will write.

    ``splits`` are those of the first stage. Raises ValueError where the folder, or the state saved in it, is of another
    configuration or of other data, unless ``override``: then it goes on with these, and says so in the log.
    """
    kept, config, others = list(state.kept), state.config.to_dict(), ""
    saved: dict[str, Any] | None = None
    with dealing(), together():
        if rank() == 0:
            held.enter_context(locked(run.path))
            for folder in (run.path, run.path / "checkpoints"):
                remove_leftovers(folder)
            check_room(run.path, _bytes_to_write(state, run), "The run")
            run.begin(config, resume=resume, override=override, complete=complete)
    with dealing(), together():
        changed = described(run.changes(config, complete))  # none, unless they are to be overridden
        state.data = identity(state, splits)
        if resume and (saved := run.read_resume()) is not None:
            others = _other_data(saved["plain"].get("data"), state.data)
            if not override:
                _refuse_others(state, saved, run, others)
            changed = changed or _other_configuration(saved["plain"].get("config"), config)
            restore(state, saved, run, ", ".join(filter(None, (changed, others))))
            _refuse_lost(kept, state, run)
    with dealing(), together():
        if rank() == 0:
            _go_on(state, run, saved, changed, others)


def identity(state: TrainingState, splits: Mapping[str, Any]) -> dict[str, Any]:
    """What tells the data of a run from others, for JSON: the number of classes, and of each split the number of
    examples and a SHA-256."""
    return {"classes": state.network["num_classes"], **{name: [*fingerprint(splits[name])] for name in SPLITS}}


def complete(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration with what did not exist yet when it was written, at its default."""
    return RunConfig.from_dict(stored).to_dict()


def last_checkpoint(state: TrainingState, name: str) -> Checkpoint:
    """The checkpoint "last" of a state that stands at the end of an epoch."""
    place = environment(
        device=str(state.device),
        threads=torch.get_num_threads(),
        processes=world_size(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    card = dict(run=name, kind="last", epoch=state.epoch, metrics=state.rows[-1], environment=place)
    return make_checkpoint(state.step.model, state.config, state.network, **card)


def restore(state: TrainingState, saved: dict[str, Any], run: RunFolder, others: str = "") -> None:
    """Go on from ``saved``. ``others`` says in what it is of another configuration or of other data, if it is: then an
    epoch that was left within begins anew."""
    if others and (done := saved["plain"]["epoch"]) > state.config.epochs:
        raise ValueError(f"The run in {run.path} has done {done} epochs; give --epochs of at least that.")
    try:
        state.restore(saved)
    except Exception as error:  # what a file that was made by hand holds can raise anything
        if others:
            raise ValueError(
                f"The weights of the run in {run.path} do not fit the other configuration ({others}); "
                "resume it as it was begun, or choose another folder with --out."
            ) from None
        raise ValueError(
            f"{run.resume} does not fit the run ({shortened(str(error))}); restore it from a copy, or train anew "
            "in another folder."
        ) from None
    if others and state.position is not None:
        state.position = Position(state.position.epoch)


def _other_configuration(stored: Any, config: Mapping[str, Any]) -> str:
    """In what a saved state's configuration differs, in words; "" if in nothing."""
    if not isinstance(stored, dict):
        return "the state saved does not say which it is of"
    try:
        return described(differing(complete(stored), config))
    except ValueError as error:
        return f"the state saved has one that cannot be used: {shortened(str(error))}".rstrip(".")


def _other_data(stored: Any, data: Mapping[str, Any]) -> str:
    """In what a saved state's data differ, in words; "" if in nothing."""
    if not isinstance(stored, dict):
        return "the state saved does not say which it is of"
    found = []
    for name, new in data.items():
        old = stored.get(name)
        if name == "classes" and old != new:
            found.append(f"classes {shortened(repr(old))} -> {new}")
        elif old != new:
            count = old[0] if isinstance(old, list) and old else None
            counts = f"{shortened(repr(count))} -> {new[0]} {name} examples"
            found.append(counts if count != new[0] else f"other {name} examples")
    return ", ".join(found)


def _refuse_others(state: TrainingState, saved: dict[str, Any], run: RunFolder, others: str) -> None:
    """ValueError for a saved state of another configuration or of other data than the run's."""
    stored = saved["plain"].get("config")
    if stored is None:  # written before this was kept
        raise ValueError(
            f"The state saved in {run.path} does not say of which configuration and data it is; train anew in another "
            f"folder, {_OTHERWISE}"
        )
    if changed := _other_configuration(stored, state.config.to_dict()):
        raise ValueError(
            f"The state saved in {run.path} is of another configuration than the run ({changed}); restore the run's "
            f"own resume.pt, or its config.json, train anew in another folder, {_OTHERWISE}"
        )
    if others:
        raise ValueError(
            f"The data of the run in {run.path} are not those it was begun with ({others}); restore them, choose "
            f"another folder with --out, {_OTHERWISE}"
        )


def _go_on(state: TrainingState, run: RunFolder, saved: dict[str, Any] | None, changed: str, others: str) -> None:
    """Write what the run's folder lacks, or has otherwise, of the state that it goes on from."""
    if changed:
        _log.warning("%s", f"The run in {run.path} goes on with another configuration ({changed}).")
    if others:
        _log.warning("%s", f"The run in {run.path} goes on with other data ({others}).")
    if saved is not None and (changed or others):
        run.write_resume(state.saved())
    if changed:
        run.write_config(state.config.to_dict())
    if saved is not None and state.epoch:
        _mend(state, run, at_end=saved["plain"].get("position") is None)


def _mend(state: TrainingState, run: RunFolder, *, at_end: bool) -> None:
    """Write metrics.csv, last.pt and best.pt again where they are not those of the state, which may stand ``at_end`` of
    its last epoch. A kill may have left them an epoch ahead, which training will write again."""
    written = []
    if run.mend_metrics(state.rows, ended=state.epoch == state.config.epochs):
        written.append(run.metrics)
    paths = {kind: run.checkpoint(kind, state.epoch) for kind in ("last", "best")}
    last = last_checkpoint(state, run.name) if at_end else None
    there = _readable(paths["last"])
    if last is not None and (there is None or _of(there) != _of(last)):
        save(last, paths["last"])
        written.append(paths["last"])
    best, there = state.best_epoch, _readable(paths["best"])
    ahead = there is not None and state.epoch < there.epoch <= state.config.epochs
    if best is not None and not ahead and (there is None or there.epoch != best):
        found = last if best == state.epoch else _readable(run.checkpoint("epoch", best))
        if found is not None and found.epoch == best:
            save(found.of_kind("best"), paths["best"])
            written.append(paths["best"])
        else:
            _log.warning("%s", f"{paths['best']} is not that of epoch {best}, the best, whose weights nothing else "
                               "here holds; restore it from a copy.")  # fmt: skip
    for path in written:
        _log.info("%s", f"{path} was missing or another one; it was written again as of epoch {state.epoch}.")


def _of(checkpoint: Checkpoint) -> tuple[int, str]:
    return checkpoint.epoch, checkpoint.card["sha256"]


def _readable(path: Any) -> Checkpoint | None:
    try:
        return load(path)
    except ValueError:
        return None


def _bytes_to_write(state: TrainingState, run: RunFolder) -> int:
    """What checkpoints and two states to resume from (weights and two moments) will take beyond what is there, with
    one more of these while it is written."""
    weights = sum(tensor.nbytes for tensor in state.step.model.state_dict().values())
    there = sum(file.stat().st_size for file in run.path.rglob("*.pt"))
    return max((2 + len(state.kept) + 3 * 3) * weights - there, 3 * weights)


def _refuse_lost(kept: list[int], state: TrainingState, run: RunFolder) -> None:
    lost = [e for e in kept if e <= state.epoch and not run.checkpoint("epoch", e).exists()]
    if lost:
        raise ValueError(
            f"save_epochs has {lost[0]}, but the run in {run.path} is past epoch {lost[0]} and did not keep it;"
            " leave it out, or train anew in another folder."
        )
