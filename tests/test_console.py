"""The library logs and never prints; the commands show what it logs on stderr, a sentence each."""

import ast
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from commands import SMALL, failed, run

import snn_probe
from snn_probe.cli import main
from snn_probe.config import RunConfig
from snn_probe.machine.console import console, quieter
from snn_probe.training import train

ROOT = Path(snn_probe.__file__).parent
CONFIG = RunConfig(method="sdt", epochs=2, train_examples=40, batch_size=16, num_steps=2)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_prints_nothing_and_gives_its_log_no_handler(path):
    """No print anywhere, click in the command line alone, and sys.stdout in none but it."""
    command_line = path.parent.name == "commands" or path.stem in ("cli", "console")
    for node in ast.walk(ast.parse(path.read_text())):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        assert called not in ("print", "sys.stdout.write", "sys.stderr.write", "logging.basicConfig"), called
        assert not called.endswith(".addHandler") or path.stem == "console", called
        assert not called.startswith("logging.") or called in ("logging.getLogger",), called
        if isinstance(node, ast.Import | ast.ImportFrom) and not command_line:
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert "click" not in {name.partition(".")[0] for name in names}


def test_training_from_python_logs_each_epoch_and_prints_nothing(caplog, capsys):
    caplog.set_level(logging.INFO, "snn_probe")
    rows = [checkpoint.card["metrics"] for checkpoint in train(CONFIG)]
    records = [record for record in caplog.records if record.name == "snn_probe.training"]
    assert [record.levelname for record in records] == ["INFO", "INFO"]
    for record, row in zip(records, rows, strict=True):
        assert record.getMessage() == (
            f"epoch {row['epoch']}/2  loss {row['train_loss']:.4f}  accuracy train {row['train_accuracy']:.2%} "
            f"validation {row['validation_accuracy']:.2%} test {row['test_accuracy']:.2%}  {row['seconds']:.1f} s"
        )
    assert capsys.readouterr() == ("", "")


def test_a_program_that_does_not_ask_for_the_log_sees_nothing():
    code = (
        "from snn_probe.config import RunConfig; from snn_probe.training import train; "
        f"list(train(RunConfig.from_dict({CONFIG.to_dict()!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_verbose_says_what_is_written_and_quiet_nothing(tmp_path):
    done = run("-v", "train", *SMALL, "--out", tmp_path / "verbose")
    written = [line for line in done.stderr.splitlines() if line.startswith("Wrote ")]
    assert f"Wrote {tmp_path / 'verbose' / 'metrics.csv'}" in written and len(written) > 6
    assert sum(line.startswith("epoch ") for line in done.stderr.splitlines()) == 3
    done = run("--quiet", "train", *SMALL, "--out", tmp_path / "quiet")
    assert done.stderr == "" and len(done.stdout.splitlines()) == 3
    said = failed("-q", "-v", "show", tmp_path, status=2)
    assert said == "--verbose and --quiet exclude each other; give one of them."


def said_of(monkeypatch, *options):
    """What a command says on stderr whose library code logs at each level and warns."""

    def describe(path):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger("snn_probe.somewhere").log(level, "%s said", logging.getLevelName(level))
        warnings.warn("The surrogate is flat.", stacklevel=1)
        logging.getLogger("elsewhere").info("not ours")
        return ["shown"]

    monkeypatch.setattr("snn_probe.commands.show.describe", describe)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        done = CliRunner().invoke(main, [*options, "show", "x"])
    assert (done.exit_code, done.stdout) == (0, "shown\n"), done.output
    return done.stderr.splitlines()


def test_what_is_shown_at_each_level(monkeypatch):
    warned = ["Warning: WARNING said", "Warning: The surrogate is flat."]
    assert said_of(monkeypatch, "-q") == warned
    assert said_of(monkeypatch) == ["INFO said", *warned]
    assert said_of(monkeypatch, "-v") == ["DEBUG said", "INFO said", *warned]


def test_of_several_processes_the_first_speaks(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert said_of(monkeypatch) == []


def test_everything_is_as_before_afterwards_also_after_an_error():
    logger, shown = logging.getLogger("snn_probe"), warnings.showwarning
    before = logger.level, list(logger.handlers)
    with pytest.raises(KeyError), console(logging.DEBUG), quieter("snn_probe.training"):
        assert logging.getLogger("snn_probe.training").getEffectiveLevel() == logging.WARNING
        raise KeyError
    assert (logger.level, logger.handlers, warnings.showwarning) == (*before, shown)
    assert logging.getLogger("snn_probe.training").level == logging.NOTSET


def test_other_warnings_are_shown_as_ever(capsys):
    with warnings.catch_warnings(record=True) as elsewhere, console(logging.INFO):
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        warnings.warn("flat", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in elsewhere] == ["old"]
    assert capsys.readouterr().err == "Warning: flat\n"


def test_a_closed_stderr_does_not_end_a_training(monkeypatch):
    def closed(*arguments, **options):
        raise BrokenPipeError

    monkeypatch.setattr(click, "echo", closed)
    with console(logging.INFO):
        assert len(list(train(CONFIG))) == 2
