"""Exact quantization error and optimal scales, for densities and for real tensors.

``qerror`` answers how much error a quantizer makes on a distribution, which scale makes it smallest,
and how far from that a given scale is.

Examples
--------
>>> import qerror as qe
>>> best = qe.optimal_scale(qe.Gaussian(), "int4")
>>> error = qe.quantization_error(qe.Gaussian(), "int4", best.scale)
>>> bool(error.clipping + error.rounding == error.mse)
True
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qerror.densities.base import Density
    from qerror.densities.combined import Mixture, Rectified
    from qerror.densities.empirical import Empirical
    from qerror.densities.histogram import Histogram
    from qerror.densities.named import density, fit_density, from_pdf, from_scipy
    from qerror.densities.parametric import (
        Gaussian,
        GeneralizedGaussian,
        Laplace,
        Logistic,
        StudentT,
        Uniform,
    )
    from qerror.dot_product import dot_product_error
    from qerror.error import code_entropy, code_probabilities, quantization_error
    from qerror.evidence.dot_product import simulate_dot_product
    from qerror.evidence.simulation import simulate
    from qerror.evidence.verification import VerificationReport, verify
    from qerror.grids.casting import dequantize, fake_quantize, quantize
    from qerror.grids.formats import BlockFormat, float_grid, formats, grid, int_grid
    from qerror.grids.grid import Grid
    from qerror.results import (
        DotProductError,
        ErrorTerms,
        FitResult,
        Minimum,
        ScaleResult,
        SimulatedTerms,
        StandardErrors,
        Status,
    )
    from qerror.search.lloyd_max import lloyd_max
    from qerror.search.optimal import excess_db, optimal_scale
    from qerror.tables.build import scale_table
    from qerror.tables.files import load_table
    from qerror.tables.table import ScaleTable
    from qerror.tensors.fitting import evaluate, fit

__version__ = "0.1.0"

# Where each public name lives. A name is imported when it is first used, so that `import qerror` costs
# no more than its interpreter start (PEP 562); a test holds this table against the imports above.
_HOMES = {
    "qerror.densities.base": ("Density",),
    "qerror.densities.combined": ("Mixture", "Rectified"),
    "qerror.densities.empirical": ("Empirical",),
    "qerror.densities.histogram": ("Histogram",),
    "qerror.densities.named": ("density", "fit_density", "from_pdf", "from_scipy"),
    "qerror.densities.parametric": (
        "Gaussian",
        "GeneralizedGaussian",
        "Laplace",
        "Logistic",
        "StudentT",
        "Uniform",
    ),
    "qerror.dot_product": ("dot_product_error",),
    "qerror.error": ("code_entropy", "code_probabilities", "quantization_error"),
    "qerror.evidence.dot_product": ("simulate_dot_product",),
    "qerror.evidence.simulation": ("simulate",),
    "qerror.evidence.verification": ("VerificationReport", "verify"),
    "qerror.grids.casting": ("dequantize", "fake_quantize", "quantize"),
    "qerror.grids.formats": ("BlockFormat", "float_grid", "formats", "grid", "int_grid"),
    "qerror.grids.grid": ("Grid",),
    "qerror.results": (
        "DotProductError",
        "ErrorTerms",
        "FitResult",
        "Minimum",
        "ScaleResult",
        "SimulatedTerms",
        "StandardErrors",
        "Status",
    ),
    "qerror.search.lloyd_max": ("lloyd_max",),
    "qerror.search.optimal": ("excess_db", "optimal_scale"),
    "qerror.tables.build": ("scale_table",),
    "qerror.tables.files": ("load_table",),
    "qerror.tables.table": ("ScaleTable",),
    "qerror.tensors.fitting": ("evaluate", "fit"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_SUBPACKAGES = frozenset(
    {"densities", "evidence", "grids", "literature", "plotting", "search", "symbolic", "tables", "tensors", "training"}
)

__all__ = [
    "BlockFormat",
    "Density",
    "DotProductError",
    "Empirical",
    "ErrorTerms",
    "FitResult",
    "Gaussian",
    "GeneralizedGaussian",
    "Grid",
    "Histogram",
    "Laplace",
    "Logistic",
    "Minimum",
    "Mixture",
    "Rectified",
    "ScaleResult",
    "ScaleTable",
    "SimulatedTerms",
    "StandardErrors",
    "Status",
    "StudentT",
    "Uniform",
    "VerificationReport",
    "__version__",
    "code_entropy",
    "code_probabilities",
    "density",
    "dequantize",
    "dot_product_error",
    "evaluate",
    "excess_db",
    "fake_quantize",
    "fit",
    "fit_density",
    "float_grid",
    "formats",
    "from_pdf",
    "from_scipy",
    "grid",
    "int_grid",
    "lloyd_max",
    "load_table",
    "optimal_scale",
    "quantization_error",
    "quantize",
    "scale_table",
    "simulate",
    "simulate_dot_product",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _SUBPACKAGES:
        return importlib.import_module(f"qerror.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'qerror' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBPACKAGES})
