"""A user's script, for type checkers: what they must know is asserted, what they must refuse has an ignored error.

`mypy` (with the package) and `pyright` fail where an assertion is wrong, or an ignored error is none.
"""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import qerror as qe

Numbers = np.float64 | NDArray[np.float64]


def scales(x: NDArray[np.float32]) -> None:
    """Results have types."""
    best = qe.optimal_scale(qe.Gaussian(), "int4")
    assert_type(best, qe.ScaleResult)
    assert_type(best.scale, Numbers)
    assert_type(best.error.mse, Numbers)
    assert_type(best.error.sqnr_db, Numbers)
    assert_type(qe.Gaussian().std, Numbers)
    assert_type(qe.Empirical(x).mean, Numbers)
    assert_type(qe.quantization_error(qe.StudentT(5), "e2m1", [0.6, 0.8]).clipping, Numbers)
    assert_type(qe.excess_db(qe.Gaussian(), "int8", 4 / 127), Numbers)
    found = qe.fit(x, "int4", rule="minmax", axis=0)
    assert_type(found.scale, Numbers)
    assert_type(found.total.mse, Numbers)
    assert_type(found.quantize(x), NDArray[Any])
    print(f"{best.scale:.6f} {best.error.mse:.3e}", float(best.scale), best.scale * 2)


def formats(x: NDArray[np.float32], name: str) -> None:
    """Names tell grids from block formats; any other name is either."""
    assert_type(qe.quantize(x, "int4", 0.5), NDArray[Any])
    assert_type(qe.quantize(x, np.float16), NDArray[Any])
    assert_type(qe.quantize(x, "mxfp4"), qe.BlockCodes)
    assert_type(qe.optimal_scale(qe.Gaussian(), "nvfp4"), qe.BlockScaleResult)
    assert_type(qe.optimal_scale(qe.Gaussian(), "int4", loss="absolute"), qe.LossScaleResult)
    assert_type(qe.optimal_scale(qe.Gaussian(), name), qe.ScaleResult | qe.BlockScaleResult)
    qe.quantize(x, 4)  # type: ignore[call-overload]


def misspelt(x: NDArray[np.float32]) -> None:
    """What is not there is an error."""
    qe.optimal_scales  # type: ignore[attr-defined]
    qe.checkpoints.fitt  # type: ignore[attr-defined]
    qe.optimal_scale(qe.Gaussian(), "int4").scael  # type: ignore[attr-defined]
    qe.quantization_error(qe.Gaussian(), "int4", 0.3).sqnr  # type: ignore[attr-defined]
    qe.fit(x, "int4").excess  # type: ignore[attr-defined]
    qe.fit(x, "int4", rul="minmax")  # type: ignore[call-arg]
    qe.quantization_error(qe.Gaussian(), "int4", 0.3, rounding="up")  # type: ignore[call-overload]
    qe.Gaussian(sigma=2)  # type: ignore[call-arg]
