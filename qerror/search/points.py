"""Scales at which the MSE is known, as one table."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from .._types import Array, Index


class Points(NamedTuple):
    """Evaluated scales: which row, and (5, n) the scale, the MSE, its slope, B and C (nan where the route has none).

    One table, because picking from it and joining it with others is what a search does between evaluations.
    """

    row: Index
    table: Array

    @classmethod
    def none(cls, columns: int = 5) -> Self:
        """No points."""
        return cls(np.empty(0, np.intp), np.empty((columns, 0)))

    @classmethod
    def of(cls, row: Index, scale: Array, power: Array, b: Array, c: Array) -> Self:
        """MSE = A - 2 s B + s^2 C and its slope from A (the power), B and C."""
        out = np.empty((5, scale.size))
        _, mse, slope, *_ = out
        out[0], out[3], out[4] = scale, b, c
        np.multiply(scale, c, out=slope)
        slope -= b
        np.add(power, scale * (slope - b), out=mse)
        slope *= 2
        return cls(row, out)

    @property
    def scale(self) -> Array:
        """The scales."""
        column: Array = self.table[0]
        return column

    @property
    def mse(self) -> Array:
        """Their MSE."""
        column: Array = self.table[1]
        return column

    @property
    def slope(self) -> Array:
        """Its derivative by the scale."""
        column: Array = self.table[2]
        return column

    @property
    def b(self) -> Array:
        """B, nan where the route has none."""
        column: Array = self.table[3]
        return column

    @property
    def c(self) -> Array:
        """C, nan where the route has none."""
        column: Array = self.table[4]
        return column

    @property
    def key(self) -> NDArray[np.complex128]:
        """Numbers that are in order by row, then by scale."""
        key: NDArray[np.complex128] = self.row + 1j * self.scale
        return key

    def select(self, index: Index | NDArray[np.bool_] | slice) -> Points:
        """Those at `index`, in its order."""
        if isinstance(index, slice):
            return Points(self.row[index], self.table[:, index])
        if index.dtype == np.bool_:
            index = index.nonzero()[0]
        return Points(self.row.take(index), self.table.take(index, axis=1))


def join(*parts: Points) -> Points:
    """All points, sorted by row and scale, each scale once."""
    rows, tables = zip(*parts, strict=True)
    every = Points(np.concatenate(rows), np.concatenate(tables, axis=1))
    every = every.select(np.lexsort((every.table[0], every.row)))
    row, scale = every.row, every.table[0]
    again = scale[1:] == scale[:-1]
    if np.count_nonzero(again):
        again &= row[1:] == row[:-1]
        every = every.select(np.append(True, ~again))
    return every


def numbered(counts: Index) -> tuple[Index, Index]:
    """The items of several lists, each list behind the other: to which list each belongs and its place in it."""
    owner = np.repeat(np.arange(counts.size), counts)
    return owner, np.arange(owner.size) - (np.cumsum(counts) - counts).take(owner)


def first_of_each(row: Index, *keys: Array) -> Index:
    """For each row that there is the place of its least first key (the next ones where these are equal)."""
    order = np.lexsort((*keys[::-1], row))
    out: Index = order[np.append(True, row[order][1:] != row[order][:-1])] if row.size else order
    return out
