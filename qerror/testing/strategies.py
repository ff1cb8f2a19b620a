"""Hypothesis strategies for densities, grids, scales and tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from .._check import as_int
from ..densities.base import Density
from ..densities.combined import Mixture
from ..densities.parametric import Gaussian, Laplace, Logistic, Uniform
from ..densities.rectified import Rectified
from ..densities.shaped import GeneralizedGaussian, StudentT
from ..grids.families import MAX_BITS
from ..grids.formats import formats
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def densities() -> SearchStrategy[Density]:
    """Densities of every parametric family, rectified ones and mixtures of two.

    Means from -3 to 3, standard deviations from 0.1 to 10, 2.5 to 50 degrees of freedom, exponents from 0.5 to 8.

    Examples
    --------
    >>> import hypothesis
    >>> @hypothesis.settings(max_examples=5, derandomize=True, database=None)
    ... @hypothesis.given(densities())
    ... def test(density):
    ...     assert density.std > 0
    >>> test()
    """
    from hypothesis import strategies as st

    mean, std = st.floats(-3.0, 3.0), st.floats(0.1, 10.0)
    plain = st.one_of(
        *(st.builds(family, mean, std) for family in (Gaussian, Laplace, Logistic, Uniform)),
        st.builds(StudentT, st.floats(2.5, 50.0), mean, std),
        st.builds(GeneralizedGaussian, st.floats(0.5, 8.0), mean, std),
    )
    mixed = st.builds(lambda a, b, w: Mixture([a, b], [w, 1.0 - w]), plain, plain, st.floats(0.01, 0.99))
    return st.one_of(plain, st.builds(Rectified, plain), mixed)


def grids(max_bits: int = 8) -> SearchStrategy[Grid]:
    """Named formats of up to `max_bits` bits, and grids of 2 to 16 levels of any spacing.

    Parameters
    ----------
    max_bits : int
        The widest named format.

    Examples
    --------
    >>> import hypothesis
    >>> @hypothesis.settings(max_examples=5, derandomize=True, database=None)
    ... @hypothesis.given(grids(4))
    ... def test(grid):
    ...     assert grid.bits <= 4
    >>> test()
    """
    from hypothesis import strategies as st

    max_bits = as_int("max_bits", max_bits, 1, MAX_BITS)
    named = st.sampled_from([name for bits in range(1, max_bits + 1) for name in formats(bits)]).map(as_grid)
    # Multiples of 1/64: neighbours never so close that a threshold falls onto one of them.
    levels = st.lists(st.integers(-4096, 4096), min_size=2, max_size=min(16, 2**max_bits), unique=True)
    return st.one_of(named, levels.map(lambda some: Grid(np.sort(some) / 64.0)))


def scales(least: float = 1e-3, greatest: float = 1e3) -> SearchStrategy[float]:
    """Scales, evenly spread over the decades; every fourth a power of two, on whose grids ties are exact.

    Parameters
    ----------
    least, greatest : float
        Bounds, positive.

    Examples
    --------
    >>> import hypothesis
    >>> @hypothesis.settings(max_examples=5, derandomize=True, database=None)
    ... @hypothesis.given(scales(0.1, 10.0))
    ... def test(scale):
    ...     assert 0.1 <= scale <= 10.0
    >>> test()
    """
    from hypothesis import strategies as st

    low, high = np.log2([least, greatest])
    anywhere = st.floats(float(low), float(high)).map(lambda e: float(np.clip(2.0**e, least, greatest)))
    powers = [2.0**e for e in range(int(np.ceil(low)), int(np.floor(high)) + 1)]
    return st.one_of(*[anywhere] * 3, *([st.sampled_from(powers)] if powers else []))


def tensors(dtype: DTypeLike = np.float32, *, max_dims: int = 3, max_side: int = 16) -> SearchStrategy[Any]:
    """Finite arrays as quantizers meet them: bell-shaped, with outliers, with zeros, constant, of any scale.

    Parameters
    ----------
    dtype : dtype
        Floating-point type.
    max_dims, max_side : int
        Bounds of the shape; no side is 0.

    Examples
    --------
    >>> import hypothesis
    >>> @hypothesis.settings(max_examples=5, derandomize=True, database=None)
    ... @hypothesis.given(tensors(np.float16))
    ... def test(x):
    ...     assert np.isfinite(x).all() and x.dtype == np.float16
    >>> test()
    """
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp

    max_dims, max_side = as_int("max_dims", max_dims, 1, 32), as_int("max_side", max_side, 1, 1 << 20)
    shape = hnp.array_shapes(min_dims=1, max_dims=max_dims, min_side=1, max_side=max_side)
    kind = st.sampled_from(["plain", "outliers", "zeros", "constant"])
    return st.builds(_tensor, shape, kind, st.integers(0, 2**32 - 1), st.floats(-3.0, 3.0), st.just(np.dtype(dtype)))


def _tensor(shape: tuple[int, ...], kind: str, seed: int, exponent: float, dtype: np.dtype[Any]) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    some = rng.random(shape) < 0.1
    if kind == "outliers":
        x[some] *= 20.0
    elif kind == "zeros":
        x[~some] = 0.0
    elif kind == "constant":
        x[...] = x.flat[0]
    return (10.0**exponent * x).astype(dtype)
