"""What a study's stored results lead to: claims, figures and the report. Nothing is measured here; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from snn_probe.claims import judge, missing_claims
from snn_probe.drawing.study_figures import draw_study
from snn_probe.machine.files import write_atomically
from snn_probe.report import write_report


def conclude(
    tables: Mapping[str, pd.DataFrame],
    folder: str | Path,
    *,
    width: float = 6.75,
    formats: Sequence[str] = ("pdf", "png"),
) -> list[Path]:
    """Judge the claims, draw the figures and write the report of a study into its folder; the paths written.

    claims.csv, claims.json and claims_left_out.csv; figures/, where nothing else stays; report.html and report.md.
    ``formats`` has "png", which the report shows. Raises ValueError where a table cannot be judged or drawn.
    """
    if "png" not in formats:
        raise ValueError(f"formats are {', '.join(formats)}; give 'png' among them, which the report shows.")
    folder = Path(folder)
    ledger = judge(tables)
    written = [folder / "claims.csv", folder / "claims.json", folder / "claims_left_out.csv"]
    write_atomically(written[0], ledger.to_csv(index=False))
    write_atomically(written[1], ledger.to_json(orient="records", indent=1) + "\n")
    write_atomically(written[2], missing_claims(tables).to_csv(index=False))
    drawn = draw_study({**tables, "claims": ledger}, folder / "figures", width=width, formats=formats)
    for path in folder.glob("figures/*"):
        if path not in drawn:
            path.unlink()  # of what is no longer measured
    return [*written, *drawn, *write_report(folder)]
