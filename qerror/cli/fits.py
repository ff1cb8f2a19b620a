"""What is printed of fitted tensors: a table or JSON, what was left out, what could not be fitted."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._check import plain
from ..checkpoints.fitting import QUANTIZED, TensorFit
from ..checkpoints.recipe import shared_scales
from ..checkpoints.rows import medians, report, row, totals
from ..files.elements import is_real, known_type
from .render import print_json, print_table, say

_COLUMNS = ("tensor", "shape", "dtype", "kurtosis", "groups", "bits", "scales")
# What a reason says of one tensor alone.
_OF_SHAPE = re.compile(r" for x of shape \([\d, ]*\)$")
# Names in a line; --json has all.
_NAMED = 10


def _said(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not the usual ones, in words."""
    words = {"axis": "axis", "block_size": "blocks of", "zero_point": "zero point", "scale_format": "scales"}
    said = {words[key]: options[key] for key in words if key in options}
    if options.get("shift"):
        said["shift"] = options["shift"]
    return said


def show(
    name: str,
    grids: Sequence[str],
    done: list[TensorFit],
    foreign: Mapping[str, str],
    as_json: bool,
    options: Mapping[str, Any],
    command: str = "fit",
    together: Sequence[str] = (),
) -> None:
    """Print what was found, as a table or as JSON."""
    shared = shared_scales([fit.info.name for fit in done if fit.mse], together)
    stored = options.get("scale_format")
    if as_json:
        found = report(done, dict(foreign), stored)
        rest = {key: found[key] for key in ("total", "median", "left_out")}
        rest |= {"together": shared} if together else {}
        print_json(command, found["rows"], grid=", ".join(grids), **options, **rest)
        return
    title = ", ".join([plain(name), *grids, *(f"{key} {value}" for key, value in _said(options).items())])
    fitted = [fit for fit in done if fit.mse]
    if fitted:
        rules = list(dict.fromkeys(rule for fit in done for rule in fit.mse))
        # Of several rules each one's SQNR is the best less what it loses; the best scales lose nothing.
        sqnr = "sqnr_db" if len(rules) == 1 else "optimal_sqnr_db"
        losing = [rule for rule in rules if rule != "optimal" or any(row(fit)["lost_db"].get(rule) for fit in fitted)]
        columns = ("tensor", "grid", *_COLUMNS[1:]) if len(grids) > 1 else _COLUMNS
        summaries = [*totals(done, stored), *(medians(done) if len(fitted) > len(grids) else [])]
        rows = [*(row(fit, stored) for fit in fitted), *summaries]
        print_table(title, rows, [*columns, sqnr, *(f"lost {rule}" for rule in losing)])
    if together:
        groups = ", ".join(f"{count} x {plain(pattern)}" for pattern, count in shared.items())
        say(f"tensors that share a tensor scale: {groups or 'none that the patterns match'}")
    _show_unusual(done)
    show_left_out({**{fit.info.name: fit.skipped for fit in done if fit.skipped}, **foreign})
    _show_failed(done)


def show_against(name: str, against: str, done: Sequence[TensorFit], as_json: bool, command: str) -> int:
    """Print how good a quantized checkpoint is, and give the exit status."""
    if as_json:
        found = report(done, {})
        print_json(command, found.pop("rows"), against=against, **found)
    else:
        fitted = [fit for fit in done if fit.mse]
        lost = dict.fromkeys(f"lost {rule}" for fit in fitted for rule in fit.mse)
        columns = ["tensor", "shape", "dtype", "groups", "optimal_sqnr_db", *lost]
        if fitted:
            print_table(f"{plain(name)} against {plain(against)}", [*map(row, fitted), *totals(done)], columns)
        show_left_out({fit.info.name: fit.skipped for fit in done if fit.skipped})
        for fit in done:
            if fit.failed:
                say(f"not evaluated: {plain(fit.info.name)}: {fit.failed}", err=True)
    return 1 if any(fit.failed or fit.skipped == QUANTIZED for fit in done) else 0


def say_dequantized(kinds: Iterable[str]) -> None:
    """Say that values were codes and scales: their errors are against what is stored, not against the original."""
    coded = [kind for kind in dict.fromkeys(kinds) if is_real(kind) and not known_type(kind)]
    if coded:
        hint = "`qerror fit MODEL --against ORIGINAL` says how good these are"
        say(f"{', '.join(coded)}: values of the codes and scales in the file; {hint}")


def _show_failed(done: Sequence[TensorFit]) -> None:
    """Say what could not be fitted, a line for each reason, whatever the shapes that met it."""
    failed: dict[str, list[str]] = {}
    for fit in done:
        if fit.failed:
            failed.setdefault(_OF_SHAPE.sub("", fit.failed), []).append(plain(fit.info.name))
    for reason, names in failed.items():
        more = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
        say(f"not fitted: {', '.join(names[:_NAMED])}{more}: {reason}", err=True)


def show_left_out(reasons: Mapping[str, str]) -> None:
    """Say how many tensors were left out for which reason; --json names them. Of quantized ones say the names, too."""
    left: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        left.setdefault(reason, []).append(plain(name))
    if QUANTIZED in left:
        names = left.pop(QUANTIZED)
        more = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
        say(f"{QUANTIZED}: {', '.join(names[:_NAMED])}{more}")
    hints = {reason: ", --include-1d fits them" if reason.endswith("-D") else "" for reason in left}
    if left:
        parts = [f"{len(names)} ({reason}{hints[reason]})" for reason, names in left.items()]
        say(f"left out: {', '.join(parts)}; --json names them")


def _show_unusual(done: list[TensorFit]) -> None:
    """Say how many groups have no scale of the rule's own."""
    groups = sum(fit.groups for fit in done)
    met = dict.fromkeys((rule, one) for fit in done for rule, counts in fit.unusual.items() for one in counts)
    for rule, status in met:
        counts = [fit.unusual.get(rule, {}).get(status, 0) for fit in done]
        tensors = sum(map(bool, counts))
        where = f"{sum(counts)} of {groups} groups, in {tensors} tensor{'s' if tensors > 1 else ''}"
        say(f"{rule}: {status.name}, {where} ({status})")
