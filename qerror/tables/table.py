"""A table of optimal scales: one row for a grid, a density and a way of rounding."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._check import as_float_array, check_choice, check_finite, readable, suggest
from .._text import html_table
from ..certify.shipped import certificates
from ..densities.base import Density
from ..errors.exact import ROUNDINGS, Rounding
from ..grids.grid import Grid
from .certified import CertifiedRow
from .names import density_name, grid_name, is_block_format
from .row import ScaleRow, Shift
from .writing import write_table

# Rows that a notebook shows.
_SHOWN = 20


@dataclasses.dataclass(frozen=True, repr=False)
class ScaleTable:
    """Optimal scales by grid, density and rounding; made by `scale_table` or `load_table`.

    Attributes
    ----------
    rows : tuple of ScaleRow
    model : {"exact", "high_resolution"}
        Whose minimum the scales are.
    shift : float, "mean" or "optimal"
        How the shift was chosen.
    version : str
        The qerror that computed it.
    """

    rows: tuple[ScaleRow, ...]
    model: str
    shift: Shift
    version: str

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ScaleRow]:
        return iter(self.rows)

    def to_frame(self) -> Any:
        """A pandas DataFrame, a line for each row; polars takes `map(dataclasses.asdict, table)`.

        Raises
        ------
        ImportError
            Without pandas; the message says what to type.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise ImportError("to_frame needs pandas: pip install pandas") from None
        return pandas.DataFrame([{**dataclasses.asdict(row), "sqnr_db": row.sqnr_db} for row in self.rows])

    def _repr_html_(self) -> str:
        header = ("grid", "density", "rounding", "scale", "clip", "mse", "sqnr_db", "status")
        rows = [
            (row.grid, row.density, row.rounding, *(f"{getattr(row, name):.10g}" for name in header[3:7]), row.status)
            for row in self.rows[:_SHOWN]
        ]
        left = f", the first {_SHOWN} of them" if len(self) > _SHOWN else ""
        return html_table(rows, header, f"ScaleTable of {len(self)} rows{left}")

    @cached_property
    def _index(self) -> dict[tuple[str, str, str], ScaleRow]:
        return {(row.grid, row.density, row.rounding): row for row in self.rows}

    @property
    def grids(self) -> tuple[str, ...]:
        """Names of the grids."""
        return tuple(dict.fromkeys(row.grid for row in self.rows))

    @property
    def densities(self) -> tuple[str, ...]:
        """Names of the densities."""
        return tuple(dict.fromkeys(row.density for row in self.rows))

    @property
    def roundings(self) -> tuple[str, ...]:
        """Ways of rounding."""
        return tuple(dict.fromkeys(row.rounding for row in self.rows))

    def lookup(self, grid: Grid | str, density: Density | str, *, rounding: Rounding = "nearest") -> ScaleRow:
        """The row of a grid and a density.

        Raises
        ------
        ValueError
            If there is no such row; near matches are shown.

        Examples
        --------
        >>> import qerror as qe
        >>> table = qe.load_table()
        >>> round(table.lookup("int4", "gaussian").scale, 6)
        0.338608
        """
        check_choice("rounding", rounding, ROUNDINGS)
        names = grid_name(grid, self.grids), density_name(density, self.densities)
        for what, name, known in zip(("grid", "density"), names, (self.grids, self.densities), strict=True):
            if name not in known:
                hint = suggest(name, known) or f"; it has {', '.join(known)}"
                raise ValueError(f"the table has no {what} {name!r}{hint}")
        row = self._index.get((*names, rounding))
        if row is None:
            found = [row.rounding for row in self.rows if (row.grid, row.density) == names] or "nothing"
            raise ValueError(f"the table has no rounding {rounding!r} for {names[0]} on {names[1]}, it has {found}")
        return row

    def certified(self, grid: Grid | str, density: Density | str, *, rounding: Rounding = "nearest") -> CertifiedRow:
        """The row of `lookup` beside the proven optimum: 30 digits, the certificate, and what the row's scale is worth.

        Errors of rows are right to 12 digits (one of 990 to 11). Their scales are right to 8 where the minimum stands
        alone (three flat ones to 6). Where copies of it exist (floating formats with octaves to spare), float64 cannot
        tell which of them is the least, and the scale of the row may be that of a copy: `CertifiedRow.scale_digits` is
        0 then.

        Raises
        ------
        ValueError
            For what `lookup` refuses, and for rows without certificate: those that the shipped table has not.

        Examples
        --------
        >>> import qerror as qe
        >>> row = qe.load_table().certified("e4m3fn", "gaussian")
        >>> row.scale, row.unique, row.copies
        ('[0.0203771871585866268231459065122 +/- 5.1e-32]', True, 0)
        """
        row = self.lookup(grid, density, rounding=rounding)
        proven = certificates().get((row.grid, row.density, row.rounding))
        if proven is None or self.model != "exact" or self.shift != 0 or row.std != 1.0:
            said = f"{row.grid} on {row.density}, {row.rounding}, model {self.model}, shift {self.shift}"
            raise ValueError(f"there is no certificate of {said}; qerror.certify.certify makes one (model exact)")
        return CertifiedRow(row, proven)

    def scale_for(
        self,
        x: ArrayLike,
        grid: Grid | str,
        density: Density | str,
        axis: int | tuple[int, ...] | None = None,
        *,
        rounding: Rounding = "nearest",
    ) -> Any:
        """The scale for data by their standard deviation: scale(row) * std(x) / std(density).

        The table's optimum is that of a density whose mean lies where the table's shift puts it; for the usual tables
        (mean 0, shift 0) quantize with ``shift=x.mean()``, or without where the mean is small beside the std.

        Parameters
        ----------
        x : array_like
            Data in any units.
        grid : Grid or str
        density : Density or str
            The family that x is taken for.
        axis : int or tuple of int, optional
            The axes that keep their own scale (per-channel weights: 0). None: one scale for all of x.
        rounding : {"nearest", "stochastic"}

        Returns
        -------
        float or ndarray
            Units of x; with `axis` an array that broadcasts against x. 1.0 where the data are constant, for which
            every scale is as good.

        Raises
        ------
        ValueError
            For what `lookup` refuses, empty data, NaN or infinity, an axis that x does not have.

        Examples
        --------
        >>> import numpy as np
        >>> import qerror as qe
        >>> x = np.array([[1.0, -1.0], [3.0, -3.0]])
        >>> qe.load_table().scale_for(x, "int4", "gaussian", axis=0).round(6)
        array([[0.338608],
               [1.015824]])
        """
        row = self.lookup(grid, density, rounding=rounding)
        if is_block_format(row.grid):
            remedy = f"its row holds the block scale over the largest magnitude of a block, {row.scale:.6g}"
            raise ValueError(f"grid must have one scale, got the block format {row.grid!r}; {remedy}")
        data = np.asarray(readable("x", x))
        data = data if data.dtype.kind == "f" else as_float_array("x", data)
        if data.size == 0:
            raise ValueError(f"x must hold at least one value, got shape {data.shape}")
        check_finite("x", data)
        # The largest magnitude is taken out first, so that squares neither overflow nor vanish.
        reduced = _reduced_axes(data.ndim, axis)
        keep = axis is not None
        size = np.abs(data).max(axis=reduced, keepdims=True).astype(np.float64)
        size[size == 0] = 1.0
        std = size * np.std(data / size, axis=reduced, keepdims=True, dtype=np.float64)
        scale = np.where(std > 0, std * (row.scale / row.std), 1.0)
        return scale if keep else float(scale.item())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table; the ending of the file says how.

        .json, .csv and .safetensors can be loaded again to the last bit; .h is a C header and .py a Python module that
        need nothing else. The file appears only when it is complete.

        Raises
        ------
        ValueError
            For any other ending, or a folder that does not exist.
        """
        write_table(path, self.rows, self.model, self.shift, self.version)

    def __repr__(self) -> str:
        return "\n\n".join(_matrix(self, rounding) for rounding in self.roundings) or "ScaleTable without rows"


def _reduced_axes(ndim: int, axis: int | tuple[int, ...] | None) -> tuple[int, ...]:
    given = () if axis is None else axis if isinstance(axis, tuple) else (axis,)
    for one in given:
        if not ndim:
            raise ValueError(f"axis must be None for a single number, got {one}")
        if not -ndim <= one < ndim:
            raise ValueError(f"axis must be within -{ndim} .. {ndim - 1} for x of {ndim} axes, got {one}")
    return tuple(sorted(set(range(ndim)) - {one % ndim for one in given}))


def _matrix(table: ScaleTable, rounding: str) -> str:
    """Scale and SQNR of every grid (down) on every density (across)."""
    head = ["", *table.densities]
    lines = [
        [name, *(_cell(table._index.get((name, density, rounding))) for density in table.densities)]
        for name in table.grids
    ]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    form = "    ".join(f"{{:<{width}}}" for width in widths)
    title = f"{rounding} rounding, model {table.model}, shift {table.shift}: scale of least error, SQNR in dB"
    return "\n".join([title, *(form.format(*line).rstrip() for line in [head, *lines])])


def _cell(row: ScaleRow | None) -> str:
    return "" if row is None else f"{row.scale:#.6g}  {row.sqnr_db:.2f}"
