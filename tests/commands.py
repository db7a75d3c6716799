"""Running the commands in this process, for the tests of the command line."""

from click.testing import CliRunner

from snn_probe.cli import main

MAGIC = {".png": b"\x89PNG\r\n\x1a\n", ".pdf": b"%PDF-", ".svg": b"<?xml"}
SMALL = "--epochs 3 --train-examples 40 --batch-size 16 --num-steps 2 --learning-rate 0.01".split()


def run(*arguments, status=0):
    """Run a command in this process; it must end with this status."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == status, done.output
    assert "Traceback" not in done.output
    return done


def failed(*arguments, status=1):
    """The one sentence of a command that must fail."""
    done = run(*arguments, status=status)
    assert isinstance(done.exception, SystemExit)
    assert done.stdout == ""
    *usage, said = done.stderr.splitlines()
    assert said.startswith("Error: ") and (not usage if status == 1 else usage[0].startswith("Usage: "))
    assert len(said) < 1000
    return said.removeprefix("Error: ")


def whole_file(path):
    """Whether a figure's file begins as its kind does and is more than a beginning."""
    content = path.read_bytes()
    return content.startswith(MAGIC[path.suffix]) and len(content) > 3000
