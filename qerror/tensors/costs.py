"""What the scales of a tensor cost, measured with the fit or when first asked for."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..results import ErrorTerms
from .groups import Groups

__all__ = ["Costs", "GroupCosts"]

Array = NDArray[np.float64]

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


class Costs:
    """The error of a fit and of the optimum beside it.

    Parameters
    ----------
    groups : Groups
    arrays : tuple
        x and the weights as they were given. They are held weakly, where that is possible, until all is measured.
    measure : callable
        From the arrays to the `GroupCosts` of the fit.
    optimum : callable or None
        The same for rule "optimal"; None where the fit is that.
    """

    def __init__(
        self,
        groups: Groups,
        arrays: tuple[Any, Any],
        measure: Callable[..., GroupCosts],
        optimum: Callable[..., GroupCosts] | None,
    ) -> None:
        self._groups, self._measure, self._optimum = groups, measure, optimum
        self._arrays = [None if array is None else _reference(array) for array in arrays]

    def __getstate__(self) -> dict[str, Any]:
        """What is known so far; the arrays and the ways to measure them stay behind."""
        later = None if self._optimum is None else _nothing
        known = {"_groups": self._groups, "_arrays": [_nothing], "_measure": None, "_optimum": later}
        return {**known, **{key: self.__dict__[key] for key in ("_own", "_best") if key in self.__dict__}}

    @cached_property
    def _own(self) -> GroupCosts:
        return self._measure(*self._alive())

    @cached_property
    def _best(self) -> GroupCosts:
        assert self._optimum is not None
        best = self._optimum(*self._alive())
        pairs = zip(self._own.terms, best.terms, strict=True)
        if not all(np.allclose(own[4], again[4], rtol=1e-9, atol=0) for own, again in pairs):
            raise ValueError("x has changed since it was fitted, so there is nothing to compare with; fit it again")
        return best

    def _alive(self) -> tuple[Any, ...]:
        arrays = [None if ref is None else ref() for ref in self._arrays]
        if any(array is None and ref is not None for array, ref in zip(arrays, self._arrays, strict=True)):
            raise ValueError(
                "the array that was fitted is gone, and this was not measured before: keep the array, or read "
                "the result's error and excess_db while it is there"
            )
        return tuple(arrays)

    @property
    def at_once(self) -> bool:
        """Whether to measure now, because x cannot be held weakly."""
        return not all(isinstance(ref, weakref.ref | type(None)) for ref in self._arrays)

    def compute(self) -> None:
        """Measure everything now."""
        _ = self._own
        if self._optimum is not None:
            _ = self._best
        self._arrays = [_nothing]

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
        """For the repr: what is known without computing anything."""
        if "_own" not in self.__dict__:
            return {"error": "not measured yet"}
        total = self.total
        return {"mse": f"{total.mse:.10g}", "sqnr_db": f"{total.sqnr_db:.10g}"}


def _decibels(mse: Any, best: Any, power: Any) -> Any:
    # A value that is itself representable comes back with the rounding of float64: that is no loss.
    none = mse <= best + _ROUNDING * power
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(none, 0.0, 10 * np.log10(mse / best))


def _reference(array: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(array)
    except TypeError:
        # A list or a number.
        return lambda: array


def _nothing() -> None:
    """What a dead reference answers."""
