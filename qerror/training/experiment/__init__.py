"""The experiment of notebook 07: which scale rule trains best, on scikit-learn's digits, with error bars.

``python -m qerror.training.experiment`` runs it; it needs scikit-learn beside PyTorch.
"""

from .records import Case, Record
from .study import cases, run_study, step_times
from .summary import against_minmax, final_accuracy, format_table

__all__ = [
    "Case", "Record", "against_minmax", "cases", "final_accuracy", "format_table", "run_study", "step_times",
]  # fmt: skip
