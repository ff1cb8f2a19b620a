"""Figures: functions from data to matplotlib Axes in one style, and the figures of the notebooks by name."""

from .curves import error_against_clip, mse_landscape, sqnr_against_bits, sqnr_against_clip
from .figures import FIGURES, code_of, draw
from .levels import levels_over_density
from .limits import ladder, rate_distortion
from .style import new_figure, save_figure, style
from .summaries import audit_losses, best_format_against_tail, lost_by_rule, predicted_against_simulated, sqnr_report

__all__ = [
    "FIGURES",
    "audit_losses",
    "best_format_against_tail",
    "code_of",
    "draw",
    "error_against_clip",
    "ladder",
    "levels_over_density",
    "lost_by_rule",
    "mse_landscape",
    "new_figure",
    "predicted_against_simulated",
    "rate_distortion",
    "save_figure",
    "sqnr_against_bits",
    "sqnr_against_clip",
    "sqnr_report",
    "style",
]
