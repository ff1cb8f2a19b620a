"""Weights as a layout stores them: fitted and packed rows by rows, each part a file that is not made again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import plain, shown
from .._version import __version__
from ..casting.verbs import fake_quantize
from ..files.elements import TensorInfo
from ..files.encodings import Encoding
from ..files.headers import parse_json
from ..files.mapping import Checkpoint
from ..files.safetensors import read_safetensors
from ..files.scales import open_scales
from ..files.sources import LocalFile, ReadError
from ..grids.formats import grid as as_grid
from ..search.samples.affine_blocks import affine_blocks
from ..tensors.arguments import resolve_format
from ..tensors.fitting import fit
from .fitting import Largest, stored_size
from .parts import FormatPart
from .pieces import DEFAULT_MEMORY, Fitting, Weigher, bits_of
from .recipe import Recipe, cut, piece_options, piece_weights
from .tasks import TASK_BYTES, part_name

_KEY = "qerror_encoded"
# Of what changes the content of a part without changing what was asked.
_FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows of a weight, packed in a file: where, and what they cost.

    Attributes
    ----------
    path : Path
    mse, power, weight : float
        Sums of squared errors and squares, and of the weights of the values.
    unit : float
        The tensor scale; 1 without one.
    """

    path: Path
    mse: float
    power: float
    weight: float
    unit: float

    def array(self, name: str) -> NDArray[Any]:
        """Stored elements of the rows, as unsigned integers, mapped."""
        tensors, _ = read_safetensors(LocalFile(self.path))
        return Checkpoint(self.path, tensors).bits(name)


class _Alone(Recipe):
    """A recipe whose rule is not compared with the optimum, which would be most of the work."""

    @property
    def every_rule(self) -> tuple[str, ...]:
        """The rule."""
        return self.rules


class PowerOfTwo:
    """Largest magnitudes whose tensor scale is a power of two.

    1 / t is then a float32, too: layouts that divide by it and layouts that multiply say the same number, and block
    scale times t is exact in every runtime. It costs nothing: E4M3 is the same in every octave, and there is more room
    at its upper end. 25 trained matrices at their best block scales are 0.11 dB better to 0.06 dB worse than with the
    usual one, 0.02 dB better on average.
    """

    def __init__(self, own: Callable[[str], float], end: float) -> None:
        self._own, self._end = own, end

    def __call__(self, name: str) -> float:
        """The least power of two times `end` that is not below the largest magnitude."""
        largest = self._own(name)
        if not largest > 0 or not math.isfinite(largest):
            return largest
        return self._end * 2.0 ** math.ceil(math.log2(largest / self._end))


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Makes the parts of weights.

    Attributes
    ----------
    checkpoint : Checkpoint
    folder : Path
        Of the parts.
    rule : str
    largest : Largest
        Largest magnitudes of tensors, or of those that share a tensor scale.
    weigh : callable, optional
        TensorInfo -> weights of its elements, or None.
    memory : float
        Bytes that may be used.
    """

    checkpoint: Checkpoint
    folder: Path
    rule: str
    largest: Largest
    weigh: Weigher | None = None
    memory: float = DEFAULT_MEMORY

    def parts(self, info: TensorInfo, encoding: Encoding, heard: Callable[[int], None]) -> list[Part]:
        """All rows of a weight: what is there is taken, the rest is made."""
        recipe = self._recipe(encoding)
        how = cut(info, recipe)
        per_row = max(1, stored_size(info) // how.rows)
        step = how.rows if how.whole else max(1, TASK_BYTES // (per_row * how.step)) * how.step
        out = []
        for begin in range(0, how.rows, step):
            end = min(begin + step, how.rows)
            path = self.folder / part_name(info.name, begin, end, self._mark(info, encoding, begin, end))
            if path.exists():
                heard(per_row * (end - begin))
            else:
                self._make(info, encoding, (begin, end), path, heard)
            out.append(_read(path))
        return out

    def _recipe(self, encoding: Encoding) -> Recipe:
        options = {"block_axis": -1, "shift": 0.0, **encoding.options}
        return _Alone((encoding.grid,), (self.rule,), options, codes=True)

    def check(self, weights: Mapping[str, Encoding]) -> None:
        """Refuse a rule that a format has not, and what does not fit into memory, before anything is read."""
        known: set[str] = set()
        for name, encoding in weights.items():
            recipe, info = self._recipe(encoding), self.checkpoint.info(name)
            try:
                if repr(recipe) not in known:
                    recipe.check()
                    known.add(repr(recipe))
                self._fitting(recipe).check_memory(info, cut(info, recipe))
            except (ValueError, MemoryError) as error:
                raise ValueError(_named(name, error)) from None

    def _fitting(self, recipe: Recipe) -> Fitting:
        grid = recipe.grids[0]
        full = recipe.full_scale(grid)
        largest: Callable[[str], float] = self.largest
        if full is not None:
            largest = PowerOfTwo(self.largest, full * resolve_format(grid, None, None, None).grid.absmax)
        return Fitting(self.checkpoint, recipe, largest, self.weigh, None, self.memory)

    def _make(
        self, info: TensorInfo, encoding: Encoding, rows: tuple[int, int], path: Path, heard: Callable[[int], None]
    ) -> None:
        try:
            if encoding.shift_format is None:
                found = self._fitting(self._recipe(encoding)).rows(info.name, *rows, heard).formats[encoding.grid]
            else:
                found = self._with_shifts(info, encoding, encoding.shift_format, rows, heard)
        except ReadError:
            raise
        except ValueError as error:
            raise ValueError(_named(info.name, error)) from None
        unit = float(found.arrays.get("tensor_scale", 1.0))
        arrays = {name: np.asarray(array).reshape(-1) for name, array in found.arrays.items()}
        codes = arrays["codes"].reshape(-1, info.shape[-1] if info.shape else 1)
        packed = encoding.pack({**arrays, "codes": codes, "tensor_scale": np.asarray(unit)})
        about = {"mse": found.mse[self.rule], "power": found.power, "weight": found.weight, "unit": unit}
        with open_scales(path, {_KEY: json.dumps(about)}) as sink:
            for name, array in packed.items():
                sink.add(name, array)

    def _with_shifts(
        self, info: TensorInfo, encoding: Encoding, stored: str, rows: tuple[int, int], heard: Callable[[int], None]
    ) -> FormatPart:
        """Scales and shifts, both stored: first the pair, then the best scale for the shift as it is stored."""
        how, recipe = cut(info, self._recipe(encoding)), self._recipe(encoding)
        weights = self.weigh(info) if self.weigh else None
        found = []
        for piece in how.pieces(*rows):
            begin, end = (row * how.row_size for row in piece)
            values = self.checkpoint.part(info.name, begin, end).reshape(how.shape(info, piece[1] - piece[0]))
            options = piece_options(recipe, encoding.grid, info, how.leading)
            options["weights"] = piece_weights(weights, info, how, piece)
            options["shift"] = fake_quantize(self._shifts(values, encoding, options), stored)
            final = fit(values, encoding.grid, rule=self.rule, measure=False, scale_format=stored, **options)
            own = options["weights"]
            weight = float(values.size if own is None else np.broadcast_to(own, values.shape).sum())
            found.append((final, final.quantize(values), weight))
            heard((end - begin) * bits_of(info) // 8)
        return FormatPart(
            {self.rule: math.fsum(float(fit.total.mse) * weight for fit, _, weight in found)},
            math.fsum(float(fit.total.power) * weight for fit, _, weight in found),
            math.fsum(weight for _, _, weight in found),
            sum(np.size(fit.scale) for fit, _, _ in found),
            {},
            {
                "scale": np.concatenate([np.ravel(fit.scale) for fit, _, _ in found]),
                "shift": np.concatenate([np.ravel(fit.shift) for fit, _, _ in found]),
                "codes": np.concatenate([codes.reshape(-1) for _, codes, _ in found]),
            },
        )

    def _shifts(self, values: NDArray[Any], encoding: Encoding, options: Mapping[str, Any]) -> NDArray[Any]:
        """Shifts of any size: of blocks on 16 consecutive integers searched, else as the rule says."""
        grid, size = as_grid(encoding.grid), encoding.options.get("block_size")
        # The starts of the search are those for so many levels, and its sums are in single precision.
        known = grid.step == 1 and len(grid) == 16 and self.rule == "optimal"
        # What is not finite is refused by the fit.
        if size is None or not known or values.shape[-1] % size or not np.isfinite(values).all():
            pair = fit(values, encoding.grid, rule=self.rule, measure=False, **{**options, "shift": "optimal"})
            return np.asarray(pair.shift)
        weights = options["weights"]
        own = None if weights is None else np.broadcast_to(weights, values.shape).reshape(-1, size)
        scale, shift = affine_blocks(values.reshape(-1, size), len(grid) - 1, own)
        return np.reshape(shift - scale * grid.levels[0], (*values.shape[:-1], -1))

    def _mark(self, info: TensorInfo, encoding: Encoding, begin: int, end: int) -> str:
        """A short text that differs where the input, the version or what is asked does."""
        members = self.largest.members(info.name)
        stamps = [self.checkpoint.stamp(name) for name in members]
        stored = [(one.name, one.dtype, one.shape) for one in encoding.stored]
        weights = getattr(self.weigh, "stamp", None)
        said = [_FORMAT, __version__, encoding.grid, sorted(encoding.options.items()), encoding.kind, stored]
        said += [self.rule, members, stamps, weights, info.name, info.shape, info.dtype, begin, end]
        return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()[:16]


def _named(name: str, error: Exception) -> str:
    """What is wrong, with the tensor's name where it lacks."""
    return str(error) if repr(name)[1:-1] in str(error) else f"{shown(name, 60)}: {error}"


def _read(path: Path) -> Part:
    try:
        _, metadata = read_safetensors(LocalFile(path))
        about = parse_json(metadata[_KEY])
        return Part(path, *(float(about[key]) for key in ("mse", "power", "weight", "unit")))
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{shown(path)} is damaged ({plain(str(error), 60)}); delete it and export again") from None


def content(parts: Sequence[Part], encoding: Encoding, name: str) -> Iterator[NDArray[Any]]:
    """What is stored under a name, part by part."""
    whole = encoding.whole(parts[0].unit)
    if name in whole:
        yield whole[name]
        return
    for part in parts:
        yield part.array(name)
