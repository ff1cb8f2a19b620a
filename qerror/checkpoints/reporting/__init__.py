"""A report on a checkpoint to look at: one HTML file that needs no network, and no JavaScript for its tables."""

from .verbs import report

__all__ = ["report"]
