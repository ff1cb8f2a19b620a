"""One look for all figures, and files that are the same bytes on every run."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from matplotlib import rc_context
from matplotlib.figure import Figure

from .._check import as_int, check_choice
from .._files import atomic_open
from .._version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which people with any colour vision can tell apart; yellow is left out, too light for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
GRAY = "#777777"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

# Widths of one and of two columns of a paper, in inches, and a height that leaves room for a legend.
COLUMN, TWO_COLUMNS, HEIGHT = 3.5, 7.2, 2.7

_STYLE: dict[str, Any] = {
    # The first is drawn with (it comes with matplotlib); the others stand in where an SVG is looked at without it.
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.borderaxespad": 0.4,
    "legend.labelspacing": 0.35,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "savefig.dpi": 200,
    # Names of elements inside an SVG come from this text instead of from chance; text is text: found, read, edited.
    "svg.hashsalt": "qerror",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in the library's style: ``with qerror.plotting.style(): ...``.

    Examples
    --------
    >>> import matplotlib
    >>> with style():
    ...     matplotlib.rcParams["axes.grid"]
    True
    """
    # matplotlib types the keys of its settings one by one.
    with rc_context(cast("Any", _STYLE)):
        yield


class ShownFigure(Figure):
    """A figure that notebooks show without a backend for windows."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        with style():
            self.savefig(content, format="png", dpi=110, metadata={"Software": None})
        return content.getvalue()


def new_figure(
    n_columns: int = 1, n_rows: int = 1, *, height: float = HEIGHT, wide: bool = False, **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes: as wide as one column of a paper, or as two where there are several panels.

    Parameters
    ----------
    n_columns, n_rows : int
        Panels beside and above one another.
    height : float
        Of a row, inches.
    wide : bool
        Two columns for one panel.
    **options
        For `Figure.subplots`, such as ``sharey=True``.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : Axes or ndarray of Axes

    Examples
    --------
    >>> figure, axes = new_figure(2)
    >>> axes.shape
    (2,)
    """
    n_columns, n_rows = as_int("n_columns", n_columns, 1, 100), as_int("n_rows", n_rows, 1, 100)
    with style():
        figure = ShownFigure(figsize=(TWO_COLUMNS if wide or n_columns > 1 else COLUMN, height * n_rows))
        return figure, figure.subplots(n_rows, n_columns, **options)


def axes(given: Axes | None) -> Axes:
    """The axes given, or those of a new figure."""
    return new_figure()[1] if given is None else given


def save_figure(figure: Figure, path: str | os.PathLike[str], *, title: str = "") -> None:
    """Write a figure as .svg, .pdf or .png, without dates and other chance.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path-like
        Its ending says how; the file appears only when it is complete.
    title : str
        Kept in the file with the version of qerror.

    Raises
    ------
    ValueError
        For another ending or a folder that does not exist.
    """
    kind = Path(path).suffix.removeprefix(".")
    check_choice("ending of path", kind, ("svg", "pdf", "png"))
    maker = f"qerror {__version__}"
    metadata: dict[str, dict[str, Any]] = {
        "svg": {"Date": None, "Creator": maker, "Title": title},
        "pdf": {"CreationDate": None, "Creator": maker, "Producer": None, "Title": title},
        "png": {"Software": maker, "Title": title},
    }
    with style(), atomic_open(path, "wb") as file:
        # A layout settles with its second drawing: what is written does not depend on drawings before.
        figure.draw_without_rendering()
        figure.savefig(file, format=kind, metadata=metadata[kind])
