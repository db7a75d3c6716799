"""The pages in docs/: the API reference is what the docstrings say, and every name and link in them leads somewhere."""

import ast
import importlib
import re
import runpy
from pathlib import Path

import pytest

import snn_probe
import snn_probe.probes

ROOT = Path(snn_probe.__file__).parents[1]
DOCS = ROOT / "docs"
MAKE = runpy.run_path(str(DOCS / "make_api.py"))
PUBLIC = MAKE["PUBLIC"]


def test_the_api_reference_is_up_to_date():
    assert (DOCS / "api.md").read_text() == MAKE["page"](), "run python docs/make_api.py"


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_exist_and_are_documented(module):
    loaded = importlib.import_module(module)
    assert loaded.__doc__
    for name in PUBLIC[module]:
        found = getattr(loaded, name)
        if isinstance(found, type) or hasattr(found, "__code__"):
            assert found.__doc__, f"{module}.{name}"


def test_every_probe_is_in_the_reference_and_among_the_numbers():
    assert set(PUBLIC["snn_probe.probes"]) == set(snn_probe.probes.__all__)
    numbers = (DOCS / "numbers.md").read_text()
    left_out = {name for name in snn_probe.probes.__all__ if name not in numbers} - {"hessian_eigenvectors"}
    assert not left_out


def anchors(page):
    """Where links may point to in a page: its anchors, and its headings as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    named = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return named | set(re.findall(r'<a id="([^"]+)">', page))


PAGES = [
    ROOT / "README.md",
    *(ROOT / name / "README.md" for name in ("analyses", "trained_models")),
    *sorted(DOCS.glob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("https://")]
    for link in links:
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_every_page_is_reached_from_the_front_page():
    front = (ROOT / "README.md").read_text()
    assert len(front.splitlines()) <= 200, "a front page; move what is long to docs/"
    for page in PAGES[1:]:
        assert f"]({page.relative_to(ROOT)})" in front, page


def test_names_in_code_exist():
    names = {name for page in PAGES for name in re.findall(r"`(snn_probe(?:\.\w+)+)[`(]", page.read_text())}
    assert len(names) > 10
    for dotted in names:
        module, _, last = dotted.rpartition(".")
        try:
            importlib.import_module(dotted)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), last), dotted


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("See :func:`~snn_probe.a.b` and ``x``.", "See `b` and `x`."),
        ("See :mod:`snn_probe.a`.", "See `snn_probe.a`."),
        ("Formula:\n\n    a = b\n      + c\n\nEnd.", "Formula:\n\n```text\na = b\n  + c\n```\n\nEnd."),
        (">>> f(1)\n2", "```python\n>>> f(1)\n2\n```"),
        ("where a <b and <i> is", "where a \\<b and \\<i> is"),
        ("", ""),
    ],
)
def test_docstrings_become_markdown(docstring, expected):
    assert MAKE["markdown"](docstring) == expected


def test_signatures_are_those_of_the_source():
    source = '''
@decorated
def f(
    a: int = 1e-5,  # small
    *, b: dict[str, int] = {},
) -> int:
    """Doc: with a colon."""
    return a


@dataclass(frozen=True)
class A(B):
    """Doc."""

    x: int = 0
    _y: int = 1

    def m(self) -> None: ...


NAME: dict[str, int] = {"a": 1}
'''
    f, a, name = ast.parse(source).body
    signature = MAKE["signature"]
    assert signature(f, source).startswith("@decorated\ndef f(\n    a: int = 1e-5,  # small\n")
    assert signature(f, source).endswith("\n) -> int:")
    assert signature(a, source) == "@dataclass(frozen=True)\nclass A(B):\n    x: int = 0"
    assert signature(name, source) == 'NAME: dict[str, int] = {"a": 1}'
