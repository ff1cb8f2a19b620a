"""Sketches: what a checkpoint's tensors hold, read once and kept small, from which any format is answered."""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._check import plain, shown
from .._types import Array
from .._version import __version__
from ..files.checkpoint import open_checkpoint
from ..files.elements import TensorInfo
from ..files.headers import parse_json
from ..files.scales import open_scales
from ..grids.block_formats import BlockFormat, as_format
from ..grids.grid import Grid
from ..results import Status
from ..samples.empirical import Empirical
from .arguments import format_names, texts
from .bin_rules import RuleBound, rule_bound
from .bins import Bins
from .fitting import TensorFit, select_tensors, tensor_fits
from .moments import Moments
from .parts import Part
from .pattern_fits import from_patterns
from .patterns import Patterns
from .recipe import Recipe
from .sketch_tables import described, packed, unpacked

_VERSION = 1


@dataclasses.dataclass(frozen=True)
class TensorSketch:
    """What a tensor holds: how often each bit pattern is there, or float32 values by their leading bits.

    Attributes
    ----------
    info : TensorInfo
    content : Patterns or Bins
    """

    info: TensorInfo
    content: Patterns | Bins

    @property
    def exact(self) -> bool:
        """Whether all that is asked is answered as from the values."""
        return isinstance(self.content, Patterns) or self.content.known

    def moments(self) -> Moments:
        """Number, mean and central moments of the values."""
        return self.content.moments()

    def density(self) -> Empirical:
        """The values as a distribution: themselves, or the means of their bins.

        Everything that reads a density reads it: `qerror.optimal_scale`, `qerror.quantization_error`, quantiles, plots.
        """
        if isinstance(self.content, Patterns):
            return Empirical(*self.content.values())
        return Empirical(*self.content.means())

    def counted(self) -> tuple[Array, Array, tuple[float, float]]:
        """Different values, ascending, how often each is there, and the ends; for `qerror.fit_density`.

        Of float32 tensors the means of the bins.
        """
        if isinstance(self.content, Patterns):
            found, counts = self.content.values()
            values = found.astype(np.float64)
            return values, counts, (float(values[0]), float(values[-1]))
        values, mass = self.content.means()
        order = np.argsort(values)
        return values[order], mass[order] * self.content.size, (self.content.least, self.content.greatest)

    def merged(self, other: TensorSketch) -> TensorSketch:
        """The sketch of both tensors' values (parts of one, or several): exactly, in any order."""
        rows = (self.info.shape[0] + other.info.shape[0],) if self.info.shape and other.info.shape else (2,)
        same = self.info.shape[1:] == other.info.shape[1:]
        shape = (*rows, *self.info.shape[1:]) if same else (self.info.size + other.info.size,)
        info = TensorInfo(self.info.name, shape, self.info.dtype)
        one, two = self.content, other.content
        if isinstance(one, Patterns) and isinstance(two, Patterns):
            return TensorSketch(info, one.merged(two))
        if isinstance(one, Bins) and isinstance(two, Bins):
            return TensorSketch(info, one.merged(two))
        raise ValueError(f"sketches must be of one kind to be merged, got {self.info.dtype} and {other.info.dtype}")


@dataclasses.dataclass(frozen=True)
class Sketch(Mapping[str, TensorSketch]):
    """Sketches of a checkpoint's tensors by name, and what was left out of it with the reason."""

    source: str
    tensors: Mapping[str, TensorSketch]
    left_out: Mapping[str, str]

    def __getitem__(self, name: str) -> TensorSketch:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def ask(
        self,
        grid: Any,
        *,
        rule: str | Sequence[str] = "optimal",
        shift: float | str = 0.0,
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
    ) -> list[TensorFit]:
        """One scale for each tensor in each format, without the data.

        Of 16-bit and 8-bit tensors, and of float32 tensors of few different values (`TensorSketch.exact`), the same as
        `qerror.checkpoints.fit`, to the bit. Of other float32 tensors `mse` is an upper bound of the error at the
        rule's scale, `optimum` a lower bound of the least one; `scales` are the ends and the middle of where the scale
        of the first rule lies. Rules iterative, entropy, clipping_weighted and best_of, family=auto and shift "optimal"
        need the values: such tensors say so in `failed`.

        Raises
        ------
        ValueError
            For block formats, whose blocks a sketch does not know.
        """
        grids, rules = format_names(grid), texts("rule", rule)
        for each in grids:
            if isinstance(as_format(each), BlockFormat):
                raise ValueError(
                    f"grid must be a grid, got the block format {each}: a sketch does not know what lies in a block"
                )
        recipe = Recipe(grids, rules, {"shift": shift} if shift else {})
        recipe.check()
        infos = [each.info for each in self.tensors.values()]
        names = {"include": texts("include", include), "exclude": texts("exclude", exclude)}
        chosen = select_tensors(infos, **names, one_dimensional=True)
        out = []
        for info, _ in chosen:
            try:
                out += _answers(self.tensors[info.name], recipe, shift)
            except ValueError as error:
                out.append(TensorFit(info, failed=str(error)))
        return out

    def joined(self, others: Sequence[Sketch]) -> Sketch:
        """The sketch of a checkpoint that was scanned in parts, each tensor in one of them."""
        tensors, left = dict(self.tensors), dict(self.left_out)
        for other in others:
            twice = next((name for name in other if name in tensors), None)
            if twice is not None:
                raise ValueError(f"tensor {shown(twice, 60)} is in two of the sketches; give each once")
            tensors.update(other.tensors)
            left.update(other.left_out)
        return Sketch(", ".join([self.source, *(other.source for other in others)]), tensors, left)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a sketch; it appears whole or not at all."""
        tables = {name: described(each.info, each.content) for name, each in self.tensors.items()}
        about = {"version": _VERSION, "qerror": __version__, "source": self.source, "tensors": tables}
        about |= {"left_out": dict(self.left_out)}
        with open_scales(path, {"qerror_sketch": json.dumps(about)}) as sink:
            for name, each in self.tensors.items():
                sink.add(f"{name}.KEYS", packed(each.content))


def _answers(sketch: TensorSketch, recipe: Recipe, shift: float | str) -> list[TensorFit]:
    content, info = sketch.content, sketch.info
    if isinstance(content, Patterns) or content.known:
        formats = {grid: from_patterns(content, grid, recipe) for grid in recipe.grids}
        return tensor_fits(info, Part(info.name, 0, 1, content.moments(), formats))
    if shift == "optimal":
        raise ValueError(
            "shift optimal needs the values, of which a sketch of float32 has bounds; `qerror fit` does it"
        )
    at = content.mean if isinstance(shift, str) else float(shift)
    return [_bracketed(info, content, recipe, grid, at) for grid in recipe.grids]


def _bracketed(info: TensorInfo, bins: Bins, recipe: Recipe, name: str, shift: float) -> TensorFit:
    """Bounds for one format: of the error at each rule's scale from above, of the least error from below."""
    grid = as_format(name)
    assert isinstance(grid, Grid)
    best = bins.bracket(grid, shift)
    found = {"optimal": RuleBound(best.scale, best.scale, best.upper, best.status)}
    found |= {rule: rule_bound(bins, grid, rule, shift) for rule in recipe.rules if rule != "optimal"}
    wanted = {rule: found[rule] for rule in recipe.rules}
    usual = (Status.EXACT, Status.RULE)
    unusual = {rule: {each.status: 1} for rule, each in wanted.items() if each.status not in usual}
    first = wanted[recipe.rules[0]]
    scales = first.low, 0.5 * (first.low + first.high), first.high
    mse = {rule: each.mse for rule, each in wanted.items()}
    return TensorFit(info, "", "", bins.moments().kurtosis, scales, 1, bins.power(), mse, best.lower, unusual, name)


def load_sketch(path: str | os.PathLike[str]) -> Sketch:
    """Read a sketch that `Sketch.save` wrote.

    Raises
    ------
    ValueError
        If the file is none, of a later version, or damaged.
    """
    with open_checkpoint(path) as file:
        try:
            about = parse_json(file.metadata["qerror_sketch"])
            version = about["version"]
        except (KeyError, ValueError, TypeError):
            raise ValueError(f"{shown(path)} is no sketch; `qerror scan MODEL -o SKETCH` makes one") from None
        if version != _VERSION:
            raise ValueError(
                f"{shown(path)} has version {shown(version, 20)}, and this qerror reads {_VERSION}; update it"
            )
        try:
            tensors = {
                str(name): TensorSketch(*unpacked(file, str(name), table)) for name, table in about["tensors"].items()
            }
            left = {str(name): str(reason) for name, reason in about["left_out"].items()}
            return Sketch(str(about["source"]), tensors, left)
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, zlib.error) as error:
            reason = plain(str(error), 100)
            raise ValueError(f"{shown(path)} is a damaged sketch ({reason}); scan again") from None
