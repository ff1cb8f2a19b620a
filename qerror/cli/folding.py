"""Tables that fit a terminal: headings in several lines, columns said once or spared, at last rows in several lines."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

# What follows on a second line stands behind a margin.
_MARGIN = 2


@dataclass(frozen=True)
class Cells:
    """Headings, the text of each cell, and which columns are aligned at the left."""

    headings: list[str]
    rows: list[list[str]]
    left: list[bool]

    def only(self, columns: Sequence[int]) -> Cells:
        """Some of the columns."""
        rows = [[row[column] for column in columns] for row in self.rows]
        return Cells([self.headings[i] for i in columns], rows, [self.left[i] for i in columns])

    def column(self, number: int) -> list[str]:
        """The cells below a heading."""
        return [row[number] for row in self.rows]


def fitted(cells: Cells, spared: Sequence[int], width: int) -> tuple[list[str], list[str]]:
    """Lines of a table within a width, and sentences about the columns that it does without.

    One after the other, as far as there is no room: headings take several lines; a column whose cells are all alike is
    said once, words before numbers; `spared` columns are left out, in their order; rows take several lines, so that
    what is left is whole.
    """
    kept, alike, missing = list(range(len(cells.headings))), [], []
    order = [*_alike(cells), *spared]
    while order and _needed(cells.only(kept)) > width:
        column = order.pop(0)
        if column not in kept:
            continue
        kept.remove(column)
        heading, value = cells.headings[column], cells.rows[0][column]
        if len(set(cells.column(column))) > 1:
            missing.append(heading)
        elif value:
            alike.append(f"{heading} {value}")
    said = [f"in all rows: {', '.join(alike)}"] if alike else []
    said += [f"no room for: {', '.join(missing)}; a wider terminal and --json have it"] if missing else []
    return _folded(cells.only(kept), width), said


def _alike(cells: Cells) -> list[int]:
    """Columns but the first whose cells are all the same, from the right; numbers only where there are several."""
    found = [i for i in range(len(cells.headings) - 1, 0, -1) if len(set(cells.column(i))) == 1]
    numbers = [i for i in found if not cells.left[i] and len(cells.rows) > 1]
    return [*(i for i in found if cells.left[i]), *numbers]


def _needed(cells: Cells) -> int:
    """Columns of a terminal that one line a row takes."""
    _, widths = _measured(cells)
    return sum(widths) + len(widths) - 1


def _measured(cells: Cells) -> tuple[list[list[str]], list[int]]:
    """Headings in lines, and how wide each column is."""
    values = [max([0, *map(cell_len, cells.column(i))]) for i in range(len(cells.headings))]
    broken = [_broken(*pair) for pair in zip(cells.headings, values, strict=True)]
    return broken, [max([wide, *map(cell_len, lines)]) for wide, lines in zip(values, broken, strict=True)]


def _folded(cells: Cells, width: int) -> list[str]:
    """Lines of a table whose rows are folded to a width; what is wider alone loses its middle."""
    rows = [[_shortened(cell, width - _MARGIN) for cell in row] for row in cells.rows]
    broken, widths = _measured(Cells(cells.headings, rows, cells.left))
    folds, room = [[]], width  # type: list[list[int]], int
    for column, wide in enumerate(widths):
        if folds[-1] and wide > room:
            folds, room = [*folds, []], width - _MARGIN
        folds[-1].append(column)
        room -= wide + 1

    def line(row: Sequence[str], number: int) -> str:
        parts = (_padded(row[column], widths[column], cells.left[column]) for column in folds[number])
        return (" " * (_MARGIN if number else 0) + " ".join(parts)).rstrip()

    head = []
    for number, fold in enumerate(folds):
        depth = max(len(broken[column]) for column in fold)
        tall = [[""] * (depth - len(words)) + words for words in broken]
        head += [line([words[i] for words in tall], number) for i in range(depth)]
    body = [line(row, number) for row in rows for number in range(len(folds))]
    return [*head, "─" * max(map(cell_len, (*head, *body))), *body]


def _broken(heading: str, width: int) -> list[str]:
    """A heading in lines no wider than the column, as far as its words let it."""
    return textwrap.wrap(heading, max([width, *map(len, heading.split())]) or 1)


def _padded(cell: str, width: int, left: bool) -> str:
    space = " " * (width - cell_len(cell))
    return cell + space if left else space + cell


def _shortened(cell: str, width: int) -> str:
    """Names of tensors differ at both ends."""
    half = (width - 1) // 2
    return cell if cell_len(cell) <= width else f"{cell[:half]}…{cell[-half:]}"
