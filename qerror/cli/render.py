"""Printing: aligned tables whose every digit is right, JSON with all digits, progress on a terminal."""

import contextlib
import json
import math
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO, TypeVar

import click
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

import qerror as qe

from .._check import plain
from ..checkpoints.rows import finite
from .folding import Cells, fitted

T = TypeVar("T")

# rich squeezes a table into the console's width, and takes a pipe for 80 columns wide: digits would be lost.
_ANY_WIDTH = 10_000

# Title and format of each column. Six digits of a scale and of an error are far above what the library leaves open
# (1e-8 and 1e-12); the ends of the 1% interval are known to less.
_COLUMNS: dict[str, tuple[str, str]] = {
    "rank": ("rank", "d"),
    "grid": ("format", "s"),
    "bits": ("bits", "bits"),
    "bound_db": ("to Shannon", ".3f"),
    "lloyd_db": ("to Lloyd", ".3f"),
    "rung": ("", "s"),
    "step_db": ("lost dB", ".3f"),
    "constant": ("constant", "#.6g"),
    "elements": ("elements", "s"),
    "block_size": ("block", "d"),
    "stored": ("scales", "s"),
    "rule": ("rule", "s"),
    "tensor_scale": ("tensor scale", "s"),
    "levels": ("levels", "d"),
    "kind": ("kind", "s"),
    "min": ("min", ".8g"),
    "max": ("max", ".8g"),
    "smallest": ("least > 0", ".8g"),
    "given": ("scale", "exact"),
    "scale": ("scale", "#.6g"),
    "shift": ("shift", "#.6g"),
    "clip": ("clip", "#.4g"),
    "clipping": ("clipping", "#.4g"),
    "rounding": ("rounding", "#.4g"),
    "mse": ("MSE", "#.6g"),
    "loss": ("mean loss", "#.6g"),
    "snr_db": ("SNR dB", ".3f"),
    "mse_lost_db": ("MSE lost dB", ".4f"),
    "bias": ("bias", "s"),
    "sqnr_db": ("SQNR dB", ".3f"),
    "optimal_sqnr_db": ("best SQNR dB", ".3f"),
    "power_db": ("power / error dB", ".3f"),
    "share": ("% of error", ".1f"),
    "excess_db": ("lost dB", ".4f"),
    "behind_db": ("behind dB", ".3f"),
    "from": ("1% from", "#.4g"),
    "to": ("to", "#.4g"),
    "status": ("status", "s"),
    "item": ("case", "s"),
    "printed": ("printed", "s"),
    "exact": ("exact", ".12g"),
    "relative_error": ("relative error", "+.1e"),
    "lost_db": ("lost dB", "#.3g"),
    "verdict": ("verdict", "s"),
    "density": ("density", "s"),
    "mode": ("rounding", "s"),
    "place": ("scale is", "s"),
    "z_clipping": ("z clipping", "+.2f"),
    "z_rounding": ("z rounding", "+.2f"),
    "z_mse": ("z MSE", "+.2f"),
    "z_bias": ("z bias", "+.2f"),
    "z_cross": ("z cross", "+.2f"),
    "tensor": ("tensor", "s"),
    "shape": ("shape", "s"),
    "dtype": ("dtype", "s"),
    "kurtosis": ("kurtosis", "#.3g"),
    "groups": ("scales", "d"),
    "scales": ("median scale [least, greatest]", "s"),
    "code": ("code", "d"),
    "pattern": ("bits", "s"),
    "level": ("level", "exact"),
    "threshold": ("threshold above", "exact"),
}
_LEFT = frozenset({"grid", "kind", "status", "item", "printed", "verdict", "density", "mode", "place"}) | {
    *("tensor", "shape", "dtype", "scales", "elements", "stored", "rule", "tensor_scale", "rung")
}
# Headings where a terminal has not the room.
_SHORT = {"rank": "#"}
# What a narrow terminal does without, the first of them first: what follows from other columns, then what is for those
# who ask more.
_SPARED = ("clip", "dtype", "kurtosis", "scales", "groups", "shape")
# A column for each of several: "lost minmax" is what minmax loses.
_LOST = "lost "


def print_table(title: str, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print rows as an aligned table: in a pipe in its own width, on a narrower terminal as `fitted` makes it fit."""
    headings = [_heading(column)[0] for column in columns]
    cells = [[_cell(column, row) for column in columns] for row in rows]
    left, width = [column in _LEFT for column in columns], _terminal_width()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, at_left in zip(headings, left, strict=True):
        table.add_column(heading, justify="left" if at_left else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    # Names of tensors come from files: `[red]` and `:heart:` in them are nothing but text.
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=_ANY_WIDTH)
    with console.capture() as printed:
        console.print(table)
    lines = [line.rstrip() for line in printed.get().splitlines()]
    said: list[str] = []
    if width is not None and max(map(cell_len, lines)) > width:
        titles = [_SHORT.get(heading, heading) for heading in headings]
        spared = [columns.index(column) for column in _SPARED if column in columns]
        lines, said = fitted(Cells(titles, cells, left), spared, width)
    say(title)
    click.echo("\n".join(line for line in lines if line))
    for sentence in said:
        say(sentence)
    click.echo()


def say(text: str, indent: str = "  ", *, err: bool = False) -> None:
    """Print lines of words, on a terminal broken between words where it ends."""
    width = _terminal_width(sys.stderr if err else sys.stdout)
    for line in text.split("\n"):
        if width is not None:
            # Names of files and of tensors have hyphens: a terminal's reader copies them.
            line = textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False)
        click.echo(line, err=err)


def _terminal_width(stream: TextIO | None = None) -> int | None:
    """Columns of the terminal that is printed to; None for a pipe or a file."""
    asked = sys.stdout if stream is None else stream
    return max(40, shutil.get_terminal_size().columns) if asked.isatty() else None


def _heading(column: str) -> tuple[str, str]:
    """Title and format of a column."""
    if column.startswith(_LOST):
        return f"{column.removeprefix(_LOST)} lost dB", ".3f"
    return _COLUMNS[column]


# Cells that are no number as it stands in the row.
_CELLS: dict[str, Callable[[dict[str, Any]], str]] = {
    "tensor": lambda row: plain(row["tensor"]),
    "shape": lambda row: "x".join(map(str, row["shape"])) or "scalar",
    "scales": lambda row: _span(row["scales"]),
    "from": lambda row: _number(row["interval_1pct"][0], "#.4g"),
    "to": lambda row: _number(row["interval_1pct"][1], "#.4g"),
    "tensor_scale": lambda row: "yes" if row["tensor_scale"] else "no",
    "stored": lambda row: row["stored"] or "any",
    # Beside block formats grids have none.
    "constant": lambda row: _number(row.get("constant"), _COLUMNS["constant"][1]),
    "status": lambda row: str(row["status"]).lower(),
    # Known to 1e-13 of the signal's size, not of its own.
    "bias": lambda row: _known(row["bias"], 1e-13 * math.sqrt(row["power"])),
    # A minimum is flat: its place is known to about 1e-8 of the scale.
    "shift": lambda row: _known(row["shift"], 1e-8 * row["scale"]),
}


def _cell(column: str, row: dict[str, Any]) -> str:
    if column.startswith(_LOST):
        return _number(row["lost_db"].get(column.removeprefix(_LOST)), ".3f")
    if row.get("tensor") == "median" and column not in row:
        return ""
    if column in _CELLS:
        return _CELLS[column](row)
    return _number(row["scale" if column == "given" else column], _COLUMNS[column][1])


def _number(value: Any, form: str) -> str:
    if value is None:
        return ""
    if value == 0:
        return "0"
    if form == "bits":
        return f"{value:.6g}"
    if form == "exact":
        return repr(value).removesuffix(".0")
    return format(value, form)


def _span(scales: list[float] | None) -> str:
    """Median and ends of some scales; one number where they are all the same."""
    if scales is None:
        return ""
    least, median, most = (format(scale, "#.4g") for scale in scales)
    return median if least == most else f"{median} [{least}, {most}]"


def _known(value: float, doubt: float) -> str:
    """Print the digits of a value that stand above its doubt, at most six; 0 where none does."""
    if abs(value) <= 10 * doubt:
        return "0"
    digits = 6 if doubt == 0 else min(6, math.floor(math.log10(abs(value) / doubt)))
    return format(value, f"#.{digits}g")


def print_legend(rows: Iterable[dict[str, Any]]) -> None:
    """Say once what each status in a table means."""
    for status, message in dict.fromkeys((row["status"], row["message"]) for row in rows):
        say(f"{status.lower()}: {message}")


def print_json(command: str, rows: Sequence[dict[str, Any]], **parameters: Any) -> None:
    """Print rows with all digits, and what they were computed from; inf and nan become null."""
    content = {"command": command, "version": qe.__version__, **parameters, "rows": rows}
    click.echo(json.dumps(finite(content), indent=2, allow_nan=False))


def with_progress(items: Sequence[T], size: Callable[[T], float] = lambda item: 1.0) -> Iterator[T]:
    """Go through items with a progress bar and the time left where a person looks on, and none in a pipe."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Working...", total=sum(map(size, items)))
        for item in items:
            yield item
            progress.advance(task, size(item))


@contextlib.contextmanager
def byte_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar that moves with bytes, names the tensor and the time left; on a terminal only.

    What it gives is called with a tensor's name, the bytes done since, and those in all.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)

        def heard(tensor: str, size: int, total: int) -> None:
            # Names come from files: brackets in them are no markup.
            progress.update(task, description=escape(plain(tensor, 48)), total=total, advance=size)

        yield heard
