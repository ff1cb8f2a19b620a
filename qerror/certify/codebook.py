"""Lloyd-Max quantizers proven: the interval Newton test on the equations of the levels above the mean."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from flint import arb, arb_mat

from .._check import as_int
from ..densities.base import Density
from ..densities.named import density as as_density
from ..search.lloyd_max import lloyd_max
from .certificate import FORMAT, SCHEMA, CertifiedCodebook, OpenError
from .checker import UNIT, Values, arithmetic, ball, standard, symmetric_values
from .proof import claim
from .statement import density_data, short_numbers

_MOST = 256
# Digits of the boxes beyond those that are stated, and steps of Newton's method from float64.
_SPARE, _STEPS = 8, 12


def certify_codebook(density: Density | str, n_levels: int, *, digits: int = 30) -> CertifiedCodebook:
    """Prove the Lloyd-Max quantizer of a symmetric family.

    The levels above the mean have dMSE / dq = 0 where each is the mean of its cell. If c - H(X)^-1 MSE'(c) lies inside
    of a box X about c, H(X) all second derivatives over X, then X holds exactly one solution (Moore, Krawczyk). It is
    the best of all codebooks where the density is log-concave: Gaussian, Laplace, Logistic, Uniform, and generalized
    Gaussians of beta >= 1 (lemma 13 of `qerror.certify.checker`, after J. C. Kieffer, "Uniqueness of locally optimal
    quantizer for log-concave density and convex error weighting function", IEEE Trans. Inf. Theory 29 (1), 42-47,
    1983); elsewhere it is a stationary one.

    Parameters
    ----------
    density : Density or str
        Gaussian, Laplace, Logistic, Uniform, StudentT or GeneralizedGaussian, of shape ().
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
    said = symmetric_data(member)
    count, digits = as_int("n_levels", n_levels, 2, _MOST), as_int("digits", digits, 6, 1000)
    levels = lloyd_max(member, count).levels
    start = (levels[-(count // 2) :] - float(member.mean)) / float(member.std)
    with arithmetic(4 * digits + 100):
        part, concave = standard(said)
        values = symmetric_values(part.family, count)
        box = enclosed(values, [ball(x) for x in start.tolist()], digits)
        mse = values.at(box) * part.std**2
        upper = [about_zero(part.mean + part.std * x, digits) for x in box]
        lower = [about_zero(part.mean - part.std * x, digits) for x in reversed(box)]
        centre = [about_zero(arb(part.mean), digits)] * (count % 2)
        content = {
            "format": f"{FORMAT} of a codebook",
            "schema": SCHEMA,
            "density": said,
            "levels": [*lower, *centre, *upper],
            "mse": claim(mse, digits),
            "optimal": concave,
            "digits": digits,
        }
    return CertifiedCodebook(content)


def symmetric_data(member: Density) -> Any:
    """A density of one symmetric family as plain data."""
    said = density_data(member)
    if said["family"] in ("mixture", "rectified", "histogram"):
        raise ValueError(f"density must be one of the symmetric families, got {member.name!r}")
    return short_numbers(said)


def about_zero(number: arb, digits: int) -> str:
    """The statement of a ball that may hold 0: that has no digits."""
    return f"[+/- 1e-{digits}]" if number.contains(0) else claim(number, digits)


def enclosed(values: Values, x: list[arb], digits: int) -> list[arb]:
    """A box that holds exactly one solution, by Newton's method and its interval test."""
    radius, still = ball(Fraction(1, 10 ** (digits + _SPARE))), [arb(0)] * len(x)
    size = max(abs(number).upper() for number in x)
    for _ in range(_STEPS):
        jet = values.jet(x, still)
        step = jet.curve.mid().solve(arb_mat([[m.mid()] for m in jet.slope])).entries()
        x = [(a - d).mid() for a, d in zip(x, step, strict=True)]
        if all(abs(d) < size * radius / 8 for d in step):
            break
    try:
        return values.newton([a + size * radius * UNIT for a in x])
    except ValueError as error:
        raise OpenError(f"{error}: {len(x)} unknowns") from None
