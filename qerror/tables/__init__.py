"""Tables of optimal scales: computed once, looked up by name, saved for code that does not have `qerror`."""

from .build import scale_table
from .files import load_table
from .table import ScaleRow, ScaleTable

__all__ = ["ScaleRow", "ScaleTable", "load_table", "scale_table"]
