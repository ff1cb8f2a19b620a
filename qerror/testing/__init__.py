"""A kit to test quantizers: strategies for Hypothesis, and a check of anyone's kernel against the theory.

Hypothesis (the extra ``test``) is needed by the strategies alone, and imported when one of them is called.
"""

from .quantizers import check_quantizer
from .strategies import densities, grids, scales, tensors

__all__ = ["check_quantizer", "densities", "grids", "scales", "tensors"]
