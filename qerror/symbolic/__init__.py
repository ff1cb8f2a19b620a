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

from .codegen import CompiledExpression, to_numpy
from .densities import SymbolicDensity
from .derivation import derivation
from .errors import bias, clipping_error, curvature, mse, partial_moment, rounding_error, sqnr, stationarity
from .families import gaussian, generalized_gaussian, laplace, logistic, mixture, named, student_t, uniform
from .high_rate import clip_growth, clip_growth_error, entropy_coded, panter_dite
from .integrals import HalfLineIntegral, LevelSum
from .levels import symbolic_levels
from .published import aciq, octav, statqat_snr
from .sample import PREFIX_SUMS, Rank, SampleSum, SymbolicSample, empirical
from .steps import Derivation, Step
from .tails import X
from .typeset import latex
from .user import FromExpression, density

__all__ = [
    "PREFIX_SUMS",
    "CompiledExpression",
    "Derivation",
    "FromExpression",
    "HalfLineIntegral",
    "LevelSum",
    "Rank",
    "SampleSum",
    "Step",
    "SymbolicDensity",
    "SymbolicSample",
    "X",
    "aciq",
    "bias",
    "clip_growth",
    "clip_growth_error",
    "clipping_error",
    "curvature",
    "density",
    "derivation",
    "empirical",
    "entropy_coded",
    "gaussian",
    "generalized_gaussian",
    "laplace",
    "latex",
    "logistic",
    "mixture",
    "mse",
    "named",
    "octav",
    "panter_dite",
    "partial_moment",
    "rounding_error",
    "sqnr",
    "stationarity",
    "statqat_snr",
    "student_t",
    "symbolic_levels",
    "to_numpy",
    "uniform",
]
