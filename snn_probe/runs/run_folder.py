"""A run's folder: config.json, metrics.csv, checkpoints/{last,best,epoch_0005}.pt, resume.pt and resume.previous.pt.

Every file is written whole or not at all. resume.pt is written last in an epoch and holds the metrics' rows too, so a
run that was stopped anywhere goes on from its last complete epoch, without a lost or repeated row. Within an epoch it
is written when a signal asks for the end, and every ten minutes. resume.previous.pt is the one before, should the disk
spoil the last.
"""

import csv
import io
import json
import logging
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from snn_probe.machine.files import read_json, read_text, shortened, write_atomically
from snn_probe.own.weights import not_finite, plain_tensors, unpacks_to_more

RESUME_FORMAT = "snn_probe.resume/1"

Changes = dict[str, tuple[Any, Any]]
Complete = Callable[[dict[str, Any]], dict[str, Any]]

_log = logging.getLogger(__name__)


class RunFolder:
    """The paths of one run and the writing of its files."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.name = self.path.resolve().name
        self.config, self.metrics = self.path / "config.json", self.path / "metrics.csv"
        self.resume, self.previous = self.path / "resume.pt", self.path / "resume.previous.pt"

    def checkpoint(self, kind: str, epoch: int) -> Path:
        """Path of a checkpoint of this kind ("last", "best" or "epoch") and epoch."""
        return self.path / "checkpoints" / (f"epoch_{epoch:04d}.pt" if kind == "epoch" else f"{kind}.pt")

    def begin(
        self,
        config: Mapping[str, Any],
        *,
        resume: bool,
        override: bool = False,
        complete: Complete = lambda stored: stored,
    ) -> None:
        """Take the folder for a run with this configuration; refuse one that another run has taken.

        ``complete`` adds to the configuration found there what an earlier version did not write. With ``override``
        another configuration is not refused; config.json stays as it is until :meth:`write_config`.
        """
        if self.config.exists():
            if not resume:
                self.read_config()
                raise ValueError(
                    f"{self.path} already holds a run; continue it with --resume (resume=True), "
                    "or choose another folder with --out."
                )
            changed = self.changes(config, complete)
            if changed and not override:
                raise ValueError(
                    f"The run in {self.path} has another configuration ({described(changed)}); "
                    "resume it as it was begun, choose another folder with --out, or let it go on otherwise with "
                    "--override (override=True)."
                )
            return
        found = [place.name for place in (self.metrics, self.resume, self.path / "checkpoints") if place.exists()]
        if found:
            raise ValueError(
                f"{self.path} holds {', '.join(found)} but no config.json, so nobody knows of which run; "
                "choose another folder with --out."
            )
        self.write_config(config)

    def changes(self, config: Mapping[str, Any], complete: Complete = lambda stored: stored) -> Changes:
        """In what ``config`` differs from config.json: (stored, given) by key."""
        stored = self.read_config()
        try:
            stored = complete(stored)
        except ValueError as error:
            raise ValueError(f"{self.config} cannot be used: {shortened(str(error))}") from None
        return differing(stored, config)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """config.json."""
        write_atomically(self.config, json.dumps(dict(config), indent=2) + "\n")

    def read_config(self) -> dict[str, Any]:
        """The configuration the run was begun with."""
        try:
            found = read_json(self.config)
        except FileNotFoundError:
            raise ValueError(
                f"{self.path} holds no run, for it has no {self.config.name}; give a run's folder."
            ) from None
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict):
            raise ValueError(f"{self.config} cannot be read as JSON; restore it or choose another folder with --out.")
        return found

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """metrics.csv, one row per epoch; numbers in full precision."""
        write_atomically(self.metrics, _table(rows))

    def mend_metrics(self, rows: list[dict[str, Any]], *, ended: bool) -> bool:
        """Write metrics.csv unless it holds these rows already, and no others where the run has ``ended``; whether it
        was written."""
        try:
            found = read_text(self.metrics)
        except (OSError, ValueError):
            found = ""
        wanted = _table(rows)
        if found == wanted or (not ended and found.startswith(wanted)):
            return False
        write_atomically(self.metrics, wanted)
        return True

    def write_resume(self, state: Mapping[str, Any]) -> None:
        """resume.pt: what training needs to go on, weights included. The one before stays, as resume.previous.pt."""
        buffer = io.BytesIO()
        torch.save({**state, "format": RESUME_FORMAT, "plain": json.dumps(state["plain"])}, buffer)
        write_atomically(self.resume, buffer.getvalue(), previous=self.previous)

    def read_resume(self) -> dict[str, Any] | None:
        """The state that :meth:`write_resume` wrote; the one before it where that is lost or broken, which is named in
        the log; None if the run has saved none. Raises ValueError where what there is cannot be used."""
        there = [place for place in (self.resume, self.previous) if place.exists()]
        broken: list[str] = []
        for place in there:
            try:
                state = _read_state(place)
            except ValueError as error:
                broken.append(str(error))
                continue
            if broken:
                _log.warning("%s", f"{broken[0]}; going on from {place.name}, after epoch {state['plain']['epoch']}.")
            return state
        if broken:
            raise ValueError(f"{broken[0]}; restore it from a copy, or train anew in another folder.")
        return None


def differing(stored: Mapping[str, Any], given: Mapping[str, Any]) -> Changes:
    """In what two configurations differ: (stored, given) by key."""
    return {key: (stored.get(key), given.get(key)) for key in {**stored, **given} if stored.get(key) != given.get(key)}


def described(changed: Changes) -> str:
    """Changes in words."""
    return ", ".join(f"{key} {shortened(repr(old))} -> {shortened(repr(new))}" for key, (old, new) in changed.items())


def _table(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _not_strict(token: str) -> None:
    raise ValueError(f"{token} is not JSON")


def _read_state(place: Path) -> dict[str, Any]:
    """The state in this file; ValueError, without what to do, where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch explains foreign files at length
            if not place.is_file() or unpacks_to_more(place):
                raise zipfile.BadZipFile
            state = torch.load(place, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or state.get("format") != RESUME_FORMAT:
            raise ValueError(f"its format is not {RESUME_FORMAT!r}")
        if not {"plain", "model", "optimizer"} <= set(state):
            raise ValueError("it is not complete")
        with zipfile.ZipFile(place) as container:  # checksums, which torch.load does not look at
            if container.testzip() is not None:
                raise zipfile.BadZipFile
        if not plain_tensors(state["model"]) or not_finite(state["model"]):
            raise ValueError("its weights are no finite tensors")
        plain = json.loads(state["plain"], parse_constant=_not_strict)
        done = plain.get("epoch") if isinstance(plain, dict) else None
        if type(done) is not int or done < 0:
            raise ValueError("it does not say its epoch")
        return {**state, "plain": plain}
    except Exception as error:
        reason = shortened(str(error)) if type(error) is ValueError else "it is damaged"
        if isinstance(error, pickle.UnpicklingError):
            reason = "it holds more than tensors and text, and was not run"
        raise ValueError(f"{place} cannot be used ({reason})") from None
