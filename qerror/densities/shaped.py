"""The symmetric families with a shape parameter: Student's t and the generalized Gaussian."""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, gammaincc, gammainccinv, stdtr, stdtrit

from .._types import Array
from .location_scale import LocationScale, shape_parameter
from .panels import resolve
from .table import TailTable

# Fewer thresholds than this are faster by the special functions themselves than by setting up the look-up.
_FEWEST_FOR_TABLE = 200
# Terms of the series of an incomplete beta function: 0.1^18 is below rounding.
_TERMS = 19
# Twice the powers that are products of at most six factors.
_PRODUCTS = range(1, 13)


class StudentT(LocationScale):
    """Student's t with `df` degrees of freedom, scaled to the standard deviation `std`.

    x = mean + std sqrt((df - 2) / df) T; with w^2 = df - 2 and t = (x - mean) / std,
    f(x) = Gamma((df + 1) / 2) / (std w sqrt(pi) Gamma(df / 2)) (1 + t^2 / w^2)^(-(df + 1) / 2).

    Parameters
    ----------
    df : float
        Degrees of freedom, more than 2 (below, the variance is infinite).
    mean, std : array_like
        Units of x; they broadcast to `shape`.

    Examples
    --------
    >>> import qerror as qe
    >>> heavy = qe.StudentT(df=5)
    >>> round(float(heavy.moments(4.0, float("inf"), 0.0)[2]), 6)
    0.050658
    """

    family = "student-t"

    def __init__(self, df: float, mean: ArrayLike = 0.0, std: ArrayLike = 1.0) -> None:
        why = "larger than 2 (no variance otherwise) and at most 1e9 (Gaussian)"
        self.df = shape_parameter("df", df, 2.0, 1e9, why)
        self._w2 = self.df - 2.0
        self._peak = _gamma_ratio(0.5 * self.df) / math.sqrt(math.pi * self._w2)
        self.unit_panels = _student_panels(self.df)
        # Near df = 2 the remainders of a long tail are large numbers of which a small difference counts.
        self.tail_doublings = 24 if self.df < 3 else type(self).tail_doublings
        # Above, what 64 decay lengths leave is below 1e-18 of the tail.
        self.power_law = self.df <= 60.0
        super().__init__(mean, std)

    def _parameters(self) -> dict[str, Any]:
        return {"df": self.df, **super()._parameters()}

    def _log_base(self, t: Array) -> Array:
        # log1p: rounding 1 + t^2 / w^2 would cost eps * df where df is large.
        return np.log1p(np.minimum(t, 1e150) ** 2 / self._w2)

    def _falling(self, t: Array, power: float) -> Array:
        """(1 + t^2 / w^2)^(-power)."""
        if 2.0 * power not in _PRODUCTS:
            return np.asarray(np.exp(-power * self._log_base(t)))
        # A few products: a fifth of the time, and as many digits.
        inverse = 1.0 / (1.0 + np.minimum(t, 1e150) ** 2 / self._w2)
        out = np.sqrt(inverse) if power % 1.0 else inverse
        for _ in range(math.ceil(power) - 1):
            out = out * inverse
        return np.asarray(out)

    def _pdf(self, t: Array) -> Array:
        return self._peak * self._falling(t, 0.5 * (self.df + 1.0))

    def _sf(self, t: Array) -> Array:
        return np.asarray(stdtr(self.df, -t * math.sqrt(self.df / self._w2)))

    def _first(self, t: Array) -> Array:
        return (self._peak * self._w2 / (self.df - 1.0)) * self._falling(t, 0.5 * (self.df - 1.0))

    def _sf_and_first(self, t: Array) -> tuple[Array, Array]:
        if t.size < _FEWEST_FOR_TABLE:
            return self._sf(t), self._first(t)
        return _student_table(self.df)(t)

    def _isf(self, p: Array) -> Array:
        # Where w^2 / t^2 < 1e-17 the tail is its leading power, which stdtrit does not reach for small df.
        power = np.asarray((self._peak * math.sqrt(self._w2) / self.df) / p)
        far = math.sqrt(self._w2) * power ** (1.0 / self.df)
        near = -stdtrit(self.df, p) * math.sqrt(self._w2 / self.df)
        return np.where(far * far > 1e17 * self._w2, far, near)

    @property
    def _entropy(self) -> float:
        # -log f(0) + (df + 1) / 2 E[log(1 + t^2 / w^2)], and that mean is psi((df + 1) / 2) - psi(df / 2).
        return 0.5 * (self.df + 1.0) * _digamma_step(0.5 * self.df) - math.log(self._peak)

    def _decay(self, t: Array) -> Array:
        # -f / f' = (w^2 + t^2) / ((df + 1) t); within the panels any finite length serves.
        t = np.maximum(t, 1.0)
        return (self._w2 / t + t) / (self.df + 1.0)

    def _draw_unit(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        return math.sqrt(self._w2 / self.df) * generator.standard_t(self.df, size)

    def far_moments(self, x: Array, about: Array, sign: Array) -> Array:
        """Moments of the power-law tail beyond `x`, which lies well outside the panels.

        With y = w^2 / (w^2 + t^2) the raw moments are incomplete beta functions of y, summed as series of positive
        terms.
        """
        w = math.sqrt(self._w2)
        c = sign * self._standard(about)
        log_base = self._log_base(np.maximum(sign * self._standard(x), 3.0 * w))
        y = np.exp(-log_base)
        powers = np.empty((_TERMS, y.size))
        powers[0], powers[1:] = 1.0, y.ravel()
        np.multiply.accumulate(powers, axis=0, out=powers)
        # B_y(a, b) for y <= 0.1: y^a (1 - y)^b / a sum (a + b)_n / (a + 1)_n y^n.
        a, b, terms = _beta_terms(self.df)
        lead = np.exp(-a * log_base.ravel()) * (1.0 - y.ravel()) ** b / a
        m0, m2 = (0.5 * self._peak * w * lead * (terms @ powers)).reshape(2, *y.shape)
        m1 = (self._peak * self._w2 / (self.df - 1.0)) * np.exp(-0.5 * (self.df - 1.0) * log_base)
        second = self._w2 * m2 - c * (2.0 * m1 - c * m0)
        return np.array([m0, sign * self._std * (m1 - c * m0), self._std**2 * second])


@functools.cache
def _beta_terms(df: float) -> tuple[Array, Array, Array]:
    """Columns a, b of the incomplete beta functions of mass and second moment, and the rows (a + b)_n / (a + 1)_n."""
    a, b = np.array([[0.5 * df], [0.5 * df - 1.0]]), np.array([[0.5], [1.5]])
    n = np.arange(_TERMS - 1)
    return a, b, np.cumprod(np.concatenate([np.ones((2, 1)), (a + b + n) / (a + 1.0 + n)], axis=1), axis=1)


class GeneralizedGaussian(LocationScale):
    """Generalized Gaussian (exponential power) distribution: beta 2 is Gaussian, 1 Laplace, large ones nearly uniform.

    f(x) = beta / (2 alpha std Gamma(1 / beta)) exp(-(t / alpha)^beta), t = |x - mean| / std,
    alpha^2 = Gamma(1 / beta) / Gamma(3 / beta).

    Parameters
    ----------
    beta : float
        Exponent, 0.15 <= beta <= 100.
    mean, std : array_like
        Units of x; they broadcast to `shape`.

    Examples
    --------
    >>> import qerror as qe
    >>> bool(abs(qe.GeneralizedGaussian(beta=2).pdf(1.0) - qe.Gaussian().pdf(1.0)) < 1e-15)
    True
    """

    family = "generalized-gaussian"

    def __init__(self, beta: float, mean: ArrayLike = 0.0, std: ArrayLike = 1.0) -> None:
        why = "at least 0.15 and at most 100 (Uniform)"
        self.beta = shape_parameter("beta", beta, math.nextafter(0.15, 0.0), 100.0, why)
        zeroth, first, second = (_gamma_of_quotient(order, self.beta) for order in (1, 2, 3))
        self._alpha = math.sqrt(zeroth / second)
        self._peak = self.beta / (2.0 * self._alpha * zeroth)
        self._half_mean = self._alpha * first / (2.0 * zeroth)
        self.unit_panels, self.tail_doublings = _exponential_power_panels(self.beta, self._alpha)
        super().__init__(mean, std)

    def _parameters(self) -> dict[str, Any]:
        return {"beta": self.beta, **super()._parameters()}

    def _exponent(self, t: Array) -> Array:
        with np.errstate(over="ignore"):
            power: Array = (t / self._alpha) ** self.beta
        return power

    def _pdf(self, t: Array) -> Array:
        return self._peak * np.exp(-self._exponent(t))

    def _sf(self, t: Array) -> Array:
        v = self._exponent(t)
        # Below, gammaincc loses t: its argument t^beta is nothing, the mass peak * t is not.
        return np.where(v < 1e-17, 0.5 - self._peak * t, 0.5 * gammaincc(1.0 / self.beta, v))

    def _first(self, t: Array) -> Array:
        v = self._exponent(t)
        near = self._half_mean - 0.5 * self._peak * np.minimum(t, self._alpha) ** 2
        return np.where(v < 1e-17, near, self._half_mean * gammaincc(2.0 / self.beta, v))

    def _sf_and_first(self, t: Array) -> tuple[Array, Array]:
        # Whatever their number: gammaincc is wrong by up to 1e-14, fifty times as much as the table.
        return _exponential_power_table(self.beta)(t)

    def _isf(self, p: Array) -> Array:
        return np.asarray(self._alpha * gammainccinv(1.0 / self.beta, 2.0 * p) ** (1.0 / self.beta))

    @property
    def _entropy(self) -> float:
        # E[(t / alpha)^beta] = 1 / beta.
        return 1.0 / self.beta - math.log(self._peak)

    def _decay(self, t: Array) -> Array:
        t = np.maximum(t, self.unit_panels[1])
        return t / (self.beta * self._exponent(t))

    def _draw_unit(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        side = self._alpha * generator.standard_gamma(1.0 / self.beta, size) ** (1.0 / self.beta)
        return np.copysign(side, generator.random(size) - 0.5)


def _gamma_of_quotient(order: int, beta: float) -> float:
    """Gamma(order / beta); the rounding of a quotient of 20 alone would cost 13 ulp."""
    x = order / beta
    lost = float(Fraction(order) / Fraction(beta) - Fraction(x))
    return math.gamma(x) * (1.0 + float(digamma(x)) * lost)


def _gamma_ratio(x: float) -> float:
    """Gamma(x + 1/2) / Gamma(x), within a few ulp for any x > 0."""
    if x < 150.0:
        return math.gamma(x + 0.5) / math.gamma(x)
    y = 1.0 / x
    # Asymptotic series (DLMF 5.11.13 with a = 1/2, b = 0); what is left out is below 3e-17 at x = 150.
    series = y * (-1 / 8 + y * (1 / 128 + y * (5 / 1024 + y * (-21 / 32768 - y * (399 / 262144)))))
    return math.sqrt(x) * (1.0 + series)


def _digamma_step(x: float) -> float:
    """psi(x + 1/2) - psi(x), within a few ulp for any x >= 1."""
    near = 0.0
    while x < 40.0:
        # psi(x + 1) = psi(x) + 1 / x; the difference of two psi would lose digits.
        near += 0.5 / (x * (x + 0.5))
        x += 1.0
    # The derivative of the logarithm of the same ratio; what is left out is below 2e-17 of it at x = 40.
    y = 1.0 / (x * x)
    return near + 0.5 / x + y * (1 / 8 - y * (1 / 64 - y * (1 / 128 - y * (17 / 2048))))


@functools.lru_cache(maxsize=256)
def _student_panels(df: float) -> Array:
    """Edges for t >= 0: no panel is much wider than its distance to the poles +-iw, none spans many e-folds."""
    w2 = df - 2.0
    edges = [0.0]
    while edges[-1] < 4.5:
        t = edges[-1]
        folds = (w2 + max(t, 2.0) ** 2) / ((df + 1.0) * max(t, 2.0))
        edges.append(t + min(0.7 * math.hypot(math.sqrt(w2), t), max(1.0, 2.0 * folds)))
    return np.array(edges)


# Values of (t / alpha)^beta between which panels start: e-folds in the bulk; beta < 1 falls slowly, so that its
# panels must reach exp(-40) before doubling decay lengths end.
_FOLDS = np.array([0.01, 0.3, 2.0, 6.0, 12.0, 19.0, 26.0, 33.0, 40.0])


@functools.lru_cache(maxsize=256)
def _exponential_power_panels(beta: float, alpha: float) -> tuple[Array, int]:
    """Edges for t >= 0 and the doublings of a tail, for exp(-(t / alpha)^beta)."""
    edges = (_FOLDS if beta < 1.0 else _FOLDS[:6]) ** (1.0 / beta)
    start = np.zeros(1)
    if beta != round(beta):
        # |t|^beta is not smooth at 0. On edges three times apart twelve nodes resolve it to 1e-16; their error on the
        # innermost panel [0, h] is below h^beta * 12^(-2 beta - 2) of it.
        smallest = min(max((1e-17 * 12.0 ** (2.0 * beta + 2.0)) ** (1.0 / beta), 1e-15), float(edges[0]))
        steps = math.ceil(math.log(edges[-1] / smallest, 3.0))
        start = edges[-1] * 3.0 ** -np.arange(steps, 0.0, -1.0)
    edges = np.union1d(start, edges)
    edges, _ = resolve(lambda t: np.exp(-(t**beta)), edges, relative=1e-14, absolute=2e-16, depth=12)
    # Panels reach the exponent v; 2^k decay lengths beyond bring another 40 e-folds.
    v = edges[-1] ** beta
    reach = beta * v * ((1.0 + 40.0 / v) ** (1.0 / beta) - 1.0)
    return alpha * np.union1d(0.0, edges), max(7, 1 + math.ceil(math.log2(reach)))


@functools.lru_cache(maxsize=64)
def _student_table(df: float) -> TailTable:
    """Tails between w / 64, where one polynomial holds, and 256 w, where the closed form is a short series."""
    density = StudentT(df)
    w = math.sqrt(df - 2.0)
    start = 2.0 ** math.floor(math.log2(min(w, 1.0) / 64.0))
    # Beyond `gone` both functions are below 1e-18.
    gone = w * math.sqrt(math.expm1(min(83.0 / (df - 1.0), 600.0)))
    return TailTable(density._pdf, start, min(256.0 * w, gone), 5, lambda t: (density._sf(t), density._first(t)))


@functools.lru_cache(maxsize=64)
def _exponential_power_table(beta: float) -> TailTable:
    """Tails from where the term |t|^beta of the pdf is below 1e-16 of the mass, to exp(-48)."""
    density = GeneralizedGaussian(beta)
    smooth = beta == round(beta)
    start = 2.0**-5 if smooth else min(2.0**-5, (1e-14 / density._peak) ** (1.0 / (1.0 + beta)))
    # Intervals so narrow that the exponent changes by half an e-fold at exp(-8).
    bits = 4 if beta < 1.0 else max(5, math.ceil(math.log2(16.0 * beta)))
    stop = density._alpha * 48.0 ** (1.0 / beta)
    power = 2.0 ** math.floor(math.log2(start))
    return TailTable(density._pdf, power, stop, bits, lambda t: (density._sf(t), density._first(t)))
