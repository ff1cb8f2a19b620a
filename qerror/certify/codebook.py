"""Lloyd-Max quantizers proven: the interval Newton test on the equations of the levels above the mean."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from itertools import pairwise

from flint import arb, arb_series

from .._check import as_int
from ..densities.base import Density
from ..densities.named import density as as_density
from ..search.lloyd_max import lloyd_max
from .certificate import OpenError
from .checker import UNIT, Gaussian, arithmetic, ball, parts_of
from .proof import claim
from .statement import density_data

_MOST = 256
# Digits of the boxes beyond those that are stated, and steps of Newton's method from float64.
_SPARE, _STEPS = 8, 8


@dataclasses.dataclass(frozen=True)
class CertifiedCodebook:
    """Levels and error of a Lloyd-Max quantizer as balls in decimals.

    Attributes
    ----------
    levels : tuple of str
        All levels, ascending, units of x; each ball holds the level of one and the same stationary codebook.
    mse : str
        Its mean squared error.
    optimal : bool
        Whether it is proven to be the best of all codebooks of its size: for log-concave densities, which have only one
        stationary codebook (Kieffer 1983, IEEE Trans. Inf. Theory 29, 42-47). Else it is a stationary one.
    """

    levels: tuple[str, ...]
    mse: str
    optimal: bool


def certify_codebook(density: Density | str, n_levels: int, *, digits: int = 30) -> CertifiedCodebook:
    """Enclose the Lloyd-Max quantizer of a symmetric family.

    With thresholds b_i midway between the levels q_i above the mean, F_i = E[x - q_i; b_(i-1) < x < b_i] = 0. If
    c - F'(X)^-1 F(c), by elimination in balls, lies inside of the box X about c, then X holds exactly one solution
    (Moore, Krawczyk); F' is tridiagonal, so that 256 levels are as easy as 2.

    Parameters
    ----------
    density : Density or str
        Gaussian, Laplace, Logistic, Uniform, StudentT or GeneralizedGaussian, of shape (). Optimal among all codebooks
        where it is log-concave: all but StudentT and beta < 1.
    n_levels : int
        2 to 256.
    digits : int
        Correct digits of levels and MSE, 6 to 1000.

    Raises
    ------
    ValueError
        For other densities.
    OpenError
        If the test fails.

    Examples
    --------
    >>> from qerror.certify import certify_codebook
    >>> max_1960 = certify_codebook("gaussian", 4, digits=12)
    >>> max_1960.levels[2:], max_1960.mse
    (('[0.452780034636 +/- 5.1e-13]', '[1.51041760850 +/- 5.1e-12]'), '[0.117481847829 +/- 5.1e-13]')
    """
    member = as_density(density)
    said = density_data(member)
    count, digits = as_int("n_levels", n_levels, 2, _MOST), as_int("digits", digits, 6, 1000)
    if said["family"] in ("mixture", "rectified", "histogram"):
        raise ValueError(f"density must be one of the symmetric families, got {member.name!r}")
    levels = lloyd_max(member, count).levels
    start = (levels[-(count // 2) :] - float(member.mean)) / float(member.std)
    with arithmetic(4 * digits + 100):
        (part,) = parts_of(said, arb(1))
        half = _Half(part.family, count % 2 == 1)
        box = half.enclosed([ball(x) for x in start.tolist()], digits)
        mean, mse = part.mean, claim(half.error(box) * part.std**2, digits)
        upper = [claim(mean + part.std * x, digits) for x in box]
        lower = [claim(mean - part.std * x, digits) for x in reversed(box)]
        centre = [] if count % 2 == 0 else [claim(mean, digits)]
    concave = said["family"] != "student-t" and said.get("beta", 1) >= 1
    return CertifiedCodebook((*lower, *centre, *upper), mse, concave)


class _Half:
    """The equations of the levels above 0 of a density of mean 0 and variance 1; `odd`: 0 is a level, too."""

    def __init__(self, family: Gaussian, odd: bool) -> None:
        self.family, self.odd = family, odd

    def _thresholds(self, q: list[arb]) -> list[arb]:
        return [q[0] / 2 if self.odd else arb(0), *((a + b) / 2 for a, b in pairwise(q))]

    def _cells(self, q: list[arb]) -> tuple[list[arb], list[arb]]:
        """P and E[x] of each cell."""
        edges = self._thresholds(q)
        tails = [self.family.tails(b) for b in edges]
        mass = [m for m, _ in tails] + [arb(0)]
        first = [over + b * m for b, (m, over) in zip(edges, tails, strict=True)] + [arb(0)]
        return [a - b for a, b in pairwise(mass)], [a - b for a, b in pairwise(first)]

    def residual(self, q: list[arb]) -> list[arb]:
        """F."""
        mass, first = self._cells(q)
        return [e - x * m for e, x, m in zip(first, q, mass, strict=True)]

    def jacobian(self, q: list[arb]) -> list[list[arb]]:
        """The three diagonals of F' over a box; a threshold moves half as fast as either of its levels."""
        edges, mass = self._thresholds(q), self._cells(q)[0]
        pdf = [self._pdf(b) / 2 for b in edges]
        below = [(x - b) * f for x, b, f in zip(q, edges, pdf, strict=True)]
        above = [(b - x) * f for x, b, f in zip(q[:-1], edges[1:], pdf[1:], strict=True)] + [arb(0)]
        if not self.odd:
            # The threshold at 0 stays.
            below[0] = arb(0)
        return [below, [a + b - m for a, b, m in zip(above, below, mass, strict=True)], above]

    def _pdf(self, b: arb) -> arb:
        return self.family.pdf(arb_series([b], prec=1))[0] if self.family.smooth(b) else self.family.rough(b)

    def enclosed(self, q: list[arb], digits: int) -> list[arb]:
        """A box that holds exactly one solution."""
        radius = ball(Fraction(1, 10 ** (digits + _SPARE)))
        for _ in range(_STEPS):
            step = solved(self.jacobian(q), self.residual(q))
            q = [(x - d).mid() for x, d in zip(q, step, strict=True)]
            if all(abs(d) < x * radius / 2 for x, d in zip(q, step, strict=True)):
                break
        widths = [x * radius * UNIT for x in q]
        steps = solved(self.jacobian([x + w for x, w in zip(q, widths, strict=True)]), self.residual(q))
        if not all(w.contains_interior(d) for w, d in zip(widths, steps, strict=True)):
            raise OpenError(f"the interval Newton test failed for {len(q)} levels above the mean")
        return [x - d for x, d in zip(q, steps, strict=True)]

    def error(self, q: list[arb]) -> arb:
        """MSE = 1 - 2 sum q (2 E - q P)."""
        mass, first = self._cells(q)
        return 1 - 2 * sum((x * (2 * e - x * m) for x, e, m in zip(q, first, mass, strict=True)), arb(0))


def solved(diagonals: list[list[arb]], right: list[arb]) -> list[arb]:
    """Solve tridiagonal equations by elimination; in balls, for all matrices within them."""
    below, middle, above = diagonals
    ratio, value = [above[0] / middle[0]], [right[0] / middle[0]]
    for i in range(1, len(right)):
        pivot = middle[i] - below[i] * ratio[-1]
        ratio.append(above[i] / pivot)
        value.append((right[i] - below[i] * value[-1]) / pivot)
    for i in range(len(right) - 2, -1, -1):
        value[i] -= ratio[i] * value[i + 1]
    return value
