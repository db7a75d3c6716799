"""Kinds of values that options take."""

import re
from typing import Any

import click


class Inches(click.ParamType):
    """A width, 3.25 or 3.25in."""

    name = "inches"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            inches = float(str(value).strip().removesuffix("in"))
        except ValueError:
            inches = 0.0
        if not 1 <= inches <= 20:
            self.fail(f"{value!r} is no width; give inches from 1 to 20, as 3.25 or 3.25in.", param, ctx)
        return inches


class Device(click.ParamType):
    """Where to compute; whether it is there is seen when it is used."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", str(value)):
            self.fail(f"{value!r} is no device; give cpu, cuda or cuda:N.", param, ctx)
        return str(value)


WIDTH = click.option("--width", default="6.75in", show_default=True, type=Inches(),
                     help="Of the figures: two columns of a journal, or 3.25in for one.")  # fmt: skip
SVG = click.option("--svg", is_flag=True, help="Figures as SVG too.")


def formats(svg: bool) -> tuple[str, ...]:
    """In which formats a study's figures are written."""
    return ("pdf", "png", *(["svg"] if svg else []))
