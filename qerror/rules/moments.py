"""Scale rules that look at a few moments: the analytic quantizer, ACIQ, OCTAV, SAWB."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy.special import lambertw, ndtr

from .._check import as_int, check_choice
from ..densities.base import Density
from ..densities.estimation import ValueCounts, fit_density
from ..densities.named import density as as_density
from ..densities.parametric import Gaussian
from ..errors.exact import Model, flatten
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..results import Status
from ..search.optimal import optimal_scale
from .base import MOST_STEPS, RuleResult, as_number, either, fixed_shift, mean_distance, rms, settled_result
from .extremes import with_fallback

# SAWB's clip is c1 sqrt(E[x^2]) - c2 E|x|; by bits, as in the authors' code.
_SAWB = {2: (3.12, 2.064), 3: (7.509, 6.892), 4: (12.68, 12.80), 5: (17.74, 18.64), 8: (31.76, 35.04)}


def analytic(
    density: Density,
    grid: Grid | str,
    *,
    shift: Any = 0.0,
    family: Density | str = "gaussian",
    model: Model = "exact",
) -> RuleResult:
    """StatQAT's analytic quantizer: s = c* sqrt(E[(x - z)^2]), c* the best scale of a family at unit variance.

    With shift "mean" the root is the standard deviation; with shift 0 it is the rms, the standard deviation of the
    zero-mean member of the family.

    Parameters
    ----------
    density, grid, shift
        As in `minmax`; shift not "optimal".
    family : Density, str or "auto"
        Its scale and place do not matter. "auto": what `fit_density` finds for all groups pooled, each at zero mean and
        unit variance; `note` says which. (A density by formula is its own family then.)
    model : {"exact", "high_resolution"}
        By which c* is found; the paper's is "high_resolution".

    References
    ----------
    StatQAT, arXiv 2605.17745.

    Examples
    --------
    >>> import qerror as qe
    >>> round(float(analytic(qe.Gaussian(std=2), "int4_midrise").scale), 6)
    0.670401
    """
    levels, z = as_grid(grid), fixed_shift("analytic", density, shift)
    chosen = pooled_family(density) if isinstance(family, str) and family == "auto" else as_density(family)
    if chosen.shape:
        raise ValueError(f"family must be one density, got one of shape {chosen.shape}")
    best = optimal_scale(chosen, levels, shift="mean", model=model)
    scale = best.scale / chosen.std * rms(density, z)
    return dataclasses.replace(settled_result(density, levels, scale, z), note=f"family {chosen.name}")


def pooled_family(density: Density) -> Density:
    """The density that fits all groups of a sample, each standardized; a density by formula fits itself.

    Examples
    --------
    >>> import qerror as qe
    >>> pooled_family(qe.Laplace(std=3)).name
    'laplace:std=3'
    """
    atoms = density.atoms if density.panels().shape[-1] == 0 else None
    if atoms is None:
        if density.shape:
            raise ValueError(f"family='auto' takes a sample or one density, got densities of shape {density.shape}")
        return density
    points, masses = atoms
    mean, std = (np.asarray(value)[..., None] for value in (density.mean, density.std))
    used = (masses > 0) & (std > 0)
    if not used.any():
        return Gaussian()
    standard = ((points - mean) / np.where(std > 0, std, 1.0))[used]
    count = np.asarray(getattr(density, "count", points.shape[-1]))
    share = np.broadcast_to(masses * count[..., None], points.shape)[used]
    if (share == share[0]).all():
        return fit_density(standard)
    order = np.argsort(standard, kind="stable")
    return fit_density(ValueCounts(standard[order], share[order]))


def aciq(density: Density, grid: Grid | str, *, shift: Any = 0.0, family: str = "gaussian") -> RuleResult:
    """ACIQ: the clip that minimizes clipping plus step^2 / 12, step 2 a / 2^M.

    Gaussian: a = alpha sqrt(E[(x - z)^2]) with phi(alpha) - alpha Q(alpha) = alpha / (6 * 4^M);
    Laplace: a = W(3 * 4^M) E|x - z|.

    Parameters
    ----------
    density, grid, shift
        As in `minmax`; shift not "optimal". Grids intM and intM_midrise.
    family : {"gaussian", "laplace"}

    References
    ----------
    Banner, Nahshan, Soudry, NeurIPS 2019, arXiv 1810.05723.

    Examples
    --------
    >>> import qerror as qe
    >>> round(float(aciq(qe.Gaussian(), "int4").scale * 8), 6)
    2.559136
    """
    levels = as_grid(grid)
    bits, step = _two_to_the("aciq", levels)
    check_choice("family", family, ("gaussian", "laplace"))
    z = fixed_shift("aciq", density, shift)
    if family == "laplace":
        clip = float(lambertw(3 * 4.0**bits).real) * mean_distance(density, z)
    else:
        clip = _gaussian_clip(bits) * rms(density, z)
    return settled_result(density, levels, 2 * clip / 2**bits / step, z)


def octav(density: Density, grid: Grid | str, *, shift: Any = 0.0, n_iter: int = 200, tol: float = 1e-12) -> RuleResult:
    """OCTAV: Newton's recursion for the clip of least clipping plus step^2 / 12, step 2 a / 2^B.

    a <- E[|x| 1(|x| > a)] / (4^-B / 3 P(|x| <= a) + P(|x| > a)), x about the shift, from a = E|x| until it stays.

    Parameters
    ----------
    density, grid, shift
        As in `minmax`; shift not "optimal". Grids intB and intB_midrise.
    n_iter : int
        Steps at most.
    tol : float
        Settled when a step moves the clip by less than this, relative.

    Returns
    -------
    RuleResult
        With status UNCONVERGED where `n_iter` was not enough.

    References
    ----------
    Sakr et al., ICML 2022, arXiv 2206.06501.

    Examples
    --------
    >>> import qerror as qe
    >>> round(float(octav(qe.Gaussian(), "int4").scale * 8), 8)
    2.56209026
    """
    levels = as_grid(grid)
    bits, step = _two_to_the("octav", levels)
    tol = as_number("tol", tol)
    z = fixed_shift("octav", density, shift)
    start = np.asarray(mean_distance(density, z))
    shape = np.broadcast_shapes(start.shape, z.shape)
    members, _, at, _ = flatten(density, np.ones(shape), z)
    clip = np.broadcast_to(start, shape).ravel().copy()
    active = looked_up = np.arange(clip.size)
    for _ in range(as_int("n_iter", n_iter, 1, MOST_STEPS)):
        # Of some that are settled, too: to take the others costs as much as to look up in them a few times.
        if active.size <= looked_up.size // 2:
            kept = np.searchsorted(looked_up, active)
            members, at, looked_up = members.take(kept), at[kept], active
        a = clip[looked_up]
        # Strictly beyond the clip: a value exactly at -a is inside.
        below = members.moments(-np.inf, np.nextafter(at - a, -np.inf), at)
        above = members.moments(at + a, np.inf, at)
        outside = np.minimum(below[0] + above[0], 1.0)
        moved = (above[1] - below[1]) / (4.0**-bits / 3 * (1.0 - outside) + outside)
        moved = moved[np.searchsorted(looked_up, active)]
        unsettled = np.abs(moved - clip[active]) > tol * clip[active]
        clip[active] = moved
        active = active[unsettled]
        if not active.size:
            break
    settled = np.ones(clip.size, np.bool_)
    settled[active] = False
    settled, clip = settled.reshape(shape)[()], clip.reshape(shape)[()]
    result = with_fallback("octav", settled_result(density, levels, 2 * clip / 2**bits / step, z), density, levels)
    return dataclasses.replace(result, status=either(settled, result.status, Status.UNCONVERGED))


def sawb(density: Density, grid: Grid | str, *, shift: Any = 0.0) -> RuleResult:
    """SAWB: the clip a = c1 sqrt(E[x^2]) - c2 E|x|, fitted to six families of weights; step 2 a / (K - 1).

    Where a is not positive (almost constant magnitudes): the smallest scale that clips nothing, status FALLBACK.

    Parameters
    ----------
    density, grid, shift
        As in `minmax`; shift not "optimal". Grids intB, intB_narrow and intB_midrise with B = 2, 3, 4, 5, 8.

    References
    ----------
    Choi et al., MLSys 2019 (PACT-SAWB), arXiv 1807.06964, with the coefficients of the authors' code.

    Examples
    --------
    >>> import qerror as qe
    >>> round(float(sawb(qe.Gaussian(), "int4_midrise").scale * 7.5), 3)
    2.467
    """
    levels = as_grid(grid)
    bits = _width(levels, ("int{}", "int{}_narrow", "int{}_midrise"), tuple(_SAWB))
    if bits is None:
        raise _refusal("sawb", levels, f"intB, intB_narrow and intB_midrise, B in {(*_SAWB,)}")
    z = fixed_shift("sawb", density, shift)
    c1, c2 = _SAWB[bits]
    clip = np.asarray(c1 * rms(density, z) - c2 * mean_distance(density, z))
    result = settled_result(density, levels, 2 * np.maximum(clip, 0.0) / (levels.max - levels.min), z)
    return with_fallback("sawb", result, density, levels)


def _gaussian_clip(bits: int) -> float:
    """Root of phi(a) - a Q(a) = a / (6 * 4^M) by bisection: the left side less the right one falls."""
    low, high = 0.0, 40.0
    for _ in range(80):
        a = 0.5 * (low + high)
        excess = np.exp(-0.5 * a * a) / np.sqrt(2 * np.pi) - a * ndtr(-a) - a / (6 * 4.0**bits)
        low, high = (a, high) if excess > 0 else (low, a)
    return 0.5 * (low + high)


def _two_to_the(name: str, grid: Grid) -> tuple[int, float]:
    """Width and step of a signed uniform grid of 2^bits levels."""
    bits = _width(grid, ("int{}", "int{}_midrise"), tuple(range(2, 17)))
    if bits is None or grid.step is None:
        raise _refusal(name, grid, "int2 to int16 and int2_midrise to int16_midrise")
    return bits, grid.step


def _width(grid: Grid, names: tuple[str, ...], widths: tuple[int, ...]) -> int | None:
    return next((bits for bits in widths for name in names if grid == as_grid(name.format(bits))), None)


def _refusal(name: str, grid: Grid, known: str) -> ValueError:
    return ValueError(f"rule {name} is not defined on {grid.name or repr(grid)}; it is on {known}")
