"""The error of a quantizer as SymPy expressions: derived from the definition, printed, compiled, checked.

Imported on demand (SymPy takes half a second): ``from qerror import symbolic``. Expressions stay folded, as integrals
and sums over levels, until `.doit()`.

Examples
--------
>>> import sympy as sp
>>> from qerror import symbolic
>>> C, b = sp.symbols("C b", positive=True)
>>> symbolic.clipping_error(symbolic.laplace(b=b), C).doit()
2*b**2*exp(-C/b)
"""

from .codegen import CompiledExpression, latex, to_numpy
from .densities import (
    SymbolicDensity,
    gaussian,
    generalized_gaussian,
    laplace,
    logistic,
    mixture,
    named,
    student_t,
    uniform,
)
from .errors import bias, clipping_error, curvature, mse, partial_moment, rounding_error, sqnr, stationarity
from .integrals import HalfLineIntegral, LevelSum, X
from .levels import symbolic_levels
from .sample import PREFIX_SUMS, Rank, SampleSum, SymbolicSample, empirical

__all__ = [
    "PREFIX_SUMS",
    "CompiledExpression",
    "HalfLineIntegral",
    "LevelSum",
    "Rank",
    "SampleSum",
    "SymbolicDensity",
    "SymbolicSample",
    "X",
    "bias",
    "clipping_error",
    "curvature",
    "empirical",
    "gaussian",
    "generalized_gaussian",
    "laplace",
    "latex",
    "logistic",
    "mixture",
    "mse",
    "named",
    "partial_moment",
    "rounding_error",
    "sqnr",
    "stationarity",
    "student_t",
    "symbolic_levels",
    "to_numpy",
    "uniform",
]
