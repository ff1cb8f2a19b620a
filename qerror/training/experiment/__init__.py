"""The experiment of notebook 07: which scale rule trains best, on scikit-learn's digits, with error bars.

``python -m qerror.training.experiment`` runs it; it needs scikit-learn beside PyTorch.
"""

from .records import Case, Record
from .study import cases, run_study, settings, step_times, tensor_times
from .summary import MEASURES, against_minmax, final_accuracy, format_table, judged, mean_and_error

__all__ = [
    "MEASURES", "Case", "Record", "against_minmax", "cases", "final_accuracy", "format_table", "judged",
    "mean_and_error", "run_study", "settings", "step_times", "tensor_times",
]  # fmt: skip
