"""Block formats: elements of a grid that share a scale, what that is stored as, and the rule that chooses it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .._check import as_int, check_choice, check_positive, shown, suggest
from .block_rules import BLOCK_RULES, OCTAVES, octave_end
from .families import int_grid
from .formats import BLOCK_NAMES
from .formats import grid as as_grid
from .grid import Grid
from .names import BlockFormatName, GridName
from .other_libraries import FormatInfo, TorchDType
from .scale_formats import powers_of_two, scale_grid

# Bits of a scale that is any positive number: those of a float32.
_FLOAT_BITS = 32


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class BlockFormat:
    """Neighbours that share a scale: x is replaced by tensor_scale * block_scale * level.

    Parameters
    ----------
    grid : Grid or str
        The elements.
    block_size : int
        How many elements share a scale, B.
    scale_format : Grid or str, optional
        What block scales can be stored as: "fp16", "bf16", "e4m3fn", "e8m0", "pow2" or a Grid, of which the values
        from 0 on count. None: any positive number.
    rule : {"absmax", "up", "down", "floor", "ceil", "even", "rceil", "best_of", "optimal"}
        How the block scale follows from the largest magnitude M of the block. "absmax": constant * M over the largest
        magnitude of a level (8 of int4: constant 8 / 7 divides by 7 instead), to the nearest stored scale ("up" and
        "down" to the next one above or below). The four conventions for powers of two: see
        `qerror.grids.block_rules.octave_end`. "best_of": absmax with the best of several constants for each block.
        "optimal": the stored scale of least error.
    constant : float or sequence of float
        What M is multiplied with; several only for "best_of".
    signed : bool
        Divide by the value of largest magnitude with its sign, so that it meets the level of largest magnitude (that
        of int4 is -8): scales may be negative. Rules absmax, up and down.
    tensor_scale : bool or float
        Whether a float32 scale of the whole tensor multiplies the block scales, so that the largest magnitude of the
        tensor needs the largest stored scale, or the one given here.
    name : str, optional
        By default made of the parts, as in "int4_g128_bf16", and what else differs: "e2m1_g32_e8m0:even".

    Raises
    ------
    ValueError
        For parts that do not fit each other.

    Examples
    --------
    >>> BlockFormat("int4", 128, "bf16")
    BlockFormat('int4_g128_bf16': int4 in blocks of 128, scales bf16 by rule absmax)
    >>> BlockFormat("e2m1", 16, "e4m3fn", rule="best_of", constant=(1, 1.5), tensor_scale=256).bits_per_value()
    4.5
    """

    grid: Grid
    block_size: int
    scale_format: Grid | None
    rule: str
    constants: tuple[float, ...]
    signed: bool
    full_scale: float | None
    name: str = dataclasses.field(compare=False)

    def __init__(
        self,
        grid: Grid | str,
        block_size: int,
        scale_format: Grid | str | None = None,
        *,
        rule: str = "absmax",
        constant: float | Sequence[float] = 1.0,
        signed: bool = False,
        tensor_scale: bool | float = False,
        name: str | None = None,
    ) -> None:
        elements = as_grid(grid)
        if elements.max <= 0:
            raise ValueError(f"grid must have positive levels, got {elements!r}")
        stored = None if scale_format is None else scale_grid(scale_format)
        fields = {
            "grid": elements,
            "block_size": as_int("block_size", block_size, 1),
            "scale_format": stored,
            "rule": check_choice("rule", rule, BLOCK_RULES),
            "constants": _constants(rule, constant),
            "signed": bool(signed),
            "full_scale": _full_scale(tensor_scale, stored),
        }
        _check_rule(rule, stored, signed=bool(signed))
        if name is not None and not isinstance(name, str):
            raise ValueError(f"name must be a string or None, got {shown(name)}")
        self.__dict__.update(fields)
        self.__dict__["name"] = _made_name(self) if name is None else name

    @property
    def tensor_scale(self) -> bool:
        """Whether a scale of the whole tensor multiplies the block scales."""
        return self.full_scale is not None

    @property
    def constant(self) -> float | tuple[float, ...]:
        """What the largest magnitude of a block is multiplied with: a number, or several for rule best_of."""
        return self.constants if self.rule == "best_of" else self.constants[0]

    @property
    def octave_end(self) -> float | None:
        """Of a power-of-two rule theta: the scale s of a block has theta / 2 <= M / s < theta; None for others."""
        return octave_end(self.grid, self.rule) / self.constants[0] if self.rule in OCTAVES else None

    @property
    def end(self) -> float:
        """The largest magnitude of a block over its scale, at most, before the scale is stored."""
        return self.octave_end or self.grid.absmax / self.constants[0]

    def replace(self, **changes: Any) -> BlockFormat:
        """The same format but for some parameters; its name is made anew.

        Examples
        --------
        >>> block_format("mxfp4").replace(rule="even").rule
        'even'
        """
        own = {"grid": self.grid, "block_size": self.block_size, "scale_format": self.scale_format, "rule": self.rule}
        own |= {"constant": self.constant, "signed": self.signed}
        own |= {"tensor_scale": False if self.full_scale is None else self.full_scale}
        return BlockFormat(**{**own, **changes})

    def bits_per_value(self, size: int | None = None) -> float:
        """Bits that are stored for each value: those of an element, and the scale's share of a block.

        Parameters
        ----------
        size : int, optional
            Values of the tensor, in whole blocks and a last one: counts the tensor scale (32 bits), and the scale of a
            last block that is shorter.

        Examples
        --------
        >>> block_format("nvfp4").bits_per_value(), block_format("nvfp4").bits_per_value(1000)
        (4.5, 4.536)
        """
        scale = _FLOAT_BITS if self.scale_format is None else self.scale_format.bits
        if size is None:
            return self.grid.bits + scale / self.block_size
        count = as_int("size", size, 1)
        blocks = -(-count // self.block_size)
        return self.grid.bits + (scale * blocks + (_FLOAT_BITS if self.tensor_scale else 0)) / count

    def __repr__(self) -> str:
        stored = "of any size" if self.scale_format is None else _said(self.scale_format)
        parts = [f"{_said(self.grid)} in blocks of {self.block_size}", f"scales {stored} by rule {self.rule}"]
        parts += [f"constant {shown(self.constant)}"] if self.constants != (1.0,) else []
        parts += ["signed"] if self.signed else []
        if self.full_scale is not None:
            full = self.scale_format is not None and self.full_scale == self.scale_format.max
            parts.append("a tensor scale" if full else f"a tensor scale to {self.full_scale:g}")
        return f"BlockFormat({self.name!r}: {', '.join(parts)})"


def _said(grid: Grid) -> str:
    return grid.name or repr(grid)


def _constants(rule: str, constant: Any) -> tuple[float, ...]:
    several = isinstance(constant, Sequence) and not isinstance(constant, str)
    values = tuple(float(check_positive("constant", c)) for c in (constant if several else [constant]))
    if rule == "best_of":
        if len(set(values)) < 2:
            raise ValueError(f"constant must hold several numbers for rule best_of, as in (1, 1.5), got {constant!r}")
        return values
    if len(values) != 1:
        raise ValueError(f"constant must be one number for rule {rule}, got {constant!r}; rule='best_of' takes several")
    if rule == "optimal" and values != (1.0,):
        raise ValueError(f"constant must be left out for rule optimal, which looks at all scales, got {constant!r}")
    return values


def _full_scale(tensor_scale: Any, stored: Grid | None) -> float | None:
    if tensor_scale is False or tensor_scale is None:
        return None
    if stored is None:
        raise ValueError("tensor_scale must be False without a scale_format: scales of any size need no other")
    full = stored.max if tensor_scale is True else float(check_positive("tensor_scale", tensor_scale))
    if full > stored.max:
        raise ValueError(f"tensor_scale must be at most the largest stored scale, {stored.max:g}, got {full:g}")
    return full


def _check_rule(rule: str, stored: Grid | None, *, signed: bool) -> None:
    """Whether a rule can be had with scales of this format."""
    if signed and rule not in ("absmax", "up", "down"):
        raise ValueError(f"signed must be False for rule {rule}; absmax, up and down know it")
    if signed and stored is not None and stored.min >= 0:
        raise ValueError(f"signed must be False with scale_format {_said(stored)}, which has no negative values")
    if rule in ("up", "down") and stored is None:
        raise ValueError(f"scale_format must be given for rule {rule}, which rounds to stored scales")
    if rule in OCTAVES and (stored is None or not powers_of_two(stored)):
        got = "none" if stored is None else _said(stored)
        raise ValueError(f"rule {rule} chooses powers of two: scale_format must be 'e8m0' or 'pow2', got {got}")


def _made_name(form: BlockFormat) -> str:
    parts = [form.grid.name or f"{len(form.grid)} levels", f"g{form.block_size}"]
    if form.scale_format is not None:
        parts.append(form.scale_format.name or f"{len(form.scale_format)} scales")
    # What the pattern does not say, so that no two formats have one name.
    said = [] if form.rule == "absmax" else [form.rule]
    said += [f"c={','.join(f'{c:g}' for c in form.constants)}"] if form.constants != (1.0,) else []
    said += ["signed"] if form.signed else []
    said += [] if form.full_scale is None else [f"t={form.full_scale:g}"]
    return ":".join(["_".join(parts), *said])


# Element, block size, scale format, rule, tensor scale. OCP Microscaling Formats (MX) v1.0, table 1 and section 6.3;
# NVIDIA's NVFP4: blocks of 16, the nearest E4M3 scale, one float32 scale for the tensor.
_NAMED: dict[str, tuple[str, int, str, str, bool]] = {
    "mxfp4": ("e2m1", 32, "e8m0", "floor", False),
    "mxfp6_e2m3": ("e2m3", 32, "e8m0", "floor", False),
    "mxfp6_e3m2": ("e3m2", 32, "e8m0", "floor", False),
    "mxfp8_e4m3": ("e4m3fn", 32, "e8m0", "floor", False),
    "mxfp8_e5m2": ("e5m2", 32, "e8m0", "floor", False),
    "mxint8": ("int8/64", 32, "e8m0", "floor", False),
    "nvfp4": ("e2m1", 16, "e4m3fn", "absmax", True),
}
_PATTERN = re.compile(r"(?P<grid>.+?)_g(?P<size>[1-9][0-9]*)(?:_(?P<scale>.+))?")


def block_format(name: BlockFormatLike | str) -> BlockFormat:
    """Return the block format of a name, in any case; a BlockFormat is returned as it is.

    Parameters
    ----------
    name : str or BlockFormat
        One of `block_formats()`, or GRID_gB or GRID_gB_SCALE: elements, block size and scale format, by rule absmax.

    Raises
    ------
    ValueError
        If the name is unknown; near matches are shown.

    Examples
    --------
    >>> block_format("nvfp4").block_size
    16
    >>> block_format("nf4_g64_fp16")
    BlockFormat('nf4_g64_fp16': nf4 in blocks of 64, scales fp16 by rule absmax)
    """
    if isinstance(name, BlockFormat):
        return name
    if not isinstance(name, str):
        raise ValueError(f"block format must be a name or a BlockFormat, got {name!r}")
    return _resolve(name.strip().lower())


def block_formats() -> list[str]:
    """Return the names of the block formats that have one; GRID_gB and GRID_gB_SCALE name all others.

    Examples
    --------
    >>> "nvfp4" in block_formats()
    True
    """
    return list(_NAMED)


GridLike = Grid | GridName | np.dtype[Any] | type[Any] | TorchDType | FormatInfo
"""What `qerror.grid` understands, but for names that are not listed."""
BlockFormatLike = BlockFormat | BlockFormatName
FormatLike = GridLike | BlockFormatLike | str
"""What is accepted where both make sense."""


def as_format(name: FormatLike) -> Grid | BlockFormat:
    """The grid or block format of a name: what is accepted where both make sense.

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> as_format("int4").bits, as_format("int4_g32").bits_per_value()
    (4, 5.0)
    """
    if isinstance(name, BlockFormat):
        return name
    said = name.strip().lower() if isinstance(name, str) else ""
    if said in _NAMED or _PATTERN.fullmatch(said):
        return _resolve(said)
    return as_grid(name)


@lru_cache(maxsize=256)
def _resolve(name: str) -> BlockFormat:
    if name in _NAMED:
        element, size, stored, rule, tensor = _NAMED[name]
        return BlockFormat(_element(element), size, stored, rule=rule, tensor_scale=tensor, name=name)
    if match := _PATTERN.fullmatch(name):
        return BlockFormat(match["grid"], int(match["size"]), match["scale"], name=name)
    pattern = "or GRID_gB and GRID_gB_SCALE, as in int4_g128 and nf4_g64_fp16"
    known = suggest(name, BLOCK_NAMES) or f"; known are {', '.join(BLOCK_NAMES)}, {pattern}"
    raise ValueError(f"unknown block format {name!r}{known}")


def _element(name: str) -> Grid:
    if name != "int8/64":
        return as_grid(name)
    # MX v1.0, section 5.3.5: the 8-bit integers times 2^-6, two's complement codes.
    int8 = int_grid(8)
    return Grid._from_parts(int8.levels / 64, name, int8.codes, 8)
