"""The report of a study, from what lies in its folder: one self-contained report.html, and report.md.

What was run, the ledger of claims, figures with captions, tables, how to repeat each number, the environment, and what
is missing and why. Nothing is computed anew but means that the figures' own CSV files hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from snn_probe.drawing.study_figures import FIGURES, StudyFigure
from snn_probe.drawing.style import looks
from snn_probe.machine.files import read_json, read_text, shortened, write_atomically
from snn_probe.results import Result, load
from snn_probe.writing.document import Block, Code, Heading, Items, Picture, Table, Text, to_html, to_markdown
from snn_probe.writing.words import INTRODUCTION, LEDGER, arm_words, command, settings_words

_SHOWN_CONFIG = ("dataset", "model", "width", "num_steps", "epochs", "batch_size", "learning_rate", "augment")
_STUDY: Mapping[str, tuple[type, type]] = {  # what study.json holds: of which kind, and of which its entries are
    "arms": (dict, dict), "groups": (list, str), "seeds": (list, int), "warnings": (list, str), "probes": (dict, dict),
    "environment": (dict, object), "products": (dict, dict),
}  # fmt: skip
_LEDGER = dict.fromkeys(
    ("claim", "statement", "source", "group", "arms", "unit", "verdict", "note"), str
) | dict.fromkeys(("effect", "low", "high", "n_seeds", "smallest_effect", "p_corrected"), float)
_DRAWN = dict.fromkeys(("group", "arm"), str) | dict.fromkeys(("mean", "low", "high", "n_seeds"), float)
_END = {  # what the table of the end of training shows: column -> figure, the rows of its CSV, unit
    "test accuracy (%)": ("learning_curves", "quantity == 'accuracy' and split != 'train'", 1),
    "accuracy gap (points)": ("learning_curves", "quantity == 'gap'", 1),
    "information centroid (timestep)": ("information_centroid", "", 2),
    "top eigenvalue": ("eigenvalues", "rank == 1", 3),
    "Hessian trace": ("hessian_trace", "", 3),
    "energy per example": ("energy", "layer == 'all'", 3),
}


def write_report(folder: str | Path) -> tuple[Path, Path]:
    """Write report.html and report.md into a study's folder from study.json, claims.csv, figures/ and results/.

    claims_left_out.csv (columns claim, statement, group, why) is read where it exists. Raises ValueError where there is
    no readable study.json or claims.csv, OSError when a file cannot be written.
    """
    folder = Path(folder)
    study, ledger = _study(folder), _csv(folder / "claims.csv", _LEDGER)
    if ledger is None:
        raise ValueError(
            f"{folder / 'claims.csv'} cannot be read; run snnprobe report {folder} to make it from the results."
        )
    try:
        blocks = [
            *_what_was_run(study, ledger),
            *_claims(ledger),
            *_left_out(folder, study),
            *_pictures(folder, study),
            *_end_of_training(folder),
            *_again(folder, study),
            *_environment(study),
        ]
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{folder / 'study.json'} or a table beside it cannot be reported ({shortened(str(error))}); run snnprobe "
            "reproduce again."
        ) from None
    pages = folder / "report.html", folder / "report.md"
    for page, text in zip(pages, (to_html(blocks, folder), to_markdown(blocks, folder)), strict=True):
        write_atomically(page, text.encode(errors="replace"))
    return pages


def _study(folder: Path) -> Mapping[str, Any]:
    try:
        found = read_json(folder / "study.json")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} holds no readable study.json ({shortened(str(error))}); give a folder of snnprobe reproduce."
        ) from None
    if not isinstance(found, dict) or not str(found.get("format", "")).startswith("snn_probe.study/"):
        raise ValueError(f"{folder / 'study.json'} is no study; give a folder of snnprobe reproduce.")
    if wrong := [name for name, (kind, inner) in _STUDY.items() if not _holds(found.get(name, kind()), kind, inner)]:
        raise ValueError(f"{folder / 'study.json'} misstates {', '.join(wrong)}; run snnprobe reproduce again.")
    return found


def _holds(value: Any, kind: type, inner: type) -> bool:
    """Whether the value is a list, or a dict by name, of things of the inner type."""
    entries = value.values() if isinstance(value, dict) else value
    return type(value) is kind and all(isinstance(entry, inner) for entry in entries)


def _csv(path: Path, columns: Mapping[str, type]) -> pd.DataFrame | None:
    """The table; None where it cannot be read, lacks a column or has text where numbers belong."""
    try:
        table = pd.read_csv(StringIO(read_text(path)), keep_default_na=False, na_values=["", "nan"])
        for name, kind in columns.items():
            column = table[name]
            table[name] = (
                column.astype(float) if kind is float else column.astype(object).where(column.notna(), "").astype(str)
            )
        return table
    except (OSError, ValueError, KeyError):
        return None


def _what_was_run(study: Mapping[str, Any], ledger: pd.DataFrame) -> list[Block]:
    counts = ledger["verdict"].value_counts()
    said = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in ("supported", "contradicted", "undecided"))
    seeds, groups = study.get("seeds", []), [group for group in study.get("groups", []) if group]
    arms = study.get("arms", {})
    first: Mapping[str, Any] = next(iter(arms.values()), {})
    common = [f"{name.replace('_', ' ')} {first[name]}" for name in _SHOWN_CONFIG if first.get(name) is not None]
    rows = [
        (looks(arms)[name].label, name, arm_words(config), _hyperparameters(config)) for name, config in arms.items()
    ]
    sizes = f" Every arm was trained with {' and with '.join(groups)}; the groups are judged apart." if groups else ""
    few = " One seed cannot show that a difference is more than chance." if len(seeds) == 1 else ""
    warned: list[Block] = []
    if study.get("warnings"):
        warned = [Text("To be said against this study:"), Items(study["warnings"])]
    return [
        Heading(str(study.get("title", "A study")), 1),
        Text(f"{ledger['claim'].nunique()} claims, {len(ledger)} verdicts: {said}."),
        Heading("What was run"),
        Text(INTRODUCTION),
        Text(
            f"{len(arms)} arms and {len(seeds)} seed{'s' * (len(seeds) != 1)} ({', '.join(map(str, seeds))}).{sizes}{few}"
        ),
        Text(f"Settings of the first arm, which the others share where nothing else is said: {', '.join(common)}."),
        Table(("arm", "name in files", "what it is", "hyperparameters"), rows),
        *warned,
        *([Text("This study is not complete.")] if study.get("complete") is False and not len(ledger) else []),
    ]


def _hyperparameters(config: Mapping[str, Any]) -> str:
    stages = [stage.get("hyperparameters") or {} for stage in config.get("stages") or [config]]
    return "; ".join(
        ", ".join(f"{name} {_said(value)}" for name, value in chosen.items()) for chosen in stages if chosen
    )


def _claims(ledger: pd.DataFrame) -> list[Block]:
    """The ledger, supported and contradicted claims first."""
    columns = ("verdict", "claim", "effect", "95 % interval", "matters from", "seeds", "p", "arms", "source, note")
    order = ledger["verdict"].map({"supported": 0, "contradicted": 1, "undecided": 2}).sort_values(kind="stable").index
    rows = []
    for row in ledger.loc[order].itertuples():
        claim = f"{_said(row.statement)} ({row.group})" if _said(row.group) else _said(row.statement)
        effect = f"{_number(row.effect)} {_said(row.unit)}"
        interval = "" if pd.isna(row.low) else f"{_number(row.low)} to {_number(row.high)}"
        source = "; ".join(filter(None, (_said(row.source), _said(row.note).strip("; "))))
        numbers = (_number(row.smallest_effect), _number(row.n_seeds), _number(row.p_corrected))
        rows.append((_said(row.verdict), claim, effect, interval, *numbers, _said(row.arms), source))
    return [Heading("The claims"), Text(LEDGER), Table(columns, rows)]


def _left_out(folder: Path, study: Mapping[str, Any]) -> list[Block]:
    missing = _csv(folder / "claims_left_out.csv", dict.fromkeys(("statement", "group", "why"), str))
    drawn = [figure.title for figure in FIGURES if not (folder / "figures" / f"{figure.name}.png").exists()]
    blocks: list[Block] = []
    if missing is not None and len(missing):
        rows = [tuple(_said(row[name]) for name in ("statement", "group", "why")) for _, row in missing.iterrows()]
        blocks += [Text("Claims that could not be judged:"), Table(("claim", "examples", "why"), rows)]
    if drawn:
        blocks += [Text(f"Figures without measurements in this study: {', '.join(drawn)}.")]
    return [Heading("What is missing"), *blocks] if blocks else []


def _pictures(folder: Path, study: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    for figure in FIGURES:
        for name in dict.fromkeys([figure.table, *study.get("probes", {})]):
            stem = figure.name + name.removeprefix(figure.table)
            if name.partition("-")[0] != figure.table or not (folder / "figures" / f"{stem}.png").exists():
                continue
            title = figure.title + (f" ({name.partition('-')[2]})" if name != figure.table else "")
            links = [(kind, f"figures/{stem}.{kind}") for kind in ("csv", "pdf", "svg")
                     if (folder / "figures" / f"{stem}.{kind}").exists()]  # fmt: skip
            caption = _caption(folder, study, figure, name, stem)
            blocks += [Heading(title, 3), Picture(Path("figures") / f"{stem}.png", caption, links)]
    return [Heading("Figures"), *blocks] if blocks else []


def _caption(folder: Path, study: Mapping[str, Any], figure: StudyFigure, probe: str, stem: str) -> str:
    """What is seen, how it was estimated, on how many examples and seeds."""
    plotted = _csv(folder / "figures" / f"{stem}.csv", {})
    counts = _whole(plotted, "n_seeds")
    seeds = f"{' to '.join(map(str, dict.fromkeys([counts[0], counts[-1]])))} seeds" if counts else ""
    if drawn := [] if counts else _whole(plotted, "seed"):
        seeds = f"seed {', '.join(map(str, drawn))}"
    result = _first_result(folder, study, probe)
    how = f"Measured: {settings_words(result.settings)}." if result else ""
    return " ".join(filter(None, (figure.caption, how, f"{seeds[:1].upper()}{seeds[1:]}." if seeds else "")))


def _whole(table: pd.DataFrame | None, column: str) -> list[int]:
    """The different whole numbers of a column, rising; [] where it is not there or holds others."""
    try:
        values = [] if table is None or column not in table else sorted(set(table[column].astype(float)))
        return [int(value) for value in values]
    except (ValueError, OverflowError):
        return []


def _first_result(folder: Path, study: Mapping[str, Any], probe: str) -> Result | None:
    """The first stored result of a probe, for its settings."""
    for path in study.get("products", {}):
        if path.startswith(f"results/{probe}/") and ".." not in path:
            try:
                return load(folder / path)
            except ValueError:
                return None
    return None


def _end_of_training(folder: Path) -> list[Block]:
    """Means over seeds at the end of training, from the figures' numbers."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for column, (name, query, digits) in _END.items():
        rows = _csv(folder / "figures" / f"{name}.csv", _DRAWN)
        if rows is None or not {word for word in query.split() if word.isidentifier()} - {"and", "or"} <= set(rows):
            continue
        rows = rows.query(query) if query else rows
        rows = rows.drop_duplicates(["group", "arm"], keep="last")
        for row in rows.itertuples():
            unit = f" {row.unit}" if hasattr(row, "unit") else ""
            value = f"{row.mean:.{digits}f}" if digits < 3 else _number(row.mean)
            around = f" ({_number(row.low)} to {_number(row.high)})" if row.n_seeds > 1 else ""
            found.setdefault((row.group, row.arm), {})[column] = f"{value}{around}{unit}"
    columns = [column for column in _END if any(column in values for values in found.values())]
    names = looks(arm for _, arm in found)
    rows = [(group, names[arm].label, *(values.get(c, "") for c in columns)) for (group, arm), values in found.items()]
    if not rows:
        return []
    return [
        Heading("Numbers at the end of training"),
        Text("Means over seeds, in brackets the lowest and the highest."),
        Table(("examples", "arm", *columns), rows),
    ]


def _again(folder: Path, study: Mapping[str, Any]) -> list[Block]:
    """How each number is made again."""
    rows = []
    for name, probe in study.get("probes", {}).items():
        result = _first_result(folder, study, name)
        if result:
            run, epoch = result.source.get("run"), result.source.get("epoch")
            number = epoch if isinstance(epoch, int) else 0
            checkpoint = f"runs/{run}/checkpoints/epoch_{number:04d}.pt"
            typed = command(probe, checkpoint, result.settings.get("num_examples"))
            rows.append((name, f"results/{name}/", typed))
    try:
        recipe = read_text(folder / "recipe.toml")
    except (OSError, ValueError):
        recipe = ""
    whole: list[Block] = [Text("The recipe:"), Code(recipe)] if recipe else []
    return [
        Heading("How to make each number again"),
        Text("All of it, continuing what is there; and claims, figures and this report from the stored results alone:"),
        Code("snnprobe reproduce recipe.toml --out FOLDER\nsnnprobe report FOLDER"),
        Text("The numbers of a claim are in claims.csv, those of a figure in the CSV file beside it, those of a run in "
             "runs/NAME/metrics.csv. One measurement of each probe alone, in the study's folder, where its checkpoints "
             "were kept:"),
        Table(("probe", "results", "command for the first of them"), rows),
        *whole,
    ]  # fmt: skip


def _environment(study: Mapping[str, Any]) -> list[Block]:
    known = dict(study.get("environment", {}))
    times = [product.get("seconds") for product in study.get("products", {}).values()]
    times = [time for time in times if isinstance(time, int | float) and math.isfinite(time)]
    known["time of all runs and measurements"] = f"{sum(times) / 60:.1f} min"
    known["recipe SHA-256"] = study.get("recipe_sha256", "")
    rows = [(str(name).replace("_", " "), _said(value)) for name, value in known.items()]
    return [Heading("Environment"), Table(("what", "value"), rows)]


def _said(value: object) -> str:
    return "" if value is None or (isinstance(value, float) and pd.isna(value)) else str(value)


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
