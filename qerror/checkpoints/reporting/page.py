"""The page: text and tables that stand alone, and the numbers that its script draws from."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from ..._version import __version__
from ..planning.errors import TensorErrors
from ..planning.plan import Point
from ..rows import finite
from .chart import chart
from .colors import ink_on, palette, step_of
from .content import (
    Content,
    HeatMap,
    further_bit,
    heat_map,
    in_use_db,
    lost_to_minmax,
    natural,
    sqnr,
    verdict,
)
from .present import Present
from .profiles import CLIPS, OUTLIER, Profile

_WARNING = (
    "Weight error is not accuracy. These numbers say how far the stored weights are from the original ones; a network "
    "may forgive a large error in one tensor and not a small one in another. Measure the network on its task before "
    "you ship it."
)
# Rows of a table that print leaves on one page.
_SHORT = 20
# Shades of the map: the page's own policy forbids all that comes from elsewhere.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(content: Content) -> str:
    """The whole report as one HTML file."""
    heat = heat_map(content)
    title = escape(f"Quantization report: {content.name}")
    parts = [
        _top(title, content),
        _bits(content),
        _heat(heat),
        _table(content),
        _profiles(content),
        _left(content),
        f"<footer>Made by qerror {escape(__version__)}. Every format has its best scales; stored bits count codes, "
        "scales and tensor scales.</footer>",
    ]
    data = json.dumps(finite(_data(content, heat)), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<style>\n{_asset('report.css')}</style></head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + f'\n</main>\n<script type="application/json" id="data">{data}</script>\n'
        f"<script>\n{_asset('report.js')}</script>\n</body></html>\n"
    )


def _asset(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _top(title: str, content: Content) -> str:
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in verdict(content))
    return f'<h1>{title}</h1>\n<section class="verdict">{said}</section>\n<p class="warning">{escape(_WARNING)}</p>'


def _bits(content: Content) -> str:
    plan = content.plan.total if content.plan else None
    rows = []
    for point in sorted(content.uniform, key=lambda one: one.bits):
        mix = _best_within(content.front, point.bits)
        rows.append([point.name, _f(point.bits_per_value, 4), _f(point.db, 3), *_mix(mix, point)])
    if plan is not None:
        rows.append(["this plan", _f(plan.bits_per_value, 4), _f(plan.db, 3), "", "", ""])
    head = ["all tensors in", "bits / value", "power / error, dB", "mix: bits", "mix: dB", "gain, dB"]
    return (
        "<section><h2>Bits against error</h2>\n<p>No mix of formats lies above the line, the convex hull of all "
        "assignments; its corners are mixes themselves. Points are one format for all tensors. Higher is better, left "
        "is smaller.</p>\n"
        f"<figure>{chart(content.front, content.uniform, plan)}</figure>\n"
        + _plain_table(
            head, rows, "The best mix on the line that takes no more bits than a single format, and its gain"
        )
        + "</section>"
    )


def _best_within(front: Sequence[Point], bits: int) -> Point | None:
    return next((point for point in reversed(front) if point.bits <= bits), None)


def _mix(mix: Point | None, point: Point) -> list[str]:
    if mix is None:
        return ["", "", ""]
    gain = mix.db - point.db
    return [_f(mix.bits_per_value, 4), _f(mix.db, 3), _f(gain, 2) if gain > 0 else "0"]


def _heat(heat: HeatMap) -> str:
    if not heat.views:
        return ""
    first, values = next(iter(heat.views.items()))
    known = [value for row in values for value in row if value is not None]
    low, high = min(known), max(known)
    colors = palette()
    body = []
    for layer, row in zip([*heat.layers, *heat.outside], values, strict=True):
        wide = f' colspan="{len(heat.modules)}"' if len(row) < len(heat.modules) else ""
        cells = []
        for value in row:
            if value is None:
                cells.append(f'<td{wide} class="none"></td>')
                continue
            step = step_of(value, low, high)
            cells.append(f'<td{wide} style="background:{colors[step]};color:{ink_on(step)}">{value:.1f}</td>')
        body.append(f'<tr><th scope="row">{escape(layer)}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{_broken(module)}</th>' for module in heat.modules)
    views = "".join(f"<option>{escape(view)}</option>" for view in heat.views)
    bar = "".join(f'<i style="background:{color}"></i>' for color in colors[::4])
    return (
        "<section><h2>Layer by module</h2>\n"
        f'<p class="controls js"><label>show <select id="view">{views}</select></label></p>\n'
        f'<p class="legend"><span><span id="view-name">{escape(first)}</span> (dB)</span> '
        f'<span id="low">{low:.1f}</span> '
        f'<span class="bar">{bar}</span> <span id="high">{high:.1f}</span></p>\n'
        f'<div class="wide"><table id="heat"><thead><tr><th scope="col">layer</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></section>"
    )


def _broken(name: str) -> str:
    """A name that may be broken after its dots."""
    return escape(name).replace(".", ".<wbr>")


def _table(content: Content) -> str:
    head = ["tensor", "shape", "values", "kurtosis", f"beyond {OUTLIER:g} std, %"]
    head += ["planned", "bits / value"] if content.plan else []
    head += [*content.formats, *(["in use"] if content.in_use else []), "next bit", "proof"]
    words = {"tensor", "shape", "planned", "proof"}
    columns = "".join(
        f'<th scope="col" class="{"text" if name in words else "number"}">{escape(name)}</th>' for name in head
    )
    body = "".join(_row(content, each) for each in sorted(content.tensors, key=lambda one: natural(one.info.name)))
    return (
        "<section><h2>Tensors</h2>\n<p>A column for each format: SQNR in dB with its best scales. "
        "<b>next bit</b>: dB that a further bit per value buys, from "
        f"{'the planned format' if content.plan else 'the first format'} on. "
        f"{'<b>in use</b>: SQNR of the scales that are there today, on the rows seen. ' if content.in_use else ''}"
        "<b>proof</b>: whether the scales of all formats are proven best.</p>\n"
        '<p class="controls js"><label>filter <input id="filter" type="search" placeholder="part of a name or format" '
        'autocomplete="off"></label> <span id="count"></span> <span class="hint">click a column to sort, a row for its '
        "values</span></p>\n"
        f'<div class="wide"><table id="tensors"><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'
        "</section>"
    )


def _row(content: Content, each: TensorErrors) -> str:
    name, info, found = each.info.name, each.info, content.profiles.get(each.info.name)
    form = content.planned_format(name)
    outliers = "" if found is None else _f(100 * found.outliers, 3)
    cells = [
        _th(name),
        _td("x".join(map(str, info.shape)), sort=info.size),
        _num(str(info.size)),
        _num(_f(each.kurtosis, 2)),
    ]
    cells.append(_num(outliers))
    if content.plan is not None:
        planned = content.plan.tensors.get(name)
        cells += [_td(form or ""), _num("" if planned is None else _f(planned.bits_per_value, 4))]
    cells += [_num(_f(sqnr(each, one), 2), chosen=one == form) for one in content.formats]
    if content.in_use:
        cells.append(_num("" if found is None else _f(in_use_db(found), 2)))
    start = form if form in each.formats else None if content.plan else (content.formats or ("",))[0]
    cells += [_num(_f(further_bit(each, start), 2)), _td(_proof(each))]
    return f'<tr data-name="{escape(name, quote=True)}">{"".join(cells)}</tr>'


def _proof(each: TensorErrors) -> str:
    """What is known of the scales: of float32 in a sketch how far the bounds are apart, in percent of the error."""
    bounds = [error for error in each.formats.values() if error.bounded]
    if bounds:
        apart = max(error.mse / error.least - 1 if error.least else math.inf for error in bounds)
        return f"bounds within {100 * apart:.2g} %"
    unproven = sum(error.unproven for error in each.formats.values())
    return f"{unproven} scales not" if unproven else "proven"


def _profiles(content: Content) -> str:
    """For a look without JavaScript, and for print: what the drawings of a tensor say, as a table."""
    head = [
        "tensor",
        "format",
        "std",
        "largest",
        "minmax loses, dB",
        "best common clip / largest",
        "worst row, dB",
        "rows seen",
        *(["in use", "in use, dB", "in use / minmax scale"] if content.in_use else []),
    ]
    rows = []
    for each in sorted(content.tensors, key=lambda one: natural(one.info.name)):
        found = content.profiles.get(each.info.name)
        if found is None:
            continue
        worst = f"{found.worst[0][1]:.2f} (row {found.worst[0][0]})" if found.worst else ""
        lost = _f(lost_to_minmax(each, found.format), 3)
        clip = _f(float(CLIPS[found.mse.argmin()]), 3)
        about = [f"{found.std:.4g}", f"{found.largest:.4g}", lost, clip, worst, f"{found.rows} of {found.of}"]
        if content.in_use:
            now = found.present
            about += ["", "", ""] if now is None else [now.format, _f(in_use_db(found), 2), f"{now.ratio[1]:.3f}"]
        rows.append([each.info.name, found.format, *about])
    if not rows:
        return ""
    table = _plain_table(head, rows, "Scales and rows of each tensor in its format")
    return f"<details><summary>Scales and worst rows as a table</summary>{table}</details>"


def _left(content: Content) -> str:
    if not content.left:
        return ""
    rows = [[name, why] for name, why in content.left.items()]
    table = _plain_table(["tensor", "why"], rows, "Tensors that stay as they are")
    return f"<details><summary>{len(rows)} tensors stay as they are</summary>{table}</details>"


def _plain_table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + _th(row[0]) + "".join(_num(cell) for cell in row[1:]) + "</tr>" for row in rows)
    short = " short" if len(rows) <= _SHORT else ""
    return (
        f'<div class="wide"><table class="plain{short}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _th(text: str) -> str:
    return f'<th scope="row">{_broken(text)}</th>'


def _td(text: str, sort: Any = None) -> str:
    key = "" if sort is None else f' data-sort="{sort}"'
    return f"<td{key}>{escape(text)}</td>"


def _num(text: str, chosen: bool = False) -> str:
    return f'<td class="n{" chosen" if chosen else ""}">{escape(text)}</td>'


def _f(value: float, digits: int) -> str:
    """A number for a table: nothing where there is none, the infinite as such."""
    if math.isnan(value):
        return ""
    return f"{value:.{digits}f}" if math.isfinite(value) else "∞"


def _data(content: Content, heat: HeatMap) -> dict[str, Any]:
    views = {
        name: [[None if value is None else round(value, 2) for value in row] for row in values]
        for name, values in heat.views.items()
    }
    steps = palette()
    return {
        "palette": steps,
        "ink": [ink_on(step) for step in range(len(steps))],
        "views": views,
        "clips": CLIPS.tolist(),
        "profiles": {name: _profile(each) for name, each in content.profiles.items()},
    }


def _profile(each: Profile) -> dict[str, Any]:
    """Short, as there are hundreds: four digits are more than a drawing shows."""
    return {
        "format": each.format,
        "rows": [each.rows, each.of],
        "end": float(each.edges[-1]),
        "counts": each.counts.tolist(),
        "levels": [float(f"{level:.4g}") for level in each.levels] if each.levels.size <= 256 else [],
        "mse": [float(f"{value:.4g}") for value in each.mse],
        "best": float(f"{each.best:.4g}"),
        "minmax": float(f"{each.minmax:.4g}"),
        "power": float(f"{each.power:.4g}"),
        "worst": [[row, round(db, 2)] for row, db in each.worst],
        "present": None if each.present is None else _present(each.present),
    }


def _present(each: Present) -> dict[str, Any]:
    return {
        "format": each.format,
        "mse": float(f"{each.mse:.4g}"),
        "ratio": [float(f"{ratio:.4g}") for ratio in each.ratio],
    }
