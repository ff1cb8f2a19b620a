"""The types that signatures are full of."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]
# A number where everything asked for is one, else an array: an attribute of results has this type.
Values = np.float64 | NDArray[np.float64]
# SymPy has no type hints: an expression is Any to mypy.
Expr = Any
