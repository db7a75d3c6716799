"""A study's folder in; a page that needs nothing else, and Markdown, out. Read by a real browser where there is one."""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from study_tables import ARMS, GROUPS, SEEDS, ledger, study_tables

import snn_probe.study
from snn_probe.cli import main
from snn_probe.commands.report import report
from snn_probe.drawing.study_figures import draw_study
from snn_probe.report import write_report
from snn_probe.results import Result, save
from snn_probe.studies.conclusion import conclude
from snn_probe.studies.recipe_probes import KINDS, probe
from snn_probe.writing.document import Code, Heading, Table, to_html, to_markdown
from snn_probe.writing.words import CONTROL, arm_words, command

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
TITLE = "Digits </title><script>alert(1)</script> & more"
RESULT = "results/hessian_trace/sdt-seed0-epoch0020.json"
DRAWN = ("metrics", "hessian_trace")


def study():
    trt = {"strength": 1e-3, "decay": 0.5}
    arms = {arm: {"method": "trt" if "trt" in arm else arm, "hyperparameters": {}, "dataset": "digits"} for arm in ARMS}
    arms["trt"]["hyperparameters"], arms["trt-l2"]["hyperparameters"] = trt, {**trt, "decay": 0.0}
    options = {"objective": "sdt", "operator": "hessian", "forward": "relaxed", "num_probes": 4, "seed": 0}
    traced = {"kind": "hessian_trace", "split": "train", "num_examples": 64, "batch_size": 64, "options": options}
    return {
        "format": "snn_probe.study/1", "title": TITLE, "arms": arms, "groups": list(GROUPS), "seeds": list(SEEDS),
        "probes": {"hessian_trace": traced}, "warnings": ["Arm <x> has no control"], "recipe_sha256": "abc",
        "environment": {"torch": "2.11.0", "cpu_count": 2}, "products": {RESULT: {"seconds": 90.0}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a study with two tables drawn, one stored result, and a claim left out."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.json").write_text(json.dumps(study()))
    (folder / "recipe.toml").write_text('title = "<recipe>"\n')
    ledger().to_csv(folder / "claims.csv", index=False)
    left_out = pd.DataFrame([("z", "Energy | falls", GROUPS[0], "no table 'activity'")])
    left_out.set_axis(["claim", "statement", "group", "why"], axis=1).to_csv(
        folder / "claims_left_out.csv", index=False
    )
    tables = {name: table for name, table in study_tables().items() if name in DRAWN}
    draw_study({**tables, "claims": ledger()}, folder / "figures")
    settings = {"operator": "hessian", "forward": "relaxed", "num_probes": 4, "num_examples": 64, "split": "train"}
    found = Result("hessian_trace", pd.DataFrame({"trace": [1.0]}), settings, {"run": "sdt-seed0", "epoch": 20})
    save(found, folder / RESULT)
    assert write_report(folder) == (folder / "report.html", folder / "report.md")
    return folder


class Page(HTMLParser):
    """Tags, links and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data.strip())


def page(folder):
    return Page((folder / "report.html").read_text())


def test_the_page_needs_no_network_and_no_script(finished):
    found = page(finished)
    assert "script" not in found.tags and "link" not in found.tags and "iframe" not in found.tags
    images = [link for link in found.links if link.startswith("data:")]
    assert all(not re.match(r"[a-z]+:|//|/", link) for link in found.links if link not in images)
    stored = [(finished / "figures" / f"{n}.png").read_bytes() for n in ("effects", "learning_curves", "hessian_trace")]
    assert [base64.b64decode(link.removeprefix("data:image/png;base64,")) for link in images] == stored
    style = (finished / "report.html").read_text().partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_links_lead_to_files_in_both_pages(finished):
    beside = [link for link in page(finished).links if not link.startswith("data:")]
    markdown = (finished / "report.md").read_text()
    linked = re.findall(r"\]\(<([^>]+)>\)", markdown)
    assert set(beside) <= set(linked) and len(beside) == 3 * 2 and len(linked) == 3 * 3
    assert all((finished / link).is_file() for link in linked)


def test_what_files_say_is_text(finished):
    found = page(finished)
    assert TITLE in found.text and "b" not in found.tags and "x" not in found.tags
    markdown = (finished / "report.md").read_text()
    assert "<script>" not in markdown.replace(r"\<script\>", "") and r"TRT beats L2 \| its control" in markdown
    tables = [block.splitlines() for block in markdown.split("\n\n") if block.startswith("|")]
    bars = [{len(re.findall(r"(?<!\\)\|", line)) for line in table} for table in tables]
    assert bars == [{5}, {10}, {4}, {6}, {4}, {3}]  # one more than columns, in every row


def test_the_ledger_comes_first_with_all_it_rests_on(finished):
    text = page(finished).text
    headings = [
        "What was run",
        "The claims",
        "What is missing",
        "Figures",
        "How to make each number again",
        "Environment",
    ]
    places = [text.index(heading) for heading in headings]
    assert places == sorted(places)
    said = " ".join(text)
    assert "3 claims, 4 verdicts: 2 supported, 1 contradicted, 1 undecided." in said
    row = text[text.index("contradicted", places[1]) :]
    claim = f"TRT beats L2 | its control ({GROUPS[0]})"
    rest = ["-2 points", "-3 to -1", "0.5", "3", "1", "trt - trt-l2", "TRT; reversed"]
    assert [cell for cell in row if cell][:9] == ["contradicted", claim, *rest]
    assert "no table 'activity'" in said and "Arm <x> has no control" in said and CONTROL in said


def test_captions_state_estimator_forward_examples_and_seeds(finished):
    said = " ".join(page(finished).text)
    assert "Measured: forward relaxed (spikes replaced by the surrogate's primitive" in said
    assert "operator hessian, num probes 4, 64 examples of the train split. 3 seeds." in said


def test_numbers_at_the_end_are_those_of_the_tables(finished):
    said = " ".join(page(finished).text)
    assert f"{40 + 6 + 1:.1f} (47 to 47)" in said  # test accuracy of TET at epoch 3
    assert f"{_round(200 + np.mean(SEEDS))} (200 to 204)" in said


def _round(value):
    return f"{value:.3g}"


def test_every_number_has_the_command_that_makes_it_again(finished):
    wanted = (
        "snnprobe hessian runs/sdt-seed0/checkpoints/epoch_0020.pt --quantity trace --split train --num-examples 64 "
        "--batch-size 64 --objective sdt --operator hessian --forward relaxed --num-probes 4 --seed 0"
    )
    assert wanted in " ".join(page(finished).text)


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_are_those_of_the_command_line(kind):
    one = probe(kind, {}, split="train")
    said = {"kind": kind, "split": one.split, "batch_size": one.batch_size,
            "options": {key: list(v) if isinstance(v, tuple) else v for key, v in one.options.items()}}  # fmt: skip
    snnprobe, name, *arguments = shlex.split(command(said, "run/last.pt", 64))
    context = main.commands[name].make_context(name, arguments)
    assert snnprobe == "snnprobe" and context.params["num_examples"] == 64
    for key in ("group_size", "k", "points", "forward", "num_directions", "seed"):
        if key in one.options:
            assert context.params[key] == one.options[key]


def test_arms_are_told_in_words():
    stages = [{"epochs": 5, "num_steps": 2, "method": None}, {"epochs": 3, "num_steps": 4, "method": "sdt"}]
    said = arm_words({"method": "tet", "stages": stages})
    assert said.startswith("5 epochs with T = 2, TET: ") and "; then 3 epochs with T = 4, SDT, " in said
    assert arm_words({"method": "mine"}) == "mine"


def test_a_study_without_figures_or_claims_left_out_has_a_report(tmp_path):
    (tmp_path / "study.json").write_text(json.dumps({**study(), "seeds": [0], "products": {}}))
    ledger().head(0).to_csv(tmp_path / "claims.csv", index=False)
    write_report(tmp_path)
    said = " ".join(page(tmp_path).text)
    assert "One seed cannot show that a difference is more than chance." in said
    assert "Figures without measurements in this study: All claims, Learning curves," in said


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, r"holds no readable study.json .*; give a folder of snnprobe reproduce"),
        ({"study.json": "[]"}, "study.json is no study; give a folder of snnprobe reproduce"),
        ({"study.json": json.dumps(study())}, "claims.csv cannot be read; run snnprobe report .* to make it from"),
    ],
)
def test_folders_that_hold_no_study(tmp_path, files, sentence):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=sentence):
        write_report(tmp_path)


def test_a_document_as_both_kinds_of_page(tmp_path):
    blocks = [Heading("A *b*", 1), Table(("x", "y"), [("a|b", "supported")]), Code("```\n1 < 2")]
    assert '<td data-label="y" class="supported">supported</td>' in to_html(blocks, tmp_path)
    expected = "# A \\*b\\*\n\n| x | y |\n| --- | --- |\n| a\\|b | supported |\n\n````\n```\n1 < 2\n````\n"
    assert to_markdown(blocks, tmp_path) == expected
    for render in (to_html, to_markdown):
        with pytest.raises(TypeError, match="a document cannot hold a int; give blocks of"):
            render([Heading("A", 1), 3], tmp_path)


def test_the_command_judges_draws_and_reports_again(tmp_path, monkeypatch):
    (tmp_path / "study.json").write_text(json.dumps(study()))
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.png").write_bytes(b"of a probe that is gone")
    metrics = {"metrics": study_tables()["metrics"]}
    monkeypatch.setattr(snn_probe.study, "tables", lambda folder: metrics)
    done = CliRunner().invoke(report, [str(tmp_path), "--width", "3.25in", "--svg"], catch_exceptions=False)
    written = [line.removeprefix(f"{tmp_path}/") for line in done.output.splitlines()]
    figures = [f"figures/{n}.{s}" for n in ("effects", "learning_curves") for s in ("pdf", "png", "svg", "csv")]
    claims = ["claims.csv", "claims.json", "claims_left_out.csv"]
    assert written == [*claims, *figures, "report.html", "report.md"]
    assert {path.name for path in tmp_path.glob("figures/*")} == {name.partition("/")[2] for name in figures}
    judged = json.loads((tmp_path / "claims.json").read_text())
    assert {"accuracy-tet-sdt", "accuracy-trt-l2"} <= {row["claim"] for row in judged}
    assert "energy-tet-sdt" in set(pd.read_csv(tmp_path / "claims_left_out.csv")["claim"])


KILLED = """
import json, os, random, signal, sys, time
from pathlib import Path
from study_tables import study_tables
from test_report import study
from snn_probe.studies.conclusion import conclude

tables = {"metrics": study_tables()["metrics"]}

def begin(name):
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    (folder / "study.json").write_text(json.dumps(study()))
    pid = os.fork()
    if not pid:
        try:
            conclude(tables, folder)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return pid

def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

began = time.monotonic()
statuses, hits = [end(begin("undisturbed"))], 0
whole, choose = time.monotonic() - began, random.Random(5)
while hits < 10:
    began = time.monotonic()
    pid = begin("killed")
    time.sleep(choose.uniform(0.05, 0.7) * whole)
    os.kill(pid, signal.SIGKILL)
    statuses.append(end(pid))
    hits += statuses[-1] == -signal.SIGKILL
    whole = whole if statuses[-1] else 0.7 * whole  # the first takes longest
print(json.dumps([*statuses, end(begin("killed"))]))
"""


def test_kills_while_it_judges_draws_and_reports_change_no_file(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", KILLED]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *killed, last = json.loads(done.stdout.splitlines()[-1])
    assert first == last == 0 and set(killed) <= {0, -9} and killed.count(-9) == 10, done.stdout
    made = {
        name: {
            path.relative_to(tmp_path / name).as_posix(): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file() and not path.name.startswith(".snn_probe-")  # swept when a study goes on
        }
        for name in ("undisturbed", "killed")
    }
    assert made["killed"] == made["undisturbed"] and len(made["killed"]) > 8


def test_the_report_needs_png(tmp_path):
    with pytest.raises(ValueError, match="formats are pdf, svg; give 'png' among them, which the report shows"):
        conclude({}, tmp_path, formats=("pdf", "svg"))


# In a browser

_MEASURE = """<script>addEventListener("load", () => { const i = [...document.images], page = document.documentElement;
page.dataset.found = JSON.stringify({ width: innerWidth, needs: page.scrollWidth,
images: i.length, lost: i.filter(one => !one.complete || !one.naturalWidth).length, errors: performance
.getEntriesByType("resource").filter(one => !one.name.startsWith("data:")).length }); });</script></body>"""


def browse(path, width, *arguments):
    chosen = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},900")
    return subprocess.run([BROWSER, *chosen, *arguments, path.as_uri()], capture_output=True, timeout=120, check=True)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [375, 1280])
def test_a_browser_shows_all_of_it_without_sideways_scrolling(finished, tmp_path, width):
    measured, framed = tmp_path / "measured.html", tmp_path / "framed.html"
    measured.write_text((finished / "report.html").read_text().replace("</body>", _MEASURE))
    frame = f'<iframe id=f width={width} height=900 style="border:0" src="measured.html"></iframe>'
    copied = "document.body.dataset.found = f.contentDocument.documentElement.dataset.found"
    framed.write_text(f'<body style="margin:0">{frame}<script>f.onload = () => {{ {copied} }}</script>')
    dom = browse(framed, max(width, 600), "--allow-file-access-from-files", "--virtual-time-budget=20000", "--dump-dom")
    (text,) = re.findall(r'<body[^>]*data-found="([^"]+)"', dom.stdout.decode())
    found = json.loads(text.replace("&quot;", '"'))
    assert found == {"width": width, "needs": width, "images": 3, "lost": 0, "errors": 0}


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_screenshot_is_not_blank(finished, tmp_path):
    from matplotlib.image import imread

    browse(finished / "report.html", 800, f"--screenshot={tmp_path / 'shot.png'}")
    shot = imread(tmp_path / "shot.png")[..., :3]
    assert shot.shape[:2] == (900, 800)
    ink = np.abs(shot - shot[0, 0]).max(axis=2) > 0.3  # of text and table heads on the page's colour
    assert 0.01 < ink.mean() < 0.5
