"""Grids that follow no formula of steps or exponents: codebooks, and the two- and three-level grids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Dettmers, Pagnoni, Holtzman, Zettlemoyer, "QLoRA", arXiv 2305.14314, appendix E: quantiles of the Gaussian,
# normalized to [-1, 1]. These are the float32 numbers printed by bitsandbytes (functional.py, create_normal_map),
# which everybody uses; the exact quantiles differ from them by up to 1e-7.
_NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)

# Yoshida, "NF4 Isn't Information Theoretically Optimal (and that's Good)", arXiv 2306.06965: the codebook of least
# mean absolute error for Gaussian blocks of 64 divided by their largest magnitude. The numbers are those printed by
# bitsandbytes (functional.py, get_4bit_type("af4")), to eight digits; there is no closed form.
_AF4 = (
    -1.0,
    -0.69441008,
    -0.51243739,
    -0.3736951,
    -0.25607552,
    -0.14982478,
    -0.04934812,
    0.0,
    0.04273164,
    0.12934483,
    0.21961274,
    0.31675666,
    0.42563882,
    0.55496234,
    0.72424863,
    1.0,
)


# Dotzel et al., "Learning from Students", arXiv 2405.03103: SF4, the recipe of NF4 with Student's t of 5 degrees of
# freedom. With p = (1/32 + 1/30) / 2 the levels are its quantiles at 7 even steps from 1/2 down to p and at 8 even
# steps from 1/2 up to 1 - p, divided by the largest; computed with 40 digits (the test repeats it). Written down
# because the digits of a quantile function depend on the version of SciPy.
_SF4 = (
    -1.0,
    -0.6277805503508725,
    -0.4547359885777997,
    -0.3343307444636649,
    -0.23743437928669592,
    -0.1528987073803004,
    -0.07498246444991395,
    0.0,
    0.06551307325066237,
    0.13296472656153274,
    0.20466101813959583,
    0.2838347031321646,
    0.3758048374114982,
    0.4910755704320667,
    0.6567811455464914,
    1.0,
)


def _symmetric(magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.unique(np.concatenate((-magnitudes, magnitudes)) + 0.0)


def _powers_of_two() -> NDArray[np.float64]:
    """Return 0 and +-2^-6 .. 1: Miyashita, Lee, Murmann, arXiv 1603.01025."""
    return _symmetric(np.concatenate(([0.0], 2.0 ** np.arange(-6, 1))))


def _additive_powers_of_two() -> NDArray[np.float64]:
    """Return +-({0, 2^-4, 2^-2, 2^-1} + {0, 2^-3}) divided by the largest sum: Li, Dong, Wang, arXiv 1909.13144."""
    # Divided as integers, so that each level is the float64 number nearest to its decimal.
    return _symmetric(np.add.outer([0.0, 2.0], [0.0, 1.0, 4.0, 8.0]).ravel() / 10)


CODEBOOKS: dict[str, NDArray[np.float64]] = {
    "binary": np.array([-1.0, 1.0]),
    "ternary": np.array([-1.0, 0.0, 1.0]),
    "nf4": np.array(_NF4),
    "af4": np.array(_AF4),
    "sf4": np.array(_SF4),
    "pot4": _powers_of_two(),
    "apot4": _additive_powers_of_two(),
}
"""Levels by name; their codes are those that ``Grid`` gives."""
