"""The page of the rate-distortion study, out of the study as JSON.

Its shell is that of `tools.report.page`, its figures are those of `figures.py`.
"""

import contextlib
import math
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from codec.pages.shell import Cell, Section, numbers, table
from tools.rate_distortion.bd_rate import MEASURES
from tools.rate_distortion.figures import (
    bd_rate_figure,
    fronts,
    lead_in,
    rate_distortion_figure,
    style_of,
    task_in,
)
from tools.rate_distortion.measures import MEANINGS, Measure, framed_of, measures_of
from tools.rate_distortion.study import ANSWERS, STAGES, percent
from tools.report.figures import save
from tools.report.page import CHARTS, asset, embedded_figure, fragment, render_page

__all__ = ["study_page"]

POINT_FIELDS = (
    "clip", "split", "codec", "variant", "point", "frames", "bytes", "bytes_per_frame",
    "kbit_per_s", "bits_per_element",
)  # fmt: skip
RATES = (
    ("bytes_per_frame", "bytes per frame"),
    ("kbit_per_s", "kbit/s"),
    ("bits_per_element", "bits per element"),
)
DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
SYMBOLS = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle-up",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
}
HEADLINES = 4
"""How many anchors of a split stand at the top of the page: the hardest to beat."""


def study_page(study: Mapping[str, Any]) -> str:
    """Make the page of a rate-distortion study.

    The study is JSON:

        format           1
        provenance       command, commit, date, versions {name: version}, machine {…}
        settings         model, weights, frames, test [codec, …], kl [low, high], task (absent:
                         classification),
                         splits [{name, elements (a frame), tensors}],
                         clips [{name, width, height, frame_rate, frames}]
        points           [{clip, split ("": independent of the split), codec, variant, point,
                         frames, bytes, bytes_per_frame, kbit_per_s, bits_per_element or null,
                         kl, top1_agreement, dense_agreement, nrmse, accuracy (or null), or the
                         measures of another task (see `measures.py`),
                         seconds {stage: seconds}, peak_memory_mb, parameters {…},
                         per_frame {kl [nats] or the loss of another task, bytes [bytes] or null,
                         parts {header, motion, residual: [bytes]} or {}}}]
        refused          [{clip, split, codec, variant, point, reason}]
        comparisons      [{split, test, anchor, measure ("bd_rate" or "bd_kl"), figure (name of
                         the loss that is equal; absent: the lead),
                         clips {clip: {pchip, akima (%), low, high, overlap} or {refusal}},
                         mean (%) or null, interval [low, high] or null, clips_compared}]
        fidelities       [{split, codec, kl, clips, bytes_per_frame, top1_agreement,
                         dense_agreement, nrmse (or null)}]
        showcases        [what `tools.rate_distortion.showcase.showcase` returns]

    Raises:
        ValueError: the study has another format, or holds a number that is not finite.
    """
    if study["format"] != 1:
        raise ValueError(f"a study of format {study['format']}; this page is of format 1")
    sections = [
        _summary(study),
        _curves(study),
        _comparisons(study),
        _fidelities(study),
        _frames(study),
        _showcases(study),
        _costs(study),
        _codecs(study),
    ]
    settings = study["settings"]
    clips, splits = len(settings["clips"]), settings["splits"]
    cuts = " and ".join(split["name"] for split in splits)
    return render_page(
        title="Rate and distortion of feature codecs",
        lead=(
            f"{settings['model']}, cut at {cuts}: {clips} clip{'s' * (clips != 1)} of "
            f"{settings['frames']} frames, coded by {', '.join(settings['test'])} and by what "
            "there is to compare with, all judged by the output of the same network."
        ),
        sections=[section for section in sections if section is not None],
        provenance={**study["provenance"], "weights": settings["weights"]},
        payload=_payload(study),
        scripts=(CHARTS, asset("rate_distortion.js")),
    )


def _names(study: Mapping[str, Any], kind: str) -> list[str]:
    return [entry["name"] for entry in study["settings"][kind]]


def _options(names: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, name) for name in names]


def _measures(study: Mapping[str, Any]) -> list[Measure]:
    """Return the measures of the task that any point has."""
    return [
        measure
        for measure in measures_of(task_in(study))
        if any(point.get(measure.name) is not None for point in study["points"])
    ]


def _payload(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the scripts need: points as rows, since names of fields repeated some thousand
    times are most of a file, and figures by frame of the points on a front only.
    """
    measures, lead, framed = _measures(study), lead_in(study), framed_of(task_in(study))
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for point in study["points"]:
        groups[point["clip"], point["split"]].append(point)
    on_front: dict[int, list[str]] = defaultdict(list)  # by which measures
    for measure in dict.fromkeys((lead, *(one for one in measures if one.compared))):
        for found in groups.values():
            for front in fronts(found, measure).values():
                for point in front:
                    on_front[id(point)].append(measure.name)
    fields = (*POINT_FIELDS, *(one.name for one in measures), "front", "per_frame")
    rows = []
    for point in study["points"]:
        fronted = on_front.get(id(point), [])
        shown = {name: point["per_frame"].get(name) for name in (framed.name, "bytes", "parts")}
        derived = {"front": fronted, "per_frame": shown if lead.name in fronted else None}
        rows.append([_short(derived.get(key, point.get(key))) for key in fields])
    styles = {}
    for codec in dict.fromkeys(point["codec"] for point in study["points"]):
        style = style_of(codec)
        styles[codec] = {
            "colour": style.colour,
            "dash": DASHES[style.dash],
            "symbol": SYMBOLS[style.marker],
            "ours": codec in study["settings"]["test"],
        }
    return {
        "splits": study["settings"]["splits"],
        "measures": [
            {
                "name": one.name,
                "label": one.label,
                "brief": one.brief,
                "title": one.title,
                "unit": one.unit,
                "loss": one.kind == "loss",
                "compared": one.compared,
            }
            for one in dict.fromkeys((lead, *measures, framed))
        ],
        "framed": framed.name,
        "points": {"fields": fields, "rows": rows},
        "styles": styles,
        "showcases": study["showcases"],
    }


def _short(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Round floats to five digits, deep down."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else value
    if isinstance(value, Mapping):
        return {key: _short(found) for key, found in value.items()}
    return [_short(found) for found in value] if isinstance(value, list) else value


def _summary(study: Mapping[str, Any]) -> Section:
    """Lead with the anchors that come closest."""
    tests, lead = study["settings"]["test"], lead_in(study)
    items: list[tuple[str, str, str]] = []
    for split in _names(study, "splits"):
        by_figure: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = defaultdict(dict)
        for row in study["comparisons"]:
            if row["split"] == split and row["measure"] == "bd_rate" and row["mean"] is not None:
                by_figure[_figure_of(row, lead)][row["test"], row["anchor"]] = row
        found = by_figure[lead.name]
        rows = [
            row
            for (test, anchor), row in found.items()
            if test == tests[0] and not anchor.startswith("lmc") and anchor not in ANSWERS
        ]
        hardest = sorted(rows, key=lambda row: -row["mean"])[:HEADLINES]
        answers = [found[tests[0], name] for name in ANSWERS if (tests[0], name) in found]
        for row in (*hardest, *answers):
            others = [
                f"{test}: {percent(found[test, row['anchor']]['mean'])}"
                for test in tests[1:]
                if (test, row["anchor"]) in found
            ]
            pair = tests[0], row["anchor"]
            others += [
                f"at equal {measure.lost}: {percent(by_figure[measure.name][pair]['mean'])}"
                for measure in _measures(study)
                if measure != lead and pair in by_figure[measure.name]
            ]
            count = row["clips_compared"]
            notes = [_interval(row), f"{count} clip{'s' * (count != 1)}", *others]
            label = f"{tests[0]} against {row['anchor']}, {split}"
            note = Markup(" · ").join(
                Markup('<span class="together">{}</span>').format(part) for part in notes if part
            )
            items.append((label, percent(row["mean"]), note))
    low, high = (f"{limit:g}" for limit in study["settings"]["kl"])
    return Section(
        "Summary",
        numbers(items)
        + fragment(
            "reading.html",
            low=low,
            high=high,
            findings=study.get("findings", ()),
            lead=lead,
            meanings=[
                (measure.label, MEANINGS[measure.name])
                for measure in _measures(study)
                if measure.name in MEANINGS
            ],
        ),
        note=(
            f"Mean BD-rate over the clips{_at_equal(lead)}, against the anchors that are hardest "
            "to beat, and against those that send the answer instead of features, if measured."
        ),
    )


def _figure_of(row: Mapping[str, Any], lead: Measure) -> str:
    """Name the loss that a comparison holds equal."""
    return str(row.get("figure", lead.name))


def _at_equal(lead: Measure) -> str:
    """Say at equal what, where it is not what it has always been."""
    return "" if lead.name == "kl" else f" at equal {lead.lost}"


def _interval(row: Mapping[str, Any]) -> str:
    if row["interval"] is None:
        return ""
    low, high = map(percent, row["interval"])
    return f"95 %: {low.removesuffix(' %')} … {high}"


def _figure(figure: Figure, caption: str) -> Markup:
    with tempfile.TemporaryDirectory() as folder:
        stem = Path(folder) / "figure"
        save(figure, stem)
        return embedded_figure(stem, caption)


def _curves(study: Mapping[str, Any]) -> Section:
    splits, lead = _names(study, "splits"), lead_in(study)
    overviews = [
        (
            split,
            _figure(
                rate_distortion_figure(study, split),
                f"All clips at {split}: {lead.label} over bytes per frame.",
            ),
        )
        for split in splits
    ]
    measures = _measures(study)
    fidelities = [(measure.name, measure.label) for measure in measures]
    body = fragment(
        "curves.html",
        splits=_options(splits),
        clips=_options(_names(study, "clips")),
        rates=RATES,
        fidelities=fidelities,
        overviews=overviews,
        lead=lead,
        others=[one.brief for one in measures if one.compared and one != lead],
    )
    return Section("Curves", body, note="Lower and further left is better.")


def _comparisons(study: Mapping[str, Any]) -> Section | None:
    if not study["comparisons"]:
        return None
    lead = lead_in(study)
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in study["comparisons"]:
        figure = _figure_of(row, lead)
        measure = row["measure"] if figure == lead.name else f"{row['measure']}-{figure}"
        groups[row["split"], row["test"], measure].append(row)
    labels = {**MEASURES, **_labels(study)}
    splits = _names(study, "splits")
    body = fragment(
        "comparisons.html",
        splits=_options(splits),
        tests=_options(dict.fromkeys(test for _, test, _ in groups)),
        measures=[(key, labels[key]) for key in dict.fromkeys(key for _, _, key in groups)],
        groups=[
            {
                "split": split,
                "test": test,
                "measure": measure,
                "table": _comparison_table(study, rows, test, labels[measure]),
                "refusals": [
                    f"{clip} against {row['anchor']}: {cell['refusal']}"
                    for row in rows
                    for clip, cell in row["clips"].items()
                    if "refusal" in cell
                ],
            }
            for (split, test, measure), rows in groups.items()
        ],
        figures=[
            (
                split,
                _figure(
                    bd_rate_figure(study, split),
                    f"BD-rate at {split}{_at_equal(lead)}: the mean over clips, its 95 % interval "
                    "above it, and a dot for each clip. Clips far to the right of zero are drawn "
                    "at the edge.",
                ),
            )
            for split in splits
        ],
    )
    return Section(
        "Comparisons",
        body,
        note="Negative is better: fewer bytes at equal KL, or less KL at equal rate."
        if lead.name == "kl"
        else "Negative is better: fewer bytes at equal loss, of the measure chosen.",
    )


def _labels(study: Mapping[str, Any]) -> dict[str, str]:
    """Name the BD-rates of a task that has several, by the loss that each holds equal."""
    lead, measures = lead_in(study), _measures(study)
    if lead.name == "kl":
        return {}
    return {
        "bd_rate" if one == lead else f"bd_rate-{one.name}": f"BD-rate at equal {one.lost}"
        for one in (lead, *measures)
    }


def _comparison_table(
    study: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], test: str, label: str
) -> Markup:
    name, _, equal = label.partition(" at ")
    header = ["clip", *(row["anchor"] for row in rows)]
    lines: list[list[Cell]] = [
        [clip, *(_comparison_cell(row["clips"].get(clip, {})) for row in rows)]
        for clip in _names(study, "clips")
    ]
    lines.append(["mean", *(_mean_cell(row) for row in rows)])
    caption = (
        f"{name} of {test}{equal and f' at {equal}'}, % by PCHIP; below it by Akima, and which "
        "share of the shorter curve was compared."
    )
    return table(header, lines, caption, numeric=range(1, len(header)), totals=1)


def _comparison_cell(cell: Mapping[str, Any]) -> Cell:
    if "pchip" not in cell:
        title = cell.get("refusal", "not measured")
        return Markup('<span class="quiet" title="{}">–</span>').format(title)
    title = (
        f"PCHIP {cell['pchip']:+.1f} %, Akima {cell['akima']:+.1f} %, between "
        f"{cell['low']:.3g} and {cell['high']:.3g}, {cell['overlap']:.0%} of the shorter curve"
    )
    return Markup('<span class="{}" title="{}">{}</span><small>{} · {}</small>').format(
        _verdict(cell["pchip"]),
        title,
        _signed(cell["pchip"]),
        _signed(cell["akima"]),
        f"{cell['overlap']:.0%}",
    )


def _mean_cell(row: Mapping[str, Any]) -> Cell:
    if row["mean"] is None:
        return None
    count, clips = row["clips_compared"], len(row["clips"])
    parts = [] if row["interval"] is None else [" … ".join(map(_signed, row["interval"]))]
    if count < clips:
        parts.append(f"{count} of {clips}")
    return Markup('<span class="{}">{}</span><small>{}</small>').format(
        _verdict(row["mean"]), _signed(row["mean"]), " · ".join(parts)
    )


def _signed(value: float) -> str:
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "−")


def _verdict(value: float) -> str:
    return "quiet" if abs(value) < 0.05 else "good" if value < 0 else "bad"


def _fidelities(study: Mapping[str, Any]) -> Section | None:
    """Tabulate what codecs keep, at equal KL, of what they did not choose by."""
    found = study.get("fidelities", ())
    if not found:
        return None
    rows: list[list[Cell]] = [
        [
            one["codec"],
            one["split"] or "any",
            one["clips"],
            *(one[name] for name in ("bytes_per_frame", "top1_agreement", "dense_agreement")),
            one["nrmse"],
        ]
        for one in found
    ]
    header = ["codec", "split", "clips", "bytes per frame", "top-1", "dense agreement", "NRMSE"]
    return Section(
        "At equal KL",
        table(header, rows, f"At a KL divergence of {found[0]['kl']:g}, means over the clips."),
        note=(
            "What one output keeps says little of the features where the encoder chose by that "
            "output: dense agreement (the classifier at every position of the last feature map) "
            "and NRMSE are what it did not look at."
        ),
    )


def _frames(study: Mapping[str, Any]) -> Section | None:
    framed = framed_of(task_in(study))
    if not any(point["per_frame"].get(framed.name) for point in study["points"]):
        return None
    body = fragment(
        "frames.html",
        splits=_options(_names(study, "splits")),
        clips=_options(_names(study, "clips")),
        framed=framed,
    )
    note = "Where the bits of a clip go, frame by frame, and what the task loses there."
    return Section("Frames", body, note=note)


def _showcases(study: Mapping[str, Any]) -> Section | None:
    if not study["showcases"]:
        return None
    body = fragment(
        "showcase.html",
        clips=_options(dict.fromkeys(show["clip"] for show in study["showcases"])),
        splits=_options(dict.fromkeys(show["split"] for show in study["showcases"])),
        drawn=any("drawn" in frame for show in study["showcases"] for frame in show["frames"]),
    )
    return Section("Showcase", body)


def _costs(study: Mapping[str, Any]) -> Section:
    """Tabulate seconds and memory by split and codec."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for split in (*_names(study, "splits"), ""):
        for point in study["points"]:
            if point["split"] == split:
                groups[split, point["codec"]].append(point)
    found_stages = {stage: None for point in study["points"] for stage in point["seconds"]}
    stages = list(
        dict.fromkeys(stage for stage in (*STAGES, *found_stages) if stage in found_stages)
    )
    rows: list[list[Cell]] = []
    for (split, codec), points in groups.items():
        times: list[Cell] = []
        for stage in stages:
            found = [
                1000 * point["seconds"][stage] / point["frames"]
                for point in points
                if point["seconds"].get(stage) is not None
            ]
            times.append(f"{statistics.median(found):.2f}" if found else None)
        memory = [point["peak_memory_mb"] for point in points if point["peak_memory_mb"]]
        rows.append([codec, split or "any", *times, f"{max(memory):,.0f}" if memory else None])
    header = ["codec", "split", *(f"{stage}, ms" for stage in stages), "memory, MB"]
    return Section(
        "Time and memory",
        table(
            header,
            rows,
            "Per frame, medians over all clips and points; the largest peak of memory.",
        ),
        note=(
            "Measured on the machine named under Provenance, which others may have shared: "
            "what one stage takes as a multiple of another says more than milliseconds do."
        ),
    )


def _codecs(study: Mapping[str, Any]) -> Section:
    """State how each codec was run, and what was refused."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for point in study["points"]:
        groups[point["codec"], point["variant"]].append(point)
    rows: list[list[Cell]] = [
        [codec, variant, len(points), _parameters([point["parameters"] for point in points])]
        for (codec, variant), points in groups.items()
    ]
    body = table(
        ["codec", "variant", "points", "parameters"],
        rows,
        "Parameters as they were given; a … b where they differ from point to point.",
    )
    if study["refused"]:
        fields = ("clip", "split", "codec", "variant", "point", "reason")
        body += Markup("<h3>Refused</h3>") + table(
            fields,
            [[_plain(entry[key]) for key in fields] for entry in study["refused"]],
            "Points that were asked for and not measured.",
            numeric=(),
        )
    sent = [name for name in ANSWERS if any(codec == name for codec, _ in groups)]
    note = (
        f"{', '.join(sent)}: the output of the whole network, as an encoder could send it that has "
        "computed it anyway; the task is answered, no features arrive, and there is no NRMSE."
        if sent
        else ""
    )
    return Section("Codecs and anchors", body, anchor="codecs", note=note)


def _plain(value: Any) -> str:  # noqa: ANN401 - any JSON
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parameters(found: Sequence[Mapping[str, Any]]) -> Markup:
    parts = []
    for key in dict.fromkeys(key for parameters in found for key in parameters):
        values = list(dict.fromkeys(_plain(one[key]) for one in found if key in one))
        with contextlib.suppress(ValueError):  # names stay in the order of the points
            values.sort(key=float)
        shown = values[0] if len(values) == 1 else f"{values[0]} … {values[-1]}"
        parts.append(f"{key}={shown}" if shown else key)
    return Markup('<code class="parameters">{}</code>').format("  ".join(parts))
