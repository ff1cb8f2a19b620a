"""Means and standard errors over the seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ..._types import Array
from .records import Case, Record

# What a record is judged by; each gives one number a seed.
MEASURES: dict[str, Callable[[Record], Array]] = {
    "accuracy": lambda record: 100 * record.accuracy[-1],
    "weight SQNR": lambda record: record.final_sqnr("weight"),
    "input SQNR": lambda record: record.final_sqnr("input"),
    "roughness": lambda record: record.roughness(),
    "final loss": lambda record: record.loss[-len(record.loss) // 4 :].mean(axis=0),
}


def mean_and_error(values: Array) -> tuple[float, float]:
    """Mean and standard error over independent values."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))


def final_accuracy(records: Iterable[Record]) -> list[dict[str, Any]]:
    """One row a case: accuracy in percent and SQNR of the weights in dB after training, with standard errors."""
    rows = []
    for record in records:
        accuracy = mean_and_error(100 * record.accuracy[-1])
        row = {"case": record.case, "accuracy": accuracy[0], "accuracy_se": accuracy[1]}
        if record.layers:
            row["sqnr_db"], row["sqnr_se"] = mean_and_error(MEASURES["weight SQNR"](record))
        rows.append(row)
    return rows


def against_minmax(
    records: Iterable[Record], rule: str, measure: str, *, where: Callable[[Case], bool] = lambda case: True
) -> tuple[float, float, int]:
    """By how much a rule is above minmax: the mean over cases of the difference within each seed.

    Parameters
    ----------
    records : iterable of Record
    rule : str
    measure : {"accuracy", "weight SQNR", "input SQNR", "roughness", "final loss"}
        Percentage points, dB (inputs: of the cases that quantize them), and for the last two the difference of natural
        logarithms.
    where : callable
        Which cases count.

    Returns
    -------
    mean, stderr : float
        The standard error is over seeds, each averaged over the cases: cases of one seed are not independent.
    count : int
        Cases that have both rules.
    """
    differences = [difference for case, difference in _differences(records, rule, measure) if where(case)]
    if not differences:
        return float("nan"), float("nan"), 0
    return *mean_and_error(np.mean(differences, axis=0)), len(differences)


def judged(records: Iterable[Record], rule: str, measure: str) -> tuple[int, int, int]:
    """In how many cases a rule is above minmax, not decided, and below it, each at 95 % by Student's t over the seeds.

    Parameters
    ----------
    records, rule, measure
        As for `against_minmax`.

    Returns
    -------
    above, undecided, below : int
        A fortieth of the cases comes out above, and one below, where nothing is different.
    """
    signs = []
    for _, difference in _differences(records, rule, measure):
        mean, error = mean_and_error(difference)
        signs.append(0 if abs(mean) <= error * stdtrit(difference.size - 1, 0.975) else np.sign(mean))
    return signs.count(1), signs.count(0), signs.count(-1)


def _differences(records: Iterable[Record], rule: str, measure: str) -> list[tuple[Case, Array]]:
    """Each case of a rule, and by how much it is above minmax for every seed."""
    by_case = {record.case: record for record in records}
    logarithm = measure in ("roughness", "final loss")
    found = []
    for case, record in by_case.items():
        other = by_case.get(Case(case.model, case.start, case.activations, case.grid, "minmax"))
        measured = case.activations or measure != "input SQNR"
        if case.rule == rule and other is not None and measured:
            ours, theirs = (MEASURES[measure](r) for r in (record, other))
            found.append((case, np.log(ours / theirs) if logarithm else ours - theirs))
    return found


def format_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows of text and numbers as aligned columns."""
    cells = [list(header), *([_text(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "-" if np.isnan(value[0]) else f"{value[0]:+.2f} +- {value[1]:.2f}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
