"""What a report says, as numbers: points of bits and error, the map of layers and modules, a row for each tensor."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..planning.errors import TensorErrors
from ..planning.hulls import hull
from ..planning.plan import KEEP, Plan, Point
from ..planning.storage import stored_bits
from ..rows import decibels
from .profiles import Profile


@dataclasses.dataclass(frozen=True)
class Content:
    """All that is in a report.

    Attributes
    ----------
    name : str
        Of the model.
    formats : tuple of str
    tensors : sequence of TensorErrors
    profiles : mapping of str to Profile
    plan : Plan or None
    front, uniform : sequence of Point
    left : mapping of str to str
        Tensors that are not planned, and why.
    remark : str
        What a sketch does not say, in words.
    """

    name: str
    formats: tuple[str, ...]
    tensors: Sequence[TensorErrors]
    profiles: Mapping[str, Profile]
    plan: Plan | None
    front: Sequence[Point]
    uniform: Sequence[Point]
    left: Mapping[str, str]
    remark: str = ""

    @property
    def in_use(self) -> bool:
        """Whether scales that are in use are known of any tensor."""
        return any(each.present is not None for each in self.profiles.values())

    def planned_format(self, name: str) -> str | None:
        """What the plan gives a tensor."""
        if self.plan is None or name not in self.plan.tensors:
            return None
        return self.plan.tensors[name].format


def sqnr(each: TensorErrors, form: str) -> float:
    """Signal to quantization noise of a tensor in a format, in dB; nan where there is none."""
    if form == KEEP:
        return math.inf
    found = each.formats.get(form)
    return math.nan if found is None else decibels(found.power, found.mse)


def in_use_db(found: Profile) -> float:
    """SQNR of the scales in use, in dB, on the rows that were looked at; nan where there are none."""
    return math.nan if found.present is None else decibels(found.power, found.present.mse)


def lost_to_minmax(each: TensorErrors, form: str) -> float:
    """What minmax scales lose to the best ones, in dB; nan where a format has no scale."""
    found = each.formats.get(form)
    if found is None or math.isnan(found.minmax):
        return math.nan
    return max(0.0, decibels(found.minmax, found.mse)) if found.mse else 0.0


def further_bit(each: TensorErrors, form: str | None) -> float:
    """What a further bit per value buys from a format on, in dB: to the next corner of the tensor's own hull.

    nan where no format is better.
    """
    options = [(stored_bits(each.info, one), error.mse, one) for one, error in each.formats.items()]
    here = next(((bits, mse) for bits, mse, one in options if one == form), None)
    if here is None:
        return math.nan
    # Integers, as hulls are exact: errors in units far below the least one's digits.
    unit = min((mse for _, mse, _ in options if mse > 0), default=1.0) * 1e-6
    better = [here, *((bits, mse) for bits, mse, _ in options if bits > here[0] and mse < here[1])]
    corners = hull([(bits, round(mse / unit)) for bits, mse in better])
    if len(corners) < 2:
        return math.nan
    bits, mse = better[corners[1]]
    return decibels(here[1], mse) / ((bits - here[0]) / each.info.size) if mse else math.inf


def place(name: str) -> tuple[int | None, str]:
    """Layer and module of a tensor: the first number of its name is the layer, later ones (experts) are pooled.

    Examples
    --------
    >>> place("model.layers.12.self_attn.q_proj.weight"), place("lm_head.weight")
    ((12, 'self_attn.q_proj'), (None, 'lm_head'))
    >>> place("layers.3.experts.17.w1.weight")
    (3, 'experts.*.w1')
    """
    parts = name.removesuffix(".weight").split(".")
    at = next((k for k, part in enumerate(parts) if part.isdigit()), None)
    if at is None:
        return None, ".".join(parts)
    module = ".".join("*" if part.isdigit() else part for part in parts[at + 1 :])
    return int(parts[at]), module or ".".join(parts[:at])


def natural(text: str) -> list[Any]:
    """A key that sorts numbers in names as numbers."""
    return [(1, int(part)) if part.isdigit() else (0, part) for part in re.split(r"(\d+)", text)]


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """Values by layer (rows) and module (columns), for each of several views; None where there is no such tensor.

    Tensors outside of layers (embeddings, the head) have a row with one value each, below.
    """

    layers: list[str]
    modules: list[str]
    outside: list[str]
    views: dict[str, list[list[float | None]]]


def heat_map(content: Content) -> HeatMap:
    """SQNR in dB by layer and module: as planned, in each format, and what minmax loses in each."""
    cells: dict[tuple[int | None, str], list[TensorErrors]] = {}
    for each in content.tensors:
        cells.setdefault(place(each.info.name), []).append(each)
    layers = sorted({layer for layer, _ in cells if layer is not None})
    modules = list(dict.fromkeys(module for layer, module in cells if layer is not None))
    outside = [module for layer, module in cells if layer is None]
    # A row with one place for each tensor outside, after those with a place for each module.
    rows = [[cells.get((a, b)) for b in modules] for a in layers] + [[cells[None, b]] for b in outside]
    views: dict[str, list[list[float | None]]] = {}

    def table(said: str, of: Any) -> None:
        found = [[None if some is None else _finite(of(some)) for some in row] for row in rows]
        if any(value is not None for row in found for value in row):
            views[said] = found

    if content.plan is not None:
        table("SQNR as planned", lambda some: _pooled(some, lambda each: content.planned_format(each.info.name)))
    for form in content.formats:
        table(f"SQNR of {form}", lambda some, form=form: _pooled(some, lambda each: form))
    for form in content.formats:
        table(f"dB lost to minmax, {form}", lambda some, form=form: max(lost_to_minmax(each, form) for each in some))
    return HeatMap(list(map(str, layers)), modules, outside, views)


def _pooled(some: Sequence[TensorErrors], form_of: Any) -> float:
    """SQNR of several tensors together."""
    power = error = 0.0
    for each in some:
        form = form_of(each)
        if form == KEEP:
            power += next((one.power for one in each.formats.values()), 0.0) * each.info.size
            continue
        found = each.formats.get(form)
        if found is None:
            return math.nan
        power, error = power + found.power * each.info.size, error + found.mse * each.info.size
    return decibels(power, error)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def verdict(content: Content) -> list[str]:
    """The answer first, in sentences."""
    plan, said = content.plan, []
    if plan is not None:
        values = sum(each.size for each in plan.tensors.values() if not each.why)
        bits, db = plan.total.bits_per_value, plan.total.db
        said.append(
            f"The plan stores {_count(values, 'value')} in {bits:.4g} bits each, scales and all, at "
            f"{_decibels(db)} of power over {_weighted(plan)}; the file takes {_size(plan.size)} with all that is kept."
        )
        goal = "has fewer bits at this error" if plan.budget.get("kind") == "db" else "has a smaller weight error"
        known = f"no other choice of these {len(plan.formats)} formats within the budget {goal}"
        said.append(f"Proven: {known}." if plan.proven else f"Not proven best: the gap is at most {plan.gap:.1e}.")
        near = max((p for p in content.uniform if p.bits <= plan.total.bits), key=lambda p: p.db, default=None)
        if near is not None:
            said.append(
                f"The best single format within as many bits, {near.name}, reaches {_decibels(near.db)} with "
                f"{near.bits_per_value:.4g} bits: the plan is {db - near.db:.2f} dB better."
            )
        said += _where_error_is(plan)
    elif content.uniform:
        best = max(content.uniform, key=lambda point: point.db - 6.0206 * point.bits_per_value)
        said.append(
            f"Of {len(content.uniform)} formats {best.name} does most with its bits: {_decibels(best.db)} at "
            f"{best.bits_per_value:.4g} bits per value (6.02 dB a bit apart)."
        )
    said += _in_use(content)
    hard = [each for each in content.tensors if content.formats and math.isfinite(sqnr(each, content.formats[0]))]
    if len(hard) > 1:
        worst = min(hard, key=lambda each: sqnr(each, content.formats[0]))
        said.append(
            f"Hardest in {content.formats[0]}: {worst.info.name}, {_decibels(sqnr(worst, content.formats[0]))}."
        )
    return [*said, *([content.remark] if content.remark else [])]


def _in_use(content: Content) -> list[str]:
    """What the scales in use reach, and the best ones of the formats that are drawn on the same rows."""
    known = [(each.info.size, found) for each in content.tensors
             if (found := content.profiles.get(each.info.name)) is not None and found.present is not None]  # fmt: skip
    if not known:
        return []
    power, now, best = (
        math.fsum(size * value(found) for size, found in known)
        for value in (_power_of, lambda found: found.present.mse, lambda found: found.best)
    )
    kinds = ", ".join(dict.fromkeys(found.present.format for _, found in known if found.present))
    drawn = ", ".join(dict.fromkeys(found.format for _, found in known))
    words = f"The scales in use ({kinds}) reach {_decibels(decibels(power, now))} on {_count(len(known), 'tensor')}"
    return [f"{words}; the best scales of {drawn} would reach {_decibels(decibels(power, best))}."]


def _power_of(found: Profile) -> float:
    return found.power


def _weighted(plan: Plan) -> str:
    plain = str(plan.options.get("sensitivity", 1)) == "1" and not plan.options.get("weights")
    return "error" if plain else "weighted error"


def _where_error_is(plan: Plan) -> list[str]:
    if not plan.total.error > 0:
        return []
    name, most = max(plan.tensors.items(), key=lambda item: item[1].error)
    share = 100 * most.error / plan.total.error
    return [f"The largest share of the error, {share:.1f} %, is in {name} ({most.format})."]


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}".replace(",", "\u202f")


def _decibels(db: float) -> str:
    return f"{db:.2f} dB" if math.isfinite(db) else "no error at all (infinitely many dB)"


def _size(size: float) -> str:
    unit, name = next(((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if size >= u), (1.0, "bytes"))
    return f"{size / unit:.4g} {name}"
