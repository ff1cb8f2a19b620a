"""What there is to choose from: classes of tensors that agree, the formats each may have, and what these cost."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..._check import listed, plain, shown
from ...files.headers import parse_json
from ..globs import grouped_names, matches
from ..recipe import check_format
from .errors import TensorErrors
from .plan import KEEP
from .storage import stored_bits

Sensitivity = float | str | Mapping[str, float] | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Keep:
    """Tensors whose names match have this format; of several patterns the first that matches counts."""

    pattern: str
    format: str

    @classmethod
    def parse(cls, text: str) -> Keep:
        """Read GLOB=FORMAT; without a format the tensors are left as they are.

        Examples
        --------
        >>> Keep.parse("*embed*=int8:axis=0"), Keep.parse("lm_head.*").format
        (Keep(pattern='*embed*', format='int8:axis=0'), 'keep')
        """
        pattern, _, form = text.partition("=")
        if not pattern:
            raise ValueError(f"keep must be GLOB=FORMAT, as in '*embed*=bf16', got {shown(text)}")
        form = form or KEEP
        return cls(pattern, form if form == KEEP else check_format(form))


def kept_format(name: str, keep: Sequence[Keep]) -> str | None:
    """The format that a tensor must have, if one is said."""
    return next((each.format for each in keep if matches(name, [each.pattern])), None)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One class: tensors that have one format together, what each format stores in bits, and what it costs.

    `least` is what it costs at least, where errors are known by bounds. `power` is what all values would cost as
    errors: costs are seen against it in decibels.
    """

    names: tuple[str, ...]
    formats: tuple[str, ...]
    bits: tuple[int, ...]
    costs: tuple[tuple[float, ...], ...]
    least: tuple[tuple[float, ...], ...]
    power: tuple[float, ...]


def choices(
    tensors: Sequence[TensorErrors],
    formats: Sequence[str],
    keep: Sequence[Keep],
    together: Sequence[str],
    factors: Mapping[str, float],
) -> tuple[list[Choice], dict[str, str]]:
    """The classes, and why some tensors cannot have any format.

    Raises
    ------
    ValueError
        If tensors that must agree are kept in different formats.
    """
    of = {each.info.name: each for each in tensors}
    members = grouped_names(list(of), together)
    found: list[Choice] = []
    failed: dict[str, str] = {}
    seen: set[tuple[str, ...]] = set()
    for name in of:
        names = members.get(name, (name,))
        if names in seen:
            continue
        seen.add(names)
        allowed = _allowed(names, of, formats, keep)
        if not allowed:
            failed |= {each: next(iter(of[each].failed.values()), "its tensors have no format in common")
                       for each in names}  # fmt: skip
            continue
        found.append(_choice([of[each] for each in names], allowed, factors))
    return found, failed


def _allowed(
    names: Sequence[str], of: Mapping[str, TensorErrors], formats: Sequence[str], keep: Sequence[Keep]
) -> list[str]:
    said = {form for name in names if (form := kept_format(name, keep)) is not None}
    if len(said) > 1:
        raise ValueError(f"keep says {listed(sorted(said))} for {listed(names)}, which must agree")
    return [each for each in (said or formats) if all(each not in of[name].failed for name in names)]


def _choice(members: Sequence[TensorErrors], allowed: Sequence[str], factors: Mapping[str, float]) -> Choice:
    bits = tuple(sum(stored_bits(each.info, form) for each in members) for form in allowed)
    costs, least = (
        tuple(tuple(factors[each.info.name] * _error(each, form, which) for each in members) for form in allowed)
        for which in ("mse", "least")
    )
    power = tuple(factors[each.info.name] * _power(each) for each in members)
    return Choice(tuple(each.info.name for each in members), tuple(allowed), bits, costs, least, power)


def _error(each: TensorErrors, form: str, which: str) -> float:
    return 0.0 if form == KEEP else float(getattr(each.formats[form], which))


def _power(each: TensorErrors) -> float:
    """The mean square, which formats measure alike but for the last digits; 0 where only "keep" was asked."""
    return next((error.power for error in each.formats.values()), 0.0)


def factors_of(tensors: Sequence[TensorErrors], sensitivity: Sensitivity) -> dict[str, float]:
    """What a tensor's mean squared error counts.

    Parameters
    ----------
    tensors : sequence of TensorErrors
    sensitivity : 1, "relative", mapping or path
        1: the sum of (weighted) squared errors of all values. "relative": that of a tensor over its power, times its
        number of values. A mapping, or a JSON or CSV file (name,value), of Fisher or Hessian traces: 0.5 * trace * MSE,
        the second order of the loss; a trace is the sum over the values of a tensor.

    Raises
    ------
    ValueError
        If a tensor has no value, or one that is negative or not finite.
    """
    if sensitivity == "relative":
        return {each.info.name: each.info.size / _power(each) if _power(each) > 0 else 0.0 for each in tensors}
    if not isinstance(sensitivity, Mapping) and str(sensitivity) in ("1", "1.0"):
        return {each.info.name: _weight(each) for each in tensors}
    table = sensitivity if isinstance(sensitivity, Mapping) else read_values(Path(str(sensitivity)))
    missing = [each.info.name for each in tensors if each.info.name not in table]
    if missing:
        raise ValueError(f"sensitivity has no value for {listed(missing)}; add them, or --keep or --exclude them")
    for name, value in table.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"sensitivity must be finite and not negative, got {value!r} for {shown(name)}")
    return {each.info.name: 0.5 * float(table[each.info.name]) for each in tensors}


def _weight(each: TensorErrors) -> float:
    return next((error.weight for error in each.formats.values()), float(each.info.size))


def read_values(path: Path) -> dict[str, float]:
    """Numbers by name, from JSON (an object) or CSV (name,value; a first line of words is a title)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json" or text.lstrip().startswith("{"):
            return {str(name): float(value) for name, value in parse_json(text).items()}
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
        if rows and not _is_number(rows[0][-1]):
            rows = rows[1:]
        found = {name.strip(): float(value) for name, value in rows}
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise ValueError(f"sensitivity must be 1, relative or a file, got {shown(path)}: {reason}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{shown(path)} must be JSON {{name: value}} or CSV name,value: {plain(str(error), 80)}"
        ) from None
    if len(found) != len(rows):
        raise ValueError(f"{shown(path)} names a tensor twice")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
