"""Scale and shift together: samples by a search that proves its answer, others by many starts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._types import Array
from ..densities.base import Density
from ..errors import exact as error
from ..errors.exact import Model, Rounding
from ..errors.quantization import code_probabilities, quantization_error
from ..grids.grid import Grid
from ..results import Minimum, ScaleResult, Status
from ..samples.rows import rows_of
from .fixed_shift import assemble, scale_at
from .found import TOLERANCE
from .samples.scale_and_shift import FreeScale, best_scale_and_shift, constant

# Starts of each pass over the shift, and how many of the best go on to the next one.
_STARTS = 33
_KEPT = 5
# Where more edges of a histogram meet more thresholds than this, shifts are compared by scales in equal ratios: to look
# for every minimum at each of a hundred shifts would take minutes. So many an octave; then, as the last threshold moves
# by a gap when the scale does by a hundredth, as much closer near the best, and once more.
_MOST_KINKS, _PER_OCTAVE, _CLOSER, _NEAR = 1 << 16, 16, 16, 4


def optimal_scale_and_shift(density: Density, grid: Grid, *, model: Model, rounding: Rounding) -> ScaleResult:
    """Least MSE over scale and shift for each member: of a sample proven (status EXACT) but for fine grids."""
    size = int(np.prod(density.shape, dtype=np.intp))
    sample = model == "exact" and rounding == "nearest" and rows_of(density) is not None
    rows = best_scale_and_shift(density, grid) if sample else [FreeScale((), False)] * size
    found, proven = [row.minima for row in rows], [row.proven for row in rows]
    for i in np.flatnonzero(~np.array(proven)):
        member = density.take(np.asarray(i)) if density.shape else density
        others = _Free(member, grid, model, rounding).minima()
        found[i] = tuple(sorted(found[i] + others, key=lambda minimum: minimum.mse))
    best = np.array([(pairs[0].scale, pairs[0].shift) for pairs in found]).reshape(size, 2)
    scale, shift = (column.reshape(density.shape) for column in best.T)
    fixed = scale_at(density, grid, shift, model=model, rounding=rounding, certify=False)
    status = np.array([Status.EXACT if sure else Status.LOCAL for sure in proven], object).reshape(density.shape)
    known = np.asarray(fixed.status, object)
    status = np.where((known == Status.DEGENERATE) | (known == Status.DEGENERATE_NONE), known, status)
    terms = quantization_error(density, grid, scale, shift, model=model, rounding=rounding)
    interval = np.stack([np.asarray(end) for end in fixed.interval_1pct]).reshape(2, size)
    return assemble(grid, scale.ravel(), shift.ravel(), terms, found, interval, status.ravel(), density.shape)


class _Free:
    """The search for one density by starts."""

    def __init__(self, density: Density, grid: Grid, model: Model, rounding: Rounding) -> None:
        self.density, self.grid, self.model, self.rounding = density, grid, model, rounding
        self.mean, self.std = float(density.mean), float(density.std)
        self.sample = density.panels().shape[-1] == 0

    def profile(self, shift: Array) -> tuple[Array, Array, Array]:
        """Best scale at each shift, and its MSE; the best few of them."""
        kinks = 0 if self.density.kinks is None else np.shape(self.density.kinks)[-1]
        if kinks * len(self.grid) > _MOST_KINKS and np.isfinite(self.density.support).all():
            scale, mse = self._compared(shift)
        else:
            result = scale_at(self.density, self.grid, shift, model=self.model, rounding=self.rounding, certify=False)
            scale, mse = np.asarray(result.scale), np.asarray(result.error.mse)
        order = np.argsort(mse, kind="stable")[:_KEPT]
        return scale[order], shift[order], mse[order]

    def _compared(self, shift: Array) -> tuple[Array, Array]:
        """The best of many scales at each shift: from a clip of a quarter of the deviation to where none is clipped."""
        least, most = self.density.support
        ends = np.array([(most - shift) / (self.grid.max or np.inf), (least - shift) / (self.grid.min or -np.inf)])
        low = 0.25 * self.std / self.grid.absmax
        high = np.maximum(1.05 * ends.max(axis=0), 2 * low)
        steps = int(np.ceil(_PER_OCTAVE * np.log2(high.max() / low)))
        scale, step = low * (high / low) ** np.linspace(0, 1, steps)[:, None], (high / low) ** (1 / (steps - 1))
        for near in (_NEAR, 1, 1):
            mse = self._mse(scale, np.broadcast_to(shift, scale.shape))
            place = mse.argmin(axis=0), np.arange(shift.size)
            best, reached = scale[place], mse[place]
            scale = best * step ** np.linspace(-near, near, 2 * near * _CLOSER + 1)[:, None]
            step = step ** (1 / _CLOSER)
        return best, reached

    def minima(self) -> tuple[Minimum, ...]:
        """Distinct local minima of the starts, best first."""
        if self.std == 0:
            return constant(self.mean, self.grid)
        wide = self.mean + self.std * np.linspace(-4, 4, _STARTS)
        scale, shift, _ = self.profile(wide)
        centre = self.mean - scale[:1] * 0.5 * (self.grid.min + self.grid.max)
        near = np.concatenate([shift[:1] + self.std * np.linspace(-0.25, 0.25, _STARTS), centre])
        scale, shift, _ = self.profile(near)
        # Within one gap around the grid's middle the error has minima of its own.
        gap = scale[0] * np.median(np.diff(self.grid.levels))
        middle = self.mean - scale[0] * 0.5 * (self.grid.min + self.grid.max)
        fine = np.concatenate([start + gap * np.linspace(-0.5, 0.5, 17) for start in (shift[0], middle)])
        special = np.concatenate([[self.mean, 0.0], self._atoms_on_levels(scale[0])])
        scale, shift, _ = self.profile(np.unique(np.concatenate([fine, shift, special])))
        # The twin that a symmetric density has.
        mirrored = 2 * self.mean - shift - scale * (self.grid.min + self.grid.max)
        scale, shift = np.tile(scale, 2), np.concatenate([shift, mirrored])
        scale, shift = self._settle(scale, shift) if self.sample else self._newton(scale, shift)
        mse = self._mse(scale, shift)
        order = self._ties_first(np.argsort(mse, kind="stable"), mse, shift)
        return self._distinct(order, scale, shift, mse)

    def _atoms_on_levels(self, scale: float) -> Array:
        """Shifts that put the greatest point mass of a density onto a level."""
        atoms = self.density.atoms if self.density.has_atoms and not self.sample else None
        if atoms is None:
            return np.empty(0)
        points, masses = atoms
        levels = self.grid.levels[:: max(1, len(self.grid) // 64)]
        return np.append(points[np.argmax(masses)] - scale * levels, points[np.argmax(masses)])

    def _ties_first(self, order: NDArray[np.intp], mse: Array, shift: Array) -> NDArray[np.intp]:
        """Among twins (equal MSE), the shift nearest the mean stands first."""
        tied = mse[order] <= mse[order[0]] * (1 + TOLERANCE)
        head = order[tied]
        return np.concatenate([head[np.argsort(np.abs(shift[head] - self.mean), kind="stable")], order[~tied]])

    def _distinct(self, order: NDArray[np.intp], scale: Array, shift: Array, mse: Array) -> tuple[Minimum, ...]:
        out: list[Minimum] = []
        for i in order:
            if out and mse[i] <= out[-1].mse * (1 + TOLERANCE):
                continue
            out.append(Minimum(float(scale[i]), float(shift[i]), float(mse[i])))
        return tuple(out)

    def _mse(self, scale: Array, shift: Array) -> Array:
        terms = quantization_error(self.density, self.grid, scale, shift, model=self.model, rounding=self.rounding)
        return np.asarray(terms.mse)

    def _gradient(self, scale: Array, shift: Array) -> tuple[Array, Array]:
        flat = scale.ravel(), shift.ravel()
        sums = error.error_sums(self.density, self.grid, *flat, self.rounding, self.model)
        return sums.by_scale.reshape(scale.shape), sums.by_shift.reshape(scale.shape)

    def _newton(self, scale: Array, shift: Array) -> tuple[Array, Array]:
        """Newton's method on the gradient; its Jacobian by central differences (their error only slows the end)."""
        mse = self._mse(scale, shift)
        for _ in range(30):
            delta = 1e-5 * scale
            stencil_s = scale + delta * np.array([0.0, 1.0, -1.0, 0.0, 0.0])[:, None]
            stencil_z = shift + delta * np.array([0.0, 0.0, 0.0, 1.0, -1.0])[:, None]
            gs, gz = self._gradient(stencil_s, stencil_z)
            ss, sz = (gs[1] - gs[2]) / (2 * delta), 0.5 * ((gs[3] - gs[4]) + (gz[1] - gz[2])) / (2 * delta)
            zz = (gz[3] - gz[4]) / (2 * delta)
            det = ss * zz - sz * sz
            bowl = (ss > 0) & (det > 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                ds = np.where(bowl, (sz * gz[0] - zz * gs[0]) / det, -gs[0] / np.abs(ss))
                dz = np.where(bowl, (sz * gs[0] - ss * gz[0]) / det, -gz[0] / np.abs(zz))
            longest = np.maximum(np.abs(ds), np.abs(dz)) / (0.1 * scale)
            ds, dz = ds / np.maximum(longest, 1), dz / np.maximum(longest, 1)
            trial = self._mse(scale + ds, shift + dz)
            better = trial <= mse * (1 + 4e-16)
            step = np.where(better, 1.0, 0.0)
            scale, shift, mse = scale + step * ds, shift + step * dz, np.where(better, trial, mse)
            if (np.maximum(np.abs(ds), np.abs(dz))[better] < 1e-13 * scale[better]).all():
                break
        return scale, shift

    def _settle(self, scale: Array, shift: Array) -> tuple[Array, Array]:
        """On a sample: least squares of x on the level it goes to, until no value changes its level."""
        for _ in range(300):
            p = code_probabilities(self.density, self.grid, scale, shift, rounding="nearest")
            level, square = p @ self.grid.levels, p @ self.grid.levels**2
            sums = error.error_sums(self.density, self.grid, scale, shift, self.rounding)
            # E[l e] and E[e] of the residual e = x - z - s l; least squares corrects s and z by them.
            with_level, alone = -0.5 * sums.by_scale, -0.5 * sums.by_shift
            spread = square - level**2
            with np.errstate(divide="ignore", invalid="ignore"):
                ds = np.where(spread > 0, (with_level - level * alone) / spread, 0.0)
            ds = np.where(scale + ds > 0, ds, 0.0)
            dz = alone - level * ds
            scale, shift = scale + ds, shift + dz
            if (np.maximum(np.abs(ds), np.abs(dz)) <= 1e-14 * scale).all():
                break
        return scale, shift
