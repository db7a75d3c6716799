"""`snnprobe doctor`: versions, devices, kernels, data sets, and what to fix; works where torch does not."""

from pathlib import Path
from typing import Any

import click


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), help="The folder of the data sets.  [$SNNPROBE_DATA]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def doctor(data_root: Path | None, as_json: bool) -> None:
    """Check the installation: versions, devices, fused kernels, data sets, and the fix for what is wrong.

    Libraries are imported in another process, so a broken one is reported like the rest. Exit status: 0 if there is
    nothing to fix, 1 otherwise.
    """
    import json

    from snn_probe.installation.doctor import examine

    report = examine(None if data_root is None else str(data_root))
    click.echo(json.dumps(report, indent=1) if as_json else "\n".join(lines_of(report)))
    raise SystemExit(0 if report["ok"] else 1)


def lines_of(report: dict[str, Any]) -> list[str]:
    """The report as text; what is to be fixed comes last, with a command each."""
    lines = [f"snn_probe {report['snn_probe']}, Python {report['python']}, {report['platform']}", "", "libraries"]
    lines += [f"  {one['name']:<14}{_library(one)}" for one in report["libraries"]]
    lines += ["", "devices", *(f"  {one['device']:<14}{_device(one)}" for one in report["devices"])]
    lines += ["", "fused kernels (SpikingJelly's neurons, in a network of your own)", *_kernels(report["kernels"])]
    lines += ["", "data sets", *_data(report["data"]), ""]
    problems = report["problems"]
    if not problems:
        return [*lines, "Nothing to fix."]
    lines.append("To fix:")
    for number, one in enumerate(problems, 1):
        lines += [f"  {number}. {one['what']}", f"     {one['fix']}"]
    return lines


def _library(one: dict[str, Any]) -> str:
    from snn_probe.installation.doctor import PURPOSE

    if one["error"]:
        return f"{one['version'] or '-'}  does not load: {one['error']}"
    if one["version"] is None and one["loads"] is None:
        return "not installed" if one["required"] else f"not installed ({PURPOSE[one['name']]})"
    return f"{one['version'] or 'version unknown'}{'' if one['loads'] else '  not tried: torch does not load'}"


def _device(one: dict[str, Any]) -> str:
    cores = f", {one['cores']} cores, {one['threads'] or '?'} threads" if "cores" in one else ""
    sizes = ", ".join(
        f"{one[key] / 1e9:.1f} GB {word}" for key, word in (("memory", "memory"), ("free", "free")) if one[key]
    )
    return f"{one['name']}{cores}{', ' if sizes else ''}{sizes}"


def _kernels(kernels: dict[str, Any] | None) -> list[str]:
    if kernels is None:
        return ["  not known: torch or SpikingJelly does not load"]
    lines = []
    for device, one in kernels.items():
        lines.append(f"  {device:<14}{one['implementation']}")
        lines += [f"  {'':<14}not {name}: {reason}" for name, reason in one["unavailable"].items()]
    return lines


def _data(found: list[dict[str, Any]] | None) -> list[str]:
    if found is None:
        return ["  not looked for: torch does not load"]
    lines = []
    for one in found:
        if one["place"]:
            counts = "" if one["counts"] is None else ", {:,} / {:,} / {:,} examples".format(*one["counts"])
            lines.append(f"  {one['name']:<14}{one['place']}{counts}{' (see below)' if one['problem'] else ''}")
    absent = [one["name"] for one in found if not one["place"]]
    return (
        [*lines, f"  not found: {', '.join(absent)} (snnprobe data says what is expected where)"] if absent else lines
    )
