"""`plan`: one format for each tensor, with the least error under a budget."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from ..._check import shown
from ...files.checkpoint import Where
from ...files.elements import TensorInfo
from ..arguments import texts
from ..recipe import Recipe, check_format, with_fused
from .budgets import Ledger, bits_limit, infeasible
from .choices import Choice, Keep, Sensitivity, choices, factors_of, kept_format
from .errors import ErrorFile
from .knapsack import InfeasibleError
from .plan import KEEP, Plan, PlannedTensor, Point
from .sources import Asked, Measured, Progress, default_formats, measure
from .storage import stored_bits


def plan(
    model: Where,
    formats: Sequence[str] | None = None,
    *,
    bits: float | str | None = None,
    size: int | None = None,
    db: float | None = None,
    sensitivity: Sensitivity = 1,
    weights: str | os.PathLike[str] | None = None,
    together: Sequence[str] = (),
    keep: Sequence[str] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    one_dimensional: bool = False,
    errors: str | os.PathLike[str] | None = None,
    memory: float = math.inf,
    progress: Progress | None = None,
) -> Plan:
    """Choose one format for each tensor: the least error within a budget, or the fewest bits at an error.

    Minimize the sum over tensors of factor * MSE(format), every format with its best scales, subject to the sum of
    stored bits; a multiple-choice knapsack. The answer is proven best in exact integer arithmetic on the measured
    errors where `proven` says so; else `gap` bounds what is left.

    Parameters
    ----------
    model : path-like or sequence
        A checkpoint as in `qerror.files.open_checkpoint`, a sketch of `qerror.checkpoints.scan` (formats with one scale
        a tensor; of float32 it has bounds, and `bound` counts with them), or the folder of a run of `qerror fit` (its
        formats).
    formats : sequence of str, optional
        Grids with their axis ("int8:axis=0"), block formats ("nvfp4"), casts ("bf16"), and "keep". None: what
        `default_formats` says.
    bits, size, db
        Exactly one: bits per planned value, scales and all; bytes of all tensors, kept ones too; or the least
        10 log10(power / error) in dB.
    sensitivity : 1, "relative", mapping or path
        What a tensor's MSE counts. 1: its (weighted) values. "relative": the same over its power. Traces of the Fisher
        information or the Hessian by name, or a JSON or CSV file of them: 0.5 * trace * MSE, which is what the loss
        grows by in second order.
    weights : path-like, optional
        Importance of the columns, as in `qerror.checkpoints.fit`: scales are fitted to it, and errors count by it.
    together : sequence of str
        Patterns of tensors that agree in format, and share a tensor scale: "*.{q,k,v}_proj.weight", or all experts of a
        layer, "model.layers.*.mlp.experts.**"; "fused" stands for those that runtimes fuse.
    keep : sequence of str
        GLOB=FORMAT: this format for tensors whose names match. GLOB alone: they stay as they are.
    include, exclude, one_dimensional
        Which tensors to plan; see `qerror.checkpoints.select_tensors`. Others are kept as they are.
    errors : path-like, optional
        A JSON file that keeps the measured errors: for another budget nothing is read again.
    memory : float
        Bytes that may be used while measuring.
    progress : callable, optional
        Called as progress(tensor, bytes done since, bytes in all).

    Raises
    ------
    ValueError
        If the budget is too small; says the least possible.

    Examples
    --------
    >>> import qerror as qe
    >>> found = plan(qe.files.example_checkpoint(), ["int4_g32", "int8:axis=0"], bits=6, include=["layers.*"])
    >>> found.proven, found.total.bits_per_value <= 6, found.tensors["layers.0.bias"].format
    (True, True, 'keep')
    """
    kind, value = _budget(bits, size, db)
    formats = default_formats(model) if formats is None else tuple(dict.fromkeys(formats))
    if not formats:
        raise ValueError("formats must name one at least")
    for each in formats:
        if each != KEEP:
            Recipe((check_format(each),)).check()
    kept = [Keep.parse(text) for text in keep]

    def extra(name: str) -> tuple[str, ...]:
        found = kept_format(name, kept)
        return () if found is None else (found,)

    where = None if weights is None else os.fspath(weights)
    agree = with_fused(texts("together", together))
    asked = Asked(formats, extra, tuple(include), tuple(exclude), one_dimensional, where, agree)
    measured = measure(model, asked, ErrorFile(errors), memory, progress)
    said: dict[str, Any] = {
        "sensitivity": sensitivity if isinstance(sensitivity, int | float | str) else shown(sensitivity)
    }
    said |= {"weights": where, "together": list(measured.together), "keep": list(keep)}
    said |= {"source": "sketch"} if measured.sketch else {}
    said |= {"include": list(include), "exclude": list(exclude)}
    return planned(measured, formats, kind, value, sensitivity, kept, said)


def _budget(bits: Any, size: Any, db: Any) -> tuple[str, Any]:
    given = {name: value for name, value in (("bits", bits), ("size", size), ("db", db)) if value is not None}
    if len(given) != 1:
        raise ValueError(f"give one of bits, size and db, got {', '.join(given) or 'none'}")
    ((kind, value),) = given.items()
    if kind == "size" and not value > 0:
        raise ValueError(f"size must be a positive number of bytes, got {shown(value)}")
    if kind == "db" and not math.isfinite(value):
        raise ValueError(f"db must be finite, got {shown(value)}")
    return kind, value


def planned(
    measured: Measured,
    formats: Sequence[str],
    kind: str,
    value: Any,
    sensitivity: Sensitivity = 1,
    keep: Sequence[Keep] = (),
    said: dict[str, Any] | None = None,
) -> Plan:
    """The plan for measured errors: nothing is read."""
    factors = factors_of(measured.tensors, sensitivity)
    found, failed = choices(measured.tensors, formats, keep, measured.together, factors)
    _check_importance(measured, found, sensitivity)
    infos = {each.info.name: each.info for each in measured.tensors}
    values = sum(infos[name].size for each in found for name in each.names)
    if not values:
        raise ValueError("no tensor can be planned; include names those to plan")
    ledger = Ledger.of(found, values)
    bounded = any(each.least != each.costs for each in found)
    below = Ledger.of(found, values, least=True) if bounded else ledger
    left = {name: infos[name] for name in failed} | measured.others
    kept_bits = sum(stored_bits(info, KEEP) for info in left.values())
    if kind == "size" and any(name not in left for name in measured.why):
        raise ValueError("size needs all tensors of the model, which are not all known here; give the model itself")
    try:
        if kind == "db":
            answer, bound = ledger.within_error(float(value))
            least = float(below.within_error(float(value))[1] if bounded else bound)
        else:
            limit = 8 * int(value) - kept_bits if kind == "size" else bits_limit(ledger, value)
            answer = ledger.within_bits(limit)
            least = below.error((below.within_bits(limit) if bounded else answer).bound)
    except InfeasibleError as error:
        raise infeasible(kind, value, ledger, kept_bits, error) from None
    tensors = _tensors(measured, found, answer.chosen, {**measured.why, **failed}, left)
    number = value if isinstance(value, int) else float(Fraction(str(value)))
    return Plan(
        measured.model,
        tuple(formats),
        {"kind": kind, "value": number},
        tensors,
        ledger.point(answer.use, answer.cost),
        least,
        answer.proven and not bounded,
        ledger.front(),
        uniform_points(ledger, found, formats),
        said or {},
    )


def _check_importance(measured: Measured, found: Sequence[Choice], sensitivity: Sensitivity) -> None:
    """Errors with and without importance are in different units."""
    if str(sensitivity) != "1":
        return
    free = {name for each in found if len(each.formats) > 1 for name in each.names}
    weighted = {
        each.info.name: any(error.weight != each.info.size for error in each.formats.values())
        for each in measured.tensors
        if each.info.name in free
    }
    if any(weighted.values()) and not all(weighted.values()):
        name = next(name for name, has in weighted.items() if not has)
        raise ValueError(
            f"weights has none for {shown(name, 60)}, and errors with and without importance cannot be added; keep it "
            "(--keep GLOB=FORMAT), or choose --sensitivity relative"
        )


def _tensors(
    measured: Measured, found: Sequence[Choice], chosen: Sequence[int], why: dict[str, str], left: dict[str, TensorInfo]
) -> dict[str, PlannedTensor]:
    of = {each.info.name: each for each in measured.tensors}
    out: dict[str, PlannedTensor] = {}
    for each, option in zip(found, chosen, strict=True):
        form = each.formats[option]
        for name, cost in zip(each.names, each.costs[option], strict=True):
            info, errors = of[name].info, of[name].formats
            power = next((error.power for error in errors.values()), math.nan)
            mse = 0.0 if form == KEEP else errors[form].mse
            out[name] = PlannedTensor(form, info.shape, info.dtype, stored_bits(info, form), mse, power, cost)
    for name, reason in why.items():
        if name in left:
            info = left[name]
            out[name] = PlannedTensor(KEEP, info.shape, info.dtype, stored_bits(info, KEEP), why=reason)
        else:
            out[name] = PlannedTensor(KEEP, why=reason)
    return out


def uniform_points(ledger: Ledger, found: Sequence[Choice], formats: Sequence[str]) -> tuple[Point, ...]:
    """Each format for all tensors that can have it; others have what is left to them that errs least."""
    points = []
    for form in formats:
        bits = cost = 0
        for each, options in zip(found, ledger.classes, strict=True):
            mine = [options[each.formats.index(form)]] if form in each.formats else options
            more, dearer = min(mine, key=lambda option: option[1])
            bits, cost = bits + more, cost + dearer
        points.append(ledger.point(bits, cost, form))
    return tuple(points)
