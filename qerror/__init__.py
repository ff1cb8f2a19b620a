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

from ._lazy import attach
from ._version import __version__ as __version__

# The public names stand in `__init__.pyi`, once: type checkers and editors read it, and so does this line.
__getattr__, __dir__, __all__ = attach(__name__, __file__, {"training": "torch"})
