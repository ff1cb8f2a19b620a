"""What the scales of a tensor cost, by quantizing it: one pass over the values, without sorting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .._types import Array
from ..grids.grid import Grid
from ..results import ErrorTerms
from .choices import Choice
from .groups import Grouped, Groups
from .measuring import measure_rows

# Squared relative error of a few float64 roundings.
_ROUNDING = (4 * np.finfo(np.float64).eps) ** 2

TERMS = ("clipping", "rounding", "bias", "cross", "power", "mean")


class GroupCosts:
    """Flat columns over the groups, in parts: the six terms, (6, R); the weight and the clipped share, (R,)."""

    def __init__(self, terms: Sequence[Array], weight: Sequence[Array], clipped: Sequence[Array]) -> None:
        self.terms, self.weight, self.clipped = list(terms), list(weight), list(clipped)

    def total(self) -> ErrorTerms:
        """Mean over the groups by weight."""
        weight = sum(part.sum() for part in self.weight)
        pairs = list(zip(self.terms, self.weight, strict=True))
        return ErrorTerms(*(sum((part[i] * w).sum() for part, w in pairs) / weight for i in range(len(TERMS))))


def measure_groups(tensor: Grouped, grid: Grid, chosen: Sequence[Choice]) -> GroupCosts:
    """Quantize every group with what was chosen for it."""
    parts = zip(tensor.parts(), chosen, strict=True)
    found = [measure_rows(rows, weights, grid, part.scale, part.shift) for (rows, weights), part in parts]
    terms, clipped = [f.sums / f.weight for f in found], [f.clipped / f.weight for f in found]
    return GroupCosts(terms, [f.weight for f in found], clipped)


class Costs:
    """The error of a fit and of the optimum beside it, each measured when it is first asked for.

    Parameters
    ----------
    groups : Groups
    own : callable
        Measures the fit. It and `optimum` hold the tensor; both are let go of when all is measured.
    optimum : callable or None
        Measures what rule "optimal" chooses; None where the fit is that.
    small : bool
        Whether to measure what is not known yet before a copy is made or stored, rather than leave it out.
    """

    def __init__(
        self,
        groups: Groups,
        own: Callable[[], GroupCosts],
        optimum: Callable[[], GroupCosts] | None = None,
        small: bool = False,
    ) -> None:
        self._groups, self._measure, self._optimum, self._small = groups, own, optimum, small

    def __getstate__(self) -> dict[str, Any]:
        """What is known so far; the tensor stays behind."""
        if self._small:
            self.compute()
        later = None if self._optimum is None else _gone
        known = {"_groups": self._groups, "_measure": _gone, "_optimum": later, "_small": False}
        return {**known, **{key: self.__dict__[key] for key in ("_own", "_best") if key in self.__dict__}}

    @cached_property
    def _own(self) -> GroupCosts:
        own = self._measure()
        if self._optimum is None:
            self._measure = _gone
        return own

    @cached_property
    def _best(self) -> GroupCosts:
        assert self._optimum is not None
        best = self._optimum()
        pairs = zip(self._own.terms, best.terms, strict=True)
        if not all(np.allclose(own[4], again[4], rtol=1e-9, atol=0) for own, again in pairs):
            raise ValueError("x has changed since it was fitted, so there is nothing to compare with; fit it again")
        self._measure = self._optimum = _gone
        return best

    def compute(self) -> None:
        """Measure everything now."""
        _ = self._own if self._optimum is None else self._best

    @cached_property
    def error(self) -> ErrorTerms:
        """Terms in the shape of the scales."""
        parts = self._own.terms
        return ErrorTerms(*(self._groups.join([part[i] for part in parts]) for i in range(len(TERMS))))

    @property
    def total(self) -> ErrorTerms:
        """Terms over the whole tensor."""
        return self._own.total()

    @property
    def clipped_fraction(self) -> Any:
        """Share beyond the end values, in the shape of the scales."""
        return self._groups.join(self._own.clipped)

    @property
    def excess_db(self) -> Any:
        """Decibels lost against the optimum, in the shape of the scales."""
        if self._optimum is None:
            return np.zeros(self._groups.scale_shape)[()]
        pairs = zip(self._own.terms, self._best.terms, strict=True)
        return self._groups.join([_decibels(own[0] + own[1], best[0] + best[1], own[4]) for own, best in pairs])

    @property
    def total_excess_db(self) -> float:
        """Decibels lost against the optimum over the whole tensor."""
        if self._optimum is None:
            return 0.0
        own, best = self._own.total(), self._best.total()
        return float(_decibels(own.mse, best.mse, own.power))

    def lines(self) -> dict[str, str]:
        """For the repr: what is known, and what is measured in no time."""
        if "_own" not in self.__dict__ and not self._small:
            return {"total": "not measured yet"}
        total = self.total
        return {"total.mse": f"{total.mse:.10g}", "total.sqnr_db": f"{total.sqnr_db:.10g}"}


def _decibels(mse: Any, best: Any, power: Any) -> Any:
    # A value that is itself representable comes back with the rounding of float64: that is no loss.
    none = mse <= best + _ROUNDING * power
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(none, 0.0, 10 * np.log10(mse / best))


def _gone() -> GroupCosts:
    """What is left of the tensor in a copy of the result."""
    raise ValueError("this result was copied or stored before it was measured; read its error and excess_db first")
