"""The page of the motion study: every experiment beside the paper, verdicts first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from codec.pages.shell import Section, table
from tools.motion_study.verdicts import Finding, Report
from tools.report.page import embedded_figure, render_page

__all__ = ["page"]


def page(
    reports: Sequence[Report], *, missing: Sequence[str], provenance: Mapping[str, Any]
) -> str:
    """Make the page of a whole study."""
    judged = [finding for one in reports for finding in one.findings if finding.agrees is not None]
    agreeing = sum(1 for finding in judged if finding.agrees)
    weights = ", ".join(provenance.get("weights", {}))
    lead = (
        "Ulhaq & Bajić 2021 (arXiv:2102.04018) say that motion survives the edge sub-model: v in "
        "the input is v / n^k in every channel (12). Reproduced with this library's own motion, "
        f"warping and NRMSE. Of {len(judged)} comparisons with the paper, {agreeing} agree. "
        f"Weights: {weights}."
    )
    sections = [_overview(reports, missing)]
    for one in reports:
        body = Markup("").join(embedded_figure(stem, caption) for stem, caption in one.figures)
        body += table(
            ("", "the paper reports", "measured here", "verdict"),
            [
                (finding.what, finding.paper, finding.measured, _marked(finding))
                for finding in one.findings
            ],
            numeric=(),
        )
        body += Markup("").join(one.shown)
        sections.append(Section(one.title, body, anchor=one.name, note=one.note))
    return render_page(
        title="Latent-space motion: the paper, reproduced",
        lead=lead,
        sections=sections,
        provenance=provenance,
    )


def _marked(finding: Finding) -> Markup:
    """Set off the word that counts."""
    word, colon, why = finding.verdict.partition(":")
    return Markup("<strong>{}</strong>{}{}").format(word, colon, why)


def _overview(reports: Sequence[Report], missing: Sequence[str]) -> Section:
    departures = [
        (one.title, finding.what, finding.why)
        for one in reports
        for finding in one.findings
        if finding.agrees is False
    ]
    rows = [
        (
            one.title,
            sum(1 for finding in one.findings if finding.agrees is True),
            sum(1 for finding in one.findings if finding.agrees is False),
        )
        for one in reports
        if any(finding.agrees is not None for finding in one.findings)
    ]
    body = table(("experiment", "agree", "depart"), rows)
    if departures:
        body += table(("experiment", "departure", "why"), departures, numeric=())
    note = "".join(f"Left out: {line}. " for line in missing)
    return Section("Summary", body, note=note)
