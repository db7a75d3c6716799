"""No file is trusted: whatever is in it, a reader reads it rightly or refuses it in one sentence, and runs none of it.

Of every reader a sound small file is changed in ways drawn from a fixed seed. A reader may raise ValueError or OSError,
which the command line prints as one sentence; nothing else, however the file is made. Each case has a limit of time, and
the whole process one of memory.
"""

import ast
import contextlib
import fcntl
import json
import os
import re
import resource
import shutil
import socket
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from hostile_readers import READERS, RESULT, a_study
from mutations import Hung, running, within

import snn_probe
from snn_probe.cli import main
from snn_probe.machine import folder_lock
from snn_probe.report import write_report

ALLOWED = (ValueError, OSError)  # what a reader may raise; the command line makes one sentence of them
SECONDS = 10.0  # for one case
ROOM = 2**30  # bytes of addresses that one reader may take beyond what the process has
SAMPLE = 8  # cases of one reader that go through the command line
GROWTH = 400 * 2**20  # bytes of memory that all cases of one reader may take together


@contextlib.contextmanager
def little_memory():
    """What asks for more than ROOM is refused by the system, as 10**12 elements would be anywhere."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def peak():
    """The most memory this process has had, in bytes, since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def forget_peak():
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def fault(reader, folder, marker):
    """What is wrong with how the reader took its file, or None; and whether it read it."""
    try:
        with within(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("error")
            reader.read(folder)
        return None, True
    except ALLOWED as error:
        said = str(error)
        names = (Path(reader.file).name, *reader.named)
        if reader.silent:
            return f"a cache refused: {said[:200]}", False
        if not said or "\n" in said or len(said) > 1000:
            return f"{type(error).__name__} is no short sentence ({len(said)}): {said[:300]!r}", False
        if not any(name in said for name in names):
            return f"{type(error).__name__} does not name the file: {said[:200]!r}", False
        return None, False
    except Hung:
        return "took too long", False
    except AssertionError as error:
        return f"read wrongly: {str(error)[:200]}", False
    except Exception as error:
        place = error.__traceback__
        while place.tb_next:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}"
        return f"{type(error).__name__} at {where}: {str(error)[:150]!r}", False
    finally:
        assert not marker.exists(), "code in a file was run"


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_what_a_file_holds(reader, tmp_path, record_property):
    folder, marker = tmp_path / "here", tmp_path / "marker"
    folder.mkdir()
    reader.make(folder)
    assert fault(reader, folder, marker) == (None, True)
    place = folder / reader.file
    sound = place.read_bytes()
    faults, count, read = {}, 0, 0
    with little_memory():
        forget_peak()
        before = peak()
        for content in [*reader.cases(sound), *(running(marker) if reader.runs else ())]:
            place.write_bytes(content)
            found, was_read = fault(reader, folder, marker)
            count, read = count + 1, read + was_read
            if found:
                faults.setdefault(found[:45], []).append((count - 1, found))
        grown = peak() - before
    record_property("cases", count)
    print(f"{reader.name}: {count} cases, {read} read, {count - read} refused, {grown / 2**20:.0f} MiB")
    assert not faults, "\n".join(f"{len(found)} cases as {found[0]}" for found in faults.values())
    assert read < count or reader.silent
    assert grown < GROWTH


# --- what stands in the place of a file ---

STAND_INS = {
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
    "a link to /dev/zero": lambda place: os.symlink("/dev/zero", place),
    "a link to itself": lambda place: os.symlink(place.name, place),
    "a link to nothing": lambda place: os.symlink("nowhere", place),
    "a socket": lambda place: _socket(place),
    "a terabyte of zeros": lambda place: _sparse(place, b""),
    "a terabyte of a zip": lambda place: _sparse(place, b"PK\x03\x04"),
}


def _socket(place):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(place))


def _sparse(place, begins):
    place.write_bytes(begins)
    os.truncate(place, 2**40)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_what_is_no_file(reader, tmp_path, monkeypatch):
    """Something else in the place of the file."""
    folder, faults = tmp_path / "here", {}
    folder.mkdir()
    reader.make(folder)
    place = folder / reader.file
    monkeypatch.chdir(place.parent)  # a socket's path is short
    with little_memory():
        for name, put_there in STAND_INS.items():
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
            put_there(Path(place.name) if name == "a socket" else place)
            found, _ = fault(reader, folder, tmp_path / "marker")
            if found:
                faults[name] = found
    assert not faults, faults


# --- the command line ---

COMMANDS = {
    "checkpoint": ["show last.pt", "show last.pt --json", "fisher last.pt --num-examples 4 --out out"],
    "resume state": ["train --resume --out . --num-steps 2 --epochs 2 --train-examples 20"],
    "config.json": ["show .", "train --resume --out . --train-examples 20"],
    "metrics.csv": ["figure metrics.csv -o out.png"],
    "result": ["show fisher.json", "show fisher.json --json", "figure fisher.json -o out.png", "export fisher.json -o out.csv"],
    "weights .pth": ["fisher w.pth --model tiny --data digits --num-examples 4 --out out", "train --weights w.pth --epochs 1 --out run"],
    "weights .safetensors": ["fisher w.safetensors --model tiny --data digits --num-examples 4 --out out"],
    "recipe": ["reproduce recipe.toml --dry-run"],
    "study.json": ["report ."],
    "study's result": ["report ."],
    "study's metrics": ["report ."],
    "class list": ["train --data image-folder --data-root . --classes classes.txt --epochs 1 --out run"],
    "frames .npy": ["train --data . --num-steps 2 --epochs 1 --batch-size 2 --out run"],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_says_one_sentence(name, tmp_path, monkeypatch):
    reader = next(reader for reader in READERS if reader.name == name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("snn_probe.studies.conclusion.draw_study", lambda *_, **__: [])  # takes seconds
    marker = tmp_path / "marker"
    reader.make(tmp_path)
    sound = (tmp_path / reader.file).read_bytes()
    cases = [*reader.cases(sound)]
    chosen = [*cases[:: max(1, len(cases) // SAMPLE)], *([*running(marker)][::15] if reader.runs else ())]
    faults = []
    for number, content in enumerate(chosen):
        (tmp_path / reader.file).write_bytes(content)
        command = COMMANDS[name][number % len(COMMANDS[name])]
        with within(60.0):
            done = CliRunner().invoke(main, command.split())
        said = done.stderr.splitlines()
        if done.exit_code not in (0, 1, 2) or "Traceback" in done.output or "report it" in done.output:
            faults.append((command, done.exit_code, done.output[-300:]))
        elif done.exit_code and not (said[-1].startswith("Error: ") and len(said[-1]) < 1500):
            faults.append((command, said[-3:]))
        assert not marker.exists()
    assert not faults, f"{len(faults)} of {len(chosen)}, such as {faults[:4]}"


# --- nothing in the package can run what is in a file ---

FORBIDDEN = {"marshal", "shelve", "dill", "joblib", "cloudpickle", "yaml", "jsonpickle"}
PICKLE = {  # who imports pickle, and what of it it uses
    "checkpoint.py": {"UnpicklingError"}, "own/weights.py": {"UnpicklingError"}, "runs/run_folder.py": {"UnpicklingError"},
    "data/cifar.py": {"_Unpickler"},  # its own, which knows arrays of bytes and nothing else
    "studies/workers.py": {"loads", "dumps"},  # an exception that this process itself has just pickled
}  # fmt: skip


ROOT = Path(snn_probe.__file__).parent
SOURCES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def calls():
    """(file, node) of all that the package says."""
    for file, tree in SOURCES.items():
        for node in ast.walk(tree):
            yield file, node


def test_loaders_never_unpickle():
    assert len(SOURCES) > 80
    loads = []
    for file, node in calls():
        if isinstance(node, ast.Call):
            called, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert called not in ("eval", "exec", "compile", "__import__", "pd.read_pickle", "os.system"), (
                file,
                called,
            )
            if called == "torch.load":
                loads.append(file)
                assert given.get("weights_only") == "True", file
            if called in ("np.load", "numpy.load"):
                loads.append(file)
                assert given.get("allow_pickle") == "False", file
            if called == "download_and_extract_archive":  # it unpacks whatever has the published checksum, nothing else
                assert given.get("md5") in ("checksum", "source.tgz_md5"), file
            assert called.rpartition(".")[2] not in ("extractall", "unpack_archive"), (file, called)
            assert "shell" not in given, file
    assert {"checkpoint.py", "own/weights.py", "runs/run_folder.py"} == set(loads)


def test_who_imports_what_can_run_code():
    used = {}
    for file, node in calls():
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in names} & FORBIDDEN, file
        assert not (isinstance(node, ast.ImportFrom) and node.module == "pickle"), file
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pickle":
            used.setdefault(file, set()).add(node.attr)
    assert used == PICKLE


# --- reports ---

SCRIPT = "<script>alert('x')</script>\" onerror=\"alert(1) [a](javascript:alert(1)) <img src=x> | `code` **b**"


def test_a_report_is_text_whatever_the_files_say(tmp_path):
    a_study(tmp_path)
    document = json.loads((tmp_path / "study.json").read_text())
    arms, probes = document["arms"], document["probes"]
    document |= {
        "title": SCRIPT, "arms": {SCRIPT: {**arms["sdt"], "dataset": SCRIPT, "hyperparameters": {SCRIPT: SCRIPT}}},
        "groups": [SCRIPT], "warnings": [SCRIPT], "environment": {SCRIPT: SCRIPT}, "recipe_sha256": SCRIPT,
        "probes": {**probes, SCRIPT: {"kind": "fisher", "split": SCRIPT, "options": {SCRIPT: SCRIPT}}},
    }  # fmt: skip
    (tmp_path / "study.json").write_text(json.dumps(document))
    (tmp_path / "recipe.toml").write_text(f"# {SCRIPT}\n# ````\n# </pre>{SCRIPT}\n")
    for name in ("claims.csv", "claims_left_out.csv", "figures/hessian_trace.csv"):
        table = pd.read_csv(tmp_path / name)
        words = [column for column in table if table[column].dtype.kind not in "if"]
        table.assign(**dict.fromkeys([*words, "group", "arm"], SCRIPT)).to_csv(tmp_path / name, index=False)
    result = json.loads((tmp_path / RESULT).read_text())
    result["settings"] |= {"split": SCRIPT, "objective": SCRIPT, "forward": SCRIPT}
    result["source"] |= {"run": SCRIPT}
    (tmp_path / RESULT).write_text(json.dumps(result))
    html, markdown = (path.read_text() for path in write_report(tmp_path))
    page = Tags(html)
    assert "script" not in page.names and page.names.count("img") == 1 and "b" not in page.names
    assert not {name for name, _ in page.attributes if name.startswith("on")}
    assert not any(
        value.lower().startswith("javascript:") for name, value in page.attributes if name in ("href", "src")
    )
    assert html.count("&lt;script&gt;alert(") > 15  # it is all there, as text
    outside = re.sub(r"^(`{3,})\n.*?^\1$", "", markdown, flags=re.S | re.M)
    assert outside.count(r"\<script\>") > 15
    for sign in ("<script", "<img", "](javascript", "**b", "`code"):
        assert not re.search(rf"(?<!\\){re.escape(sign)}", outside), sign
    assert "\n# </pre>" not in outside  # what the recipe says has not left its block


class Tags(HTMLParser):
    """Names and attributes of a page's tags."""

    def __init__(self, text):
        super().__init__()
        self.names, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


# --- locks ---


@pytest.mark.parametrize("content", [b"", b"\xff" * 300, b"process 9999999999999999999999 on HERE since x", b"process -1 on HERE since x",
                                     b"process \xc2\xb2 on HERE since x", b"process 0 on HERE since x", b"a\nb\r\n\0<script>" * 50])  # fmt: skip
def test_a_lock_that_says_nonsense(content, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "_PATIENCE", 0.2)
    with open(tmp_path / folder_lock.NAME, "wb") as holder:
        holder.write(content.replace(b"HERE", socket.gethostname().encode()))
        holder.flush()
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError) as caught, within(SECONDS), folder_lock.locked(tmp_path):
            pass
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600 and str(tmp_path) in str(caught.value)
    with within(SECONDS), folder_lock.locked(tmp_path):  # nobody holds it now, whatever it says
        pass


@pytest.mark.parametrize("stand_in", [name for name in STAND_INS if "zip" not in name])
def test_a_lock_that_is_no_file(stand_in, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    STAND_INS[stand_in](Path(folder_lock.NAME) if stand_in == "a socket" else tmp_path / folder_lock.NAME)
    with contextlib.suppress(OSError), within(SECONDS), folder_lock.locked(tmp_path):
        pass


def test_a_lock_that_is_a_link_overwrites_nothing(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / folder_lock.NAME).symlink_to("thesis.tex")
    with pytest.raises(OSError, match=r"cannot write .*\.lock") as caught, folder_lock.locked(tmp_path):
        pass
    assert "\n" not in str(caught.value) and (tmp_path / "thesis.tex").read_text() == "years of work"
