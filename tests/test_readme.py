"""The examples in README.md and docs/ are run as printed, page by page in the order of the page, in an empty folder.

A block of Python is run; one that begins with the comment ``# name.py`` is written to that file instead, and so is a recipe
that begins with ``# name.toml``. Of a block of shell every line is run. Markers in the Markdown, above a block, say what differs, and nothing else does:

    <!-- test: skip, the reason -->
    <!-- test: add to train fisher: --epochs 1 -->      options at the end of these commands in the block
"""

import glob
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import commands
import pytest

import snn_probe
from snn_probe.cli import main

ROOT = Path(snn_probe.__file__).parents[1]
PAGES = [
    "README.md",
    "docs/own.md",
    "docs/programs.md",
    "docs/reference.md",
    "docs/measured.md",
    "docs/numbers.md",
    "docs/scale.md",
]
MADE = {"docs/api.md"}  # from the docstrings, with signatures and no examples of its own
BLOCK = re.compile(r"((?:^<!--[^\n]*-->\n)*)^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SKIP = re.compile(r"<!-- test: skip, (\S+(?: \S+){2,}) -->")
ADD = re.compile(r"<!-- test: add to ([a-z ]+): (.+) -->")
FOREIGN = {"--nproc-per-node", "--surf_file"}  # options of other programs


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int  # of the first line of code
    skipped: bool
    added: dict[str, list[str]]


def blocks(text):
    """The blocks of a page with what their markers say; ValueError for a marker of another form."""
    found = []
    for match in BLOCK.finditer(text):
        added, skipped = {}, False
        for marker in filter(lambda line: "test:" in line, match[1].splitlines()):
            if SKIP.fullmatch(marker):
                skipped = True
            elif add := ADD.fullmatch(marker):
                for command in add[1].split():
                    added.setdefault(command, []).extend(shlex.split(add[2]))
            else:
                raise ValueError(f"{marker!r} is no marker; write {SKIP.pattern} or {ADD.pattern}")
        line = text[: match.start(3)].count("\n") + 1
        found.append(Block(match[2], match[3], line, skipped, added))
    return found


def run_python(page, block, names, folder):
    file = re.match(r"# (\w+\.py)\n", block.code)
    if file:
        (folder / file[1]).write_text(block.code)
    else:
        exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), names)


def run_shell(block, folder, monkeypatch):
    """Every line, in the folder where the block begins; snnprobe in this process, all else in a shell."""
    monkeypatch.chdir(folder)
    for line in filter(None, map(str.strip, block.code.splitlines())):
        words = shlex.split(line, comments=True)
        if words[0] == "cd":
            monkeypatch.chdir(words[1])
        elif words[0] == "snnprobe":
            run_command(words[1:], block.added)
        else:
            done = subprocess.run(["bash", "-ec", line], capture_output=True, text=True, env=environment(folder))
            assert done.returncode == 0 and not done.stderr, f"{line}\n{done.stderr}"
    monkeypatch.chdir(folder)


def run_command(words, added):
    words, out = (words[:-2], words[-1]) if ">" in words else (words, None)
    words = [path for word in words for path in (sorted(glob.glob(word)) if "*" in word else [word])]
    printed = commands.run(*words, *added.get(words[0], [])).stdout
    assert printed
    if out:
        Path(out).write_text(printed)


def environment(folder):
    """With `snnprobe` and `python` of this interpreter first on the path."""
    programs = folder / ".programs"
    programs.mkdir(exist_ok=True)
    for name, module in (("python", ""), ("snnprobe", "-m snn_probe ")):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module}"$@"\n')
        (programs / name).chmod(0o755)
    return {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the project's analyses in it; afterwards what the page imported and set is forgotten."""
    shutil.copytree(ROOT / "analyses", tmp_path / "analyses")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr("snn_probe.own._allowed", {})
    monkeypatch.delenv("SNNPROBE_DATA", raising=False)
    before, logger = set(sys.modules), logging.getLogger("snn_probe")
    level = logger.level
    yield tmp_path
    logger.setLevel(level)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
def test_examples_run_as_printed(page, folder, monkeypatch):
    names = {"__name__": "__main__"}
    for block in blocks((ROOT / page).read_text()):
        if recipe := re.match(r"# (\w+\.toml)\n", block.code):
            (folder / recipe[1]).write_text(block.code)
        if block.skipped or block.language not in ("python", "sh"):
            continue
        try:
            if block.language == "python":
                run_python(page, block, names, folder)
            else:
                run_shell(block, folder, monkeypatch)
        except BaseException as error:
            error.add_note(f"{page}, line {block.line}")
            raise


def test_every_page_is_here():
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")} | {"README.md"}
    assert found - MADE == set(PAGES)


def test_hardly_anything_is_left_out():
    """Only what makes an environment, needs foreign data or runs until it is stopped; each with a reason."""
    every = [
        block for page in PAGES for block in blocks((ROOT / page).read_text()) if block.language in ("python", "sh")
    ]
    run = [block for block in every if not block.skipped]
    assert len(run) >= 20 and len(every) - len(run) <= 2


def options_of(command):
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_in_the_text_exist(page):
    """Also in tables, where they stand with placeholders and cannot be run."""
    text = BLOCK.sub("", (ROOT / page).read_text())
    known = {"--help", "--version"} | options_of(main).union(*map(options_of, main.commands.values()))
    for span in re.findall(r"`([^`]+)`", text):
        options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", span)) - FOREIGN
        assert options <= known, span
        command = re.match(r"snnprobe (?:-\S+ )*([a-z]\S*)", span)
        if command:
            assert command[1] in main.commands, span
            assert options <= options_of(main.commands[command[1]]) | {"--help"}, span


def test_every_command_is_in_the_readme():
    table = re.findall(r"^\| `snnprobe ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(main.commands)


@pytest.mark.parametrize(
    "marker",
    ["<!-- test: skip -->", "<!-- test: skip, slow -->", "<!-- test: add --epochs 1 -->", "<!-- test: run it -->"],
)
def test_a_marker_needs_a_reason_and_a_form(marker):
    with pytest.raises(ValueError, match="is no marker"):
        blocks(f"{marker}\n```sh\nsnnprobe data\n```\n")


def test_markers_are_read():
    text = "<!-- test: skip, needs a large download -->\n```sh\na\n```\n\ntext\n\n<!-- test: add to b c: -x 1 -->\n```sh\nb\n```\n"
    first, second = blocks(text)
    assert first.skipped and not second.skipped
    assert second.added == {"b": ["-x", "1"], "c": ["-x", "1"]} and second.line == 10 and second.code == "b\n"


def test_an_example_that_fails_fails_the_test(folder, monkeypatch):
    (block,) = blocks("```sh\nsnnprobe show nothing.pt\n```\n")
    with pytest.raises(AssertionError):
        run_shell(block, folder, monkeypatch)
    (block,) = blocks("\n```python\n\nassert False\n```\n")
    with pytest.raises(AssertionError) as failure:
        run_python("page.md", block, {}, folder)
    assert failure.traceback[-1].lineno + 1 == 4
