"""Scale and shift that are optimal together: stated, and proven by the cover of `checker`."""

from __future__ import annotations

from .._check import as_int
from ..densities.base import Density
from ..densities.named import density as as_density
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..search.optimal import optimal_scale
from .certificate import FORMAT, SCHEMA, CertifiedPair, OpenError
from .checker import arithmetic, ball, exact_levels, scale_and_shift, standard, verify
from .codebook import about_zero, enclosed, symmetric_data
from .proof import claim
from .statement import short_numbers


def certify_pair(density: Density | str, grid: Grid | str, *, digits: int = 30) -> CertifiedPair:
    """Prove which scale and shift together are globally optimal: for grids of up to about 4 bits, in seconds.

    Boxes cover all scales and shifts: over each the MSE is above the least, or a slope is not 0, or it is convex about
    an enclosed root; lemmas for small and for large scales leave a bounded rest (`qerror.certify.checker`).

    Parameters
    ----------
    density : Density or str
        Gaussian, Laplace, Logistic, Uniform, StudentT or GeneralizedGaussian, of shape (); nearest rounding.
    grid : Grid or str
    digits : int
        Correct digits, 6 to 1000.

    Raises
    ------
    ValueError
        For other densities.
    OpenError
        If boxes are left open.

    Examples
    --------
    >>> from qerror.certify import certify_pair
    >>> certify_pair("gaussian", "int2", digits=10).optima    # Max (1960): step 0.9957
    (('[0.9956866859 +/- 5.1e-11]', '[0.4978433430 +/- 5.1e-11]'),)
    """
    member, chosen = as_density(density), as_grid(grid)
    digits, said = as_int("digits", digits, 6, 1000), symmetric_data(member)
    with arithmetic(4 * digits + 80):
        part, _ = standard(said)
        exact = scale_and_shift(part.family, exact_levels(chosen.levels.tolist()))
        roots = [enclosed(exact, [ball(s), ball(z)], digits) for s, z in _starts(member, chosen)]
        least = min((exact.at(root) for root in roots), key=lambda value: value.mid())
        optima = [[claim(part.std * s, digits), about_zero(part.mean + part.std * z, digits)] for s, z in roots]
        content = {
            "format": f"{FORMAT} of a pair",
            "schema": SCHEMA,
            "density": said,
            "levels": short_numbers(chosen.levels.tolist()),
            "optima": optima,
            "mse": claim(part.std**2 * least, digits),
            "digits": digits,
        }
    try:
        verify(content)
    except ValueError as error:
        raise OpenError(str(error)) from None
    return CertifiedPair(content)


def _starts(member: Density, grid: Grid) -> list[tuple[float, float]]:
    """The best pair as float64 finds it, of a density of mean 0 and variance 1, and its mirror image."""
    found = optimal_scale(member, grid, shift="optimal")
    mean, std = float(member.mean), float(member.std)
    scale, shift = float(found.scale) / std, (float(found.shift) - mean) / std
    starts, mirrored = [(scale, shift)], -shift - scale * (grid.min + grid.max)
    sums = grid.levels + grid.levels[::-1]
    if (sums == sums[0]).all() and abs(mirrored - shift) > 1e-6 * scale:
        starts.append((scale, mirrored))
    return starts
