"""Which installed versions contradict each other, from what the libraries declare; nothing is imported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

OURS = "snn_probe"
# Their releases go in step with torch's: torch 2.M, torchvision 0.(M + 15), torchaudio 2.M. Only torchvision says so.
TORCH_FAMILY = ("torch", "torchvision", "torchaudio")


@dataclass(frozen=True)
class Problem:
    """Something to fix, and the command that does."""

    what: str
    fix: str


def installed_version(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def installed_place(distribution: str, name: str) -> Path | None:
    """Where the installed distribution has its package `name`, or None if there is no such file or folder."""
    try:
        place = Path(str(metadata.distribution(distribution).locate_file(name.partition(".")[0])))
    except metadata.PackageNotFoundError:
        return None
    return next((found for found in (place, place.with_suffix(".py")) if found.exists()), None)


def needed(distribution: str) -> str:
    """What to install for a library of ours: its name with the bounds that snn_probe declares."""
    for requirement in _requirements(OURS):
        if canonicalize_name(requirement.name) == canonicalize_name(distribution):
            return str(requirement).partition(";")[0]
    return distribution


def conflicts(distributions: list[str]) -> list[Problem]:
    """What snn_probe or one of these libraries declares and the installed versions do not keep."""
    versions = {name: installed_version(name) for name in distributions}
    found = []
    for name in (OURS, *distributions):
        found += [_problem(name, requirement, version) for requirement, version in _broken(name)]
    torch, torchaudio = versions.get("torch"), versions.get("torchaudio")
    if torch and torchaudio and _minor(torch) != _minor(torchaudio):
        said = f"torchaudio {torchaudio} goes with torch {'.'.join(map(str, _minor(torchaudio)))}, but torch {torch} is installed"
        found.append(Problem(said, family_fix(torch)))
    return found


def family_fix(torch: str | None) -> str:
    """The command that installs torch's companions for this torch, or all three where torch itself is out of range."""
    allowed = next((one.specifier for one in _requirements(OURS) if one.name == "torch"), SpecifierSet())
    if torch is not None and _minor(torch)[0] == 2 and allowed.contains(Version(torch).public, prereleases=True):
        minor, first = _minor(torch)[1], 1
    else:
        minor, first = next(m for m in range(999, -1, -1) if allowed.contains(f"2.{m}.0")), 0
    releases = {"torch": f"2.{minor}", "torchvision": f"0.{minor + 15}", "torchaudio": f"2.{minor}"}
    return "pip install " + " ".join(f'"{name}=={releases[name]}.*"' for name in TORCH_FAMILY[first:])


def _requirements(distribution: str) -> list[Requirement]:
    """What an installed distribution declares for this machine, without its extras."""
    try:
        stated = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in stated:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:  # old metadata; its library is judged by whether it loads
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found.append(requirement)
    return found


def _broken(distribution: str) -> Iterator[tuple[Requirement, str]]:
    """Declared requirements that an installed version does not keep."""
    for requirement in _requirements(distribution):
        version = installed_version(requirement.name)
        try:
            if version and not requirement.specifier.contains(version, prereleases=True):
                yield requirement, version
        except InvalidVersion:
            continue


def _problem(name: str, requirement: Requirement, version: str) -> Problem:
    bounds = str(requirement).partition(";")[0].strip()
    said = f"{name} {installed_version(name)} requires {bounds}, but {requirement.name} {version} is installed"
    if requirement.name in TORCH_FAMILY and (name in TORCH_FAMILY or name == OURS):
        return Problem(said, family_fix(installed_version("torch")))
    return Problem(said, f'pip install "{bounds}"')


def _minor(version: str) -> tuple[int, int]:
    major, minor, *_ = (*Version(version).release, 0)
    return major, minor
