"""Tables of optimal scales: computed once, looked up by name, saved for code that does not have `qerror`."""

from .build import scale_table
from .reading import load_table
from .row import ScaleRow
from .table import ScaleTable

__all__ = ["ScaleRow", "ScaleTable", "load_table", "scale_table"]
