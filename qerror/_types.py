"""The types that signatures are full of."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]
# SymPy has no type hints: an expression is Any to mypy.
Expr = Any
