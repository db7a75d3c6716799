"""Against what people use today, side by side in one run: ``python benchmarks/run.py [--repeats 5] [--only WHAT]``.

* TRT's penalty against a loop over t in the paper's form.
* Exact Fisher traces against the published procedure: a half-width VGGSNN, and ``tiny`` on event-digits.
* Top five Hessian eigenvalues against PyHessian, hessian-eigenthings and scipy's eigsh.
* A plane of the landscape against loss-landscapes.
* Peak memory of the Fisher probe over that of a plain training step at the same batch size.

Peers and ours alternate. Each line, and the table at the end, gives median seconds, the median ratio of a pair with the
smallest and largest, n, peak memory (growth during one call in a process of its own) and the error against a tight
reference. ``pip install -e '.[bench]'`` installs the peers; one that is missing or does not run is left out, with the
reason.
"""

import argparse
from pathlib import Path

import curvature
import fisher
import landscape
import penalty
from contests import growth, machine, markdown, peak_megabytes

CONTESTS = {"penalty": penalty.CONTESTS, "fisher": fisher.CONTESTS, "hessian": curvature.CONTESTS,
            "landscape": landscape.CONTESTS}  # fmt: skip
BY_NAME = {contest.name: contest for contests in [*CONTESTS.values(), fisher.MEMORY] for contest in contests}


def peak(name: str, side: str) -> None:
    """In a process of its own: prints the growth of the peak memory during the peer's or our call."""
    contest = BY_NAME[name]
    getattr(contest.prepare(True), side)()
    print(growth(getattr(contest.prepare(False), side)))


def memory() -> str:
    lines = []
    for contest in fisher.MEMORY:
        training, probe = (peak_megabytes(contest.name, side) for side in ("peer", "ours"))
        ratio = f"ratio {probe / training:.2f}"
        lines.append(f"{contest.what}: training step {training:.0f} MB, Fisher {probe:.0f} MB, {ratio}")
        print(f"Peak memory, {lines[-1]}", flush=True)
    return "Peak memory of a training step and of the Fisher probe: " + "; ".join(lines) + "."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=(*CONTESTS, "memory"))
    parser.add_argument("--markdown", type=Path, help="write the table there as well")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; give a whole number of at least 1.")
    if options.peak:
        return peak(*options.peak)
    print(f"Machine: {machine()}", flush=True)
    chosen = [contest for key, contests in CONTESTS.items() if options.only in (None, key) for contest in contests]
    rows = [row for contest in chosen if (row := contest.hold(options.repeats))]
    text = f"{machine()}\n\n"
    if rows:
        text += markdown(rows) + "\n"
    if options.only in (None, "memory"):
        text += f"\n{memory()}\n"
    print(f"\n{text}", flush=True)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
