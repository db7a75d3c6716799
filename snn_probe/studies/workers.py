"""Tasks spread over processes, with what they yield on the way.

Processes are started anew (spawn) and end with their parent, however it ends: a thread in each waits for that.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, parent_process
from multiprocessing.reduction import DupFd
from typing import Any

from snn_probe.machine.interrupts import Interrupted, listening

Perform = Callable[[Any], Iterable[Any]]

_PATIENCE = 20.0  # seconds that a process may take to save what is whole
_OF_PARENT = {signal.SIGINT, getattr(signal, "SIGUSR1", signal.SIGINT)}  # reach all processes; the parent ends them


class Held:
    """An open file that the processes keep open too: a lock on it lasts until the last of them has ended."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    def __getstate__(self) -> Any:
        return DupFd(self.descriptor)

    def __setstate__(self, kept: Any) -> None:
        self.descriptor = kept.detach()


def portable(value: Any) -> bool:
    """Whether ``value`` can be given to another process."""
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True


def spread(
    perform: Perform | Sequence[Perform], tasks: Sequence[Any], *, jobs: int, held: Held | None = None
) -> Iterator[Any]:
    """Everything that ``perform(task)`` yields, of all tasks, as it comes from ``jobs`` processes, which take several
    ``perform`` in turn.

    ``perform`` and what it yields must be picklable. What it raises is raised here, after the other processes have been
    ended; a process that ends by itself, for example because the machine's memory is full, raises RuntimeError.
    """
    performs = [perform] if callable(perform) else list(perform)
    waiting = deque(tasks)
    context = multiprocessing.get_context("spawn")
    processes: list[Any] = []
    busy: list[Any] = []  # connections
    ready: Any
    try:
        for number in range(min(jobs, len(waiting))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(performs[number % len(performs)], theirs, held), daemon=True)
            with _blocked():
                process.start()
            theirs.close()
            processes.append(process)
            busy.append(ours)
            ours.send(waiting.popleft())
        while busy:
            for ready in connection.wait(busy):
                kind, value = _received(ready)
                if kind == "item":
                    yield value
                elif kind == "error":
                    raise value
                elif waiting:
                    ready.send(waiting.popleft())
                else:
                    busy.remove(ready)
                    ready.close()
    finally:
        for process in processes:
            process.terminate()
        until = time.monotonic() + _PATIENCE
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
            process.kill()
            process.join()


@contextmanager
def _blocked() -> Iterator[None]:
    """A process that is started here begins without the parent's signals, which wait until the context ends."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _received(ready: Any) -> tuple[str, Any]:
    try:
        return ready.recv()
    except (EOFError, ConnectionError):
        return "error", RuntimeError("A worker process ended without a word; give fewer --jobs if memory is short.")


def _work(perform: Perform, tasks: Any, held: Held | None) -> None:
    """In a process of its own: one task after the other, until there are no more."""
    for number in _OF_PARENT:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_PARENT)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(Interrupted), listening((signal.SIGTERM,)):
        _perform_all(perform, tasks)


def _perform_all(perform: Perform, tasks: Any) -> None:
    while True:
        try:
            task = tasks.recv()
        except EOFError:
            return
        try:
            for item in perform(task):
                tasks.send(("item", item))
            tasks.send(("done", None))
        except Exception as error:
            tasks.send(("error", _portable(error)))


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note, or what it said where it cannot travel between processes."""
    error.add_note(traceback.format_exc())
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    if (parent := parent_process()) is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
