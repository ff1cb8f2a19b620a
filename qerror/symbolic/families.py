"""The families as SymPy expressions, parametrized as in `qerror`: mean and standard deviation; and their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import sympy as sp

from .._check import shown, suggest
from .._types import Expr
from .densities import SymbolicDensity, positive
from .expressions import as_expression, exact
from .tails import X

SIGMA, NU, BETA = sp.symbols("sigma nu beta", positive=True)


def gaussian(std: Expr = SIGMA, mean: Expr = 0) -> SymbolicDensity:
    """Normal density exp(-t^2 / (2 sigma^2)) / (sigma sqrt(2 pi)).

    Parameters
    ----------
    std, mean : Expr
        Units of x; positive, real.

    Examples
    --------
    >>> gaussian().variance
    sigma**2
    """
    s = positive("std", std)
    return SymbolicDensity("gaussian", sp.exp(-(X**2) / (2 * s**2)) / (s * sp.sqrt(2 * sp.pi)), mean=mean)


def laplace(std: Expr | None = None, mean: Expr = 0, *, b: Expr | None = None) -> SymbolicDensity:
    """Laplace density exp(-t / b) / (2 b); b = std / sqrt(2), or given.

    Parameters
    ----------
    std, b : Expr, optional
        Standard deviation or scale b; by default std = sigma.
    mean : Expr
        Units of x.

    Raises
    ------
    ValueError
        If both std and b are given.

    Examples
    --------
    >>> laplace().variance, laplace(b=1).variance
    (sigma**2, 2)
    """
    if std is not None and b is not None:
        raise ValueError(f"give std or b = std / sqrt(2), not both; got std={std}, b={b}")
    scale = positive("b", b) if b is not None else positive("std", SIGMA if std is None else std) / sp.sqrt(2)
    return SymbolicDensity("laplace", sp.exp(-X / scale) / (2 * scale), mean=mean)


def uniform(std: Expr = SIGMA, mean: Expr = 0) -> SymbolicDensity:
    """Uniform density on mean +- sqrt(3) std.

    Parameters
    ----------
    std, mean : Expr
        Units of x.

    Examples
    --------
    >>> uniform().variance
    sigma**2
    """
    end = sp.sqrt(3) * positive("std", std)
    return SymbolicDensity("uniform", 1 / (2 * end), end, mean)


def logistic(std: Expr = SIGMA, mean: Expr = 0) -> SymbolicDensity:
    """Logistic density a exp(-a t) / (1 + exp(-a t))^2, a = pi / (sqrt(3) std).

    Parameters
    ----------
    std, mean : Expr
        Units of x.

    Examples
    --------
    >>> logistic().variance
    sigma**2
    """
    a = sp.pi / (sp.sqrt(3) * positive("std", std))
    return SymbolicDensity("logistic", a * sp.exp(-a * X) / (1 + sp.exp(-a * X)) ** 2, mean=mean)


def student_t(df: Expr = NU, std: Expr = SIGMA, mean: Expr = 0) -> SymbolicDensity:
    """Student's t scaled to std: Gamma((df + 1) / 2) / (w sqrt(pi) Gamma(df / 2)) (1 + t^2 / w^2)^(-(df + 1) / 2).

    Parameters
    ----------
    df : Expr
        Degrees of freedom nu > 2; w = std sqrt(nu - 2).
    std, mean : Expr
        Units of x.

    Examples
    --------
    >>> student_t(5).variance
    sigma**2
    """
    nu = sp.nsimplify(as_expression("df", df))
    if nu.is_number and not nu > 2:
        raise ValueError(f"df must be larger than 2 (no variance otherwise), got {df}")
    # With nu = 2 + m, m > 0, SymPy knows the sign of everything.
    w = positive("std", std) * sp.sqrt(nu - 2)
    peak = sp.gamma((nu + 1) / 2) / (w * sp.sqrt(sp.pi) * sp.gamma(nu / 2))
    return SymbolicDensity("student-t", peak * (1 + X**2 / w**2) ** (-(nu + 1) / 2), mean=mean)


def generalized_gaussian(beta: Expr = BETA, std: Expr = SIGMA, mean: Expr = 0) -> SymbolicDensity:
    """Generalized Gaussian beta / (2 alpha Gamma(1 / beta)) exp(-(t / alpha)^beta).

    Parameters
    ----------
    beta : Expr
        Exponent > 0; alpha^2 = std^2 Gamma(1 / beta) / Gamma(3 / beta).
    std, mean : Expr
        Units of x.

    Examples
    --------
    >>> generalized_gaussian().variance
    sigma**2
    """
    exponent = positive("beta", beta)
    alpha = positive("std", std) * sp.sqrt(sp.gamma(1 / exponent) / sp.gamma(3 / exponent))
    peak = exponent / (2 * alpha * sp.gamma(1 / exponent))
    half = peak * sp.exp(-(alpha**-exponent) * X**exponent)
    return SymbolicDensity("generalized-gaussian", half, mean=mean)


def mixture(components: Sequence[SymbolicDensity], weights: Sequence[Expr]) -> SymbolicDensity:
    """Weighted mixture of densities with one mean and unbounded support.

    Parameters
    ----------
    components : sequence of SymbolicDensity
        All about the same mean: the mixture is then symmetric too.
    weights : sequence of Expr
        Divided by their sum.

    Raises
    ------
    ValueError
        For differing means or ends, another number of weights, or weights that are negative or all 0.

    Examples
    --------
    >>> mixture([gaussian(1), gaussian(3)], [sp.Rational(3, 4), sp.Rational(1, 4)]).variance
    3
    """
    if not all(isinstance(part, SymbolicDensity) for part in components):
        raise ValueError(f"components must be symbolic densities, got {shown(components)}; symbolic.named makes one")
    if not components or len(components) != len(weights):
        raise ValueError(f"mixture needs one weight for each component, got {len(components)} and {len(weights)}")
    first = components[0]
    if any((part.mean, part.end) != (first.mean, first.end) for part in components):
        raise ValueError("components of a symbolic mixture must share mean and support; qerror.Mixture takes any")
    share = [as_expression("weights", w) for w in weights]
    if any(w.is_negative for w in share) or sp.Add(*share) == 0:
        raise ValueError(f"weights must be >= 0 and not all 0, got {', '.join(map(str, share))}")
    half = sp.Add(*(w / sp.Add(*share) * part.half_pdf for w, part in zip(share, components, strict=True)))
    return SymbolicDensity("mixture", half, first.end, first.mean)


_FAMILIES: dict[str, tuple[Callable[..., SymbolicDensity], tuple[str, ...]]] = {
    "gaussian": (gaussian, ("std", "mean")),
    "laplace": (laplace, ("std", "mean", "b")),
    "uniform": (uniform, ("std", "mean")),
    "logistic": (logistic, ("std", "mean")),
    "student-t": (student_t, ("df", "std", "mean")),
    "generalized-gaussian": (generalized_gaussian, ("beta", "std", "mean")),
}
_NUMERIC_ONLY = ("histogram", "rectified")


def named(name: str | SymbolicDensity) -> SymbolicDensity:
    """The density of a name as `qerror.density` reads it; parameters that are not said stay symbols.

    Parameters
    ----------
    name : str or SymbolicDensity
        "gaussian", "student-t:df=5", "laplace:std=1", "mixture(0.9*gaussian:std=1; 0.1*gaussian:std=10)".

    Raises
    ------
    ValueError
        For a name without a symbolic density: with those that have one.

    Examples
    --------
    >>> named("student-t:df=5").parameters
    (sigma,)
    """
    if isinstance(name, SymbolicDensity):
        return name
    if not isinstance(name, str):
        raise ValueError(f"density must be a SymbolicDensity or a name such as 'gaussian:std=2', got {name!r}")
    composed = re.fullmatch(r"mixture\s*\((.*)\)", name.strip(), re.IGNORECASE | re.DOTALL)
    if composed:
        parts = [part.partition("*") for part in composed[1].split(";")]
        if not all(star for _, star, _ in parts):
            raise ValueError(f"a mixture is written as mixture(weight*name; weight*name), got {name!r}")
        return mixture([named(part) for _, _, part in parts], [exact("weight", weight) for weight, _, _ in parts])
    family, _, said = name.strip().lower().replace("_", "-").partition(":")
    if family not in _FAMILIES:
        known = f"; there are {', '.join(_FAMILIES)}, mixture, and empirical for errors and optima"
        hint = suggest(family, _FAMILIES) or known
        if family.partition("(")[0] in _NUMERIC_ONLY:
            hint = f"{known}; qerror.density has it, as numbers only"
        raise ValueError(f"no symbolic density {family!r}{hint}")
    build, keys = _FAMILIES[family]
    given = [_parameter(part, family, keys) for part in said.split(",") if said]
    if len(dict(given)) < len(given):
        raise ValueError(f"a parameter is given twice in {name!r}")
    return build(**dict(given))


def _parameter(part: str, family: str, keys: tuple[str, ...]) -> tuple[str, Expr]:
    key, equals, value = (word.strip() for word in part.partition("="))
    if not equals or key not in keys:
        raise ValueError(f"{family} takes {', '.join(keys)}, written as key=value; got {part!r}")
    return key, exact(key, value)
