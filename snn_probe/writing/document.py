"""A document of headings, paragraphs, tables, pictures and code, as one HTML page or as Markdown.

All text is taken as text: whatever a file held, it cannot become markup. The HTML page needs no network and no script;
its pictures are inside it. In Markdown, pictures are links relative to the document's folder.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_MARKDOWN = re.compile(r"([\\`*\[\]<>|#~]|\b_|_\b)")
_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --dim: #595959; --page: #fff; --line: #d5d5d5; --shade: #f4f4f4;
  --supported: #00704f; --contradicted: #a84300; --undecided: #595959; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --dim: #b0b0b0; --page: #161616; --line: #3c3c3c;
  --shade: #232323; --supported: #3ecf9f; --contradicted: #ff9a57; --undecided: #b0b0b0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 68rem; color: var(--ink); background: var(--page);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-top: 1px solid
  var(--line); padding-top: .8rem; } h3 { font-size: 1.05rem; margin-bottom: .3rem; }
figure { margin: 1.2rem 0; break-inside: avoid; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 3px; margin: 0 auto; }
figcaption { color: var(--dim); font-size: .9rem; margin-top: .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; margin: .6rem 0 1.2rem; }
th, td { min-width: 5.5em; overflow-wrap: anywhere; }
th, td { text-align: left; vertical-align: top; padding: .3rem .5rem; border-bottom: 1px solid var(--line); }
th { background: var(--shade); } tr { break-inside: avoid; }
pre { background: var(--shade); padding: .7rem; font-size: .82rem; white-space: pre-wrap; border-radius: 3px; }
.supported, .contradicted, .undecided { font-weight: 600; white-space: nowrap; }
.supported { color: var(--supported); } .contradicted { color: var(--contradicted); }
.undecided { color: var(--undecided); }
a { color: inherit; }
@media screen and (max-width: 48rem) {
  thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
  table, tbody, tr, td { display: block; width: 100%; } tr { padding: .5rem 0; border-bottom: 2px solid var(--line); }
  td { border: 0; padding: .1rem 0; } td:empty { display: none; }
  td::before { content: attr(data-label) ": "; color: var(--dim); font-weight: 600; } }
@media print { :root { color-scheme: light; --ink: #000; --dim: #333; --page: #fff; --line: #bbb; --shade: #f4f4f4;
  --supported: #00704f; --contradicted: #a84300; --undecided: #444; } body { max-width: none; font-size: 10pt; }
  table { font-size: 7pt; } th, td { min-width: 0; padding: .15rem .3rem; overflow-wrap: break-word; } }
"""


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 (the document's), 2 or 3."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of points."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Lines to be read or typed as they are."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table of texts; on a narrow screen each row becomes a card with the columns' names."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG file, its caption, and files beside it to link to: (what it is called, path relative to the document)."""

    path: Path
    caption: str
    links: Sequence[tuple[str, str]] = ()


Block = Heading | Text | Items | Code | Table | Picture
VERDICTS = ("supported", "contradicted", "undecided")  # cells with these words are set apart


def to_html(blocks: Sequence[Block], folder: Path) -> str:
    """The whole page. Raises OSError when a picture cannot be read."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    body = "\n".join(_html(block, folder) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def to_markdown(blocks: Sequence[Block], folder: Path) -> str:
    """The same as Markdown, with tables as GitHub has them."""
    return "\n\n".join(_markdown(block, folder) for block in blocks) + "\n"


def _html(block: Block, folder: Path) -> str:
    said = html.escape
    match block:
        case Heading(text, level):
            return f"<h{level}>{said(text)}</h{level}>"
        case Text(text):
            return f"<p>{said(text)}</p>"
        case Items(texts):
            return "<ul>" + "".join(f"<li>{said(text)}</li>" for text in texts) + "</ul>"
        case Code(text):
            return f"<pre>{said(text)}</pre>"
        case Table(columns, rows):
            head = "".join(f"<th>{said(name)}</th>" for name in columns)
            body = "\n".join(f"<tr>{''.join(map(_cell, columns, row))}</tr>" for row in rows)
            return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
        case Picture(path, caption, links):
            data = base64.b64encode((folder / path).read_bytes()).decode()
            linked = " · ".join(f'<a href="{said(place)}">{said(name)}</a>' for name, place in links)
            image = f'<img alt="{said(caption)}" src="data:image/png;base64,{data}">'
            return f"<figure>{image}<figcaption>{said(caption)} {linked}</figcaption></figure>"
    raise TypeError(f"a document cannot hold a {type(block).__name__}; give blocks of snn_probe.writing.document")


def _cell(name: str, text: str) -> str:
    mark = f' class="{text}"' if text in VERDICTS else ""
    return f'<td data-label="{html.escape(name)}"{mark}>{html.escape(text)}</td>'


def _markdown(block: Block, folder: Path) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Text(text):
            return _plain(text)
        case Items(texts):
            return "\n".join(f"* {_plain(text)}" for text in texts)
        case Code(text):
            fence = "`" * max(3, max(map(len, re.findall("`+", text)), default=0) + 1)
            return f"{fence}\n{text.rstrip()}\n{fence}"
        case Table(columns, rows):
            lines = [columns, ["---"] * len(columns), *([_plain(text) for text in row] for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Picture(path, caption, links):
            linked = " · ".join(f"[{_plain(name)}](<{place}>)" for name, place in links)
            return f"![{_plain(caption)}](<{path.as_posix()}>)\n\n{_plain(caption)} {linked}".rstrip()
    raise TypeError(f"a document cannot hold a {type(block).__name__}; give blocks of snn_probe.writing.document")


def _plain(text: str) -> str:
    """Text whose signs mean nothing in Markdown, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
