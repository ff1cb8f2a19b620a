"""The audit: every published number beside ours, and what is to be thought of it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

import numpy as np

from .recompute import Recomputed, recompute
from .registry import Entry, entries

# A number with fewer digits than this is right only as far as rounding goes.
_MANY_DIGITS = 6


class Verdict(enum.Enum):
    """What the digits are worth; the value is the message."""

    EXACT = "right to every digit printed, six or more (of errors twelve can be judged, of scales ten)"
    ROUNDED = "rightly rounded to fewer than six digits"
    TRUNCATED = "cut off instead of rounded: below the exact value by less than one unit of the last digit"
    OFF = "wrong within the digits printed, or a formula that is not the optimum"
    UNCHECKED = "not yet checked: the claim says why"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class AuditRow:
    """One published number (of a codebook its worst level) and ours.

    Attributes
    ----------
    name, source, seen, claim : str
        The entry: heading, where it was published, how that was seen, what the number is said to be.
    item : str
        The case: number of levels, bits, grid, degrees of freedom or block size.
    printed : str
        As printed; of a codebook the level that is furthest off.
    value, exact : float or None
        What the print stands for, and what it should be; None where it is not yet checked.
    relative_error : float or None
        (value - exact) / abs(exact).
    lost_db : float or None
        dB lost by using it against the best scale or codebook of its kind; None where nothing is set by it. Below 0
        where a better error was claimed than can be.
    verdict : Verdict
    """

    name: str
    source: str
    seen: str
    claim: str
    item: str
    printed: str
    value: float | None
    exact: float | None
    relative_error: float | None
    lost_db: float | None
    verdict: Verdict


def audit(chosen: Sequence[Entry] | None = None) -> list[AuditRow]:
    """Recompute published constants and judge them.

    Parameters
    ----------
    chosen : sequence of Entry, optional
        Default: all of `entries()`.

    Examples
    --------
    >>> steps = [entry for entry in entries() if entry.name.startswith("Max: steps")]
    >>> [(row.item, row.printed, row.verdict.name) for row in audit(steps)[-2:]]
    [('128', '.0568', 'TRUNCATED'), ('256', '.0308', 'ROUNDED')]
    """
    return [row for entry in (entries() if chosen is None else chosen) for row in _rows(entry)]


# Twenty seconds of work for the same constants: tests, pages and figures of one process share it.
@cache
def _rows(entry: Entry) -> tuple[AuditRow, ...]:
    return tuple(_row(entry, found) for found in recompute(entry))


def _row(entry: Entry, found: Recomputed) -> AuditRow:
    of_entry = (entry.name, entry.source, entry.seen, entry.claim, found.item)
    if not found.exact.size:
        return AuditRow(*of_entry, found.printed, None, None, None, None, Verdict.UNCHECKED)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.nan_to_num((found.value - found.exact) / np.abs(found.exact))
    worst = int(np.argmax(np.abs(error)))
    return AuditRow(
        *of_entry,
        printed=found.texts[worst] if len(found.texts) > 1 else found.printed,
        value=float(found.value[worst]),
        exact=float(found.exact[worst]),
        relative_error=float(error[worst]),
        lost_db=found.lost_db,
        verdict=_verdict(found),
    )


def _verdict(found: Recomputed) -> Verdict:
    """Judge by the last digit printed; in a codebook by the last digit of the level that has most of them."""
    slack = found.accuracy * np.abs(found.exact)
    error = found.value - found.exact
    if not found.texts:
        return Verdict.EXACT if (np.abs(error) <= slack).all() else Verdict.OFF
    numbers = [Decimal(text) for text in found.texts]
    unit = 10.0 ** min(int(number.as_tuple().exponent) for number in numbers)
    if (np.abs(error) <= 0.5 * unit + slack).all():
        digits = max(len(number.as_tuple().digits) for number in numbers)
        return Verdict.EXACT if digits >= _MANY_DIGITS else Verdict.ROUNDED
    below = np.abs(found.exact) - np.abs(found.value)
    return Verdict.TRUNCATED if ((below >= -slack) & (below < unit)).all() else Verdict.OFF
