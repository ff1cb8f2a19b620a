"""Lower convex hulls of options (use, cost), and of all assignments together: exact, in integers.

An assignment takes one option of each class; its use and cost are the sums. What is on the hull of all assignments is
the best of its own use: it takes the hulls' steps of all classes, steepest first, up to some point.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from fractions import Fraction

Option = tuple[int, int]
"""What an option uses, and what it costs: both are to be small."""


@dataclasses.dataclass(frozen=True)
class Step:
    """A step along the hull of a class: from one option to the next that uses more and costs less."""

    slope: Fraction
    group: int
    option: int
    use: int
    saved: int


def undominated(options: Sequence[Option]) -> list[int]:
    """The options that no other beats in both, by ascending use; of equal ones the first.

    Examples
    --------
    >>> undominated([(4, 9), (8, 1), (6, 9), (8, 0)])
    [0, 3]
    """
    kept: list[int] = []
    for index in sorted(range(len(options)), key=lambda i: (*options[i], i)):
        if not kept or options[index][1] < options[kept[-1]][1]:
            kept.append(index)
    return kept


def hull(options: Sequence[Option]) -> list[int]:
    """The corners of the lower convex hull, by ascending use.

    Examples
    --------
    >>> hull([(0, 10), (1, 9), (2, 2), (4, 0)])
    [0, 2, 3]
    """
    corners: list[int] = []
    for index in undominated(options):
        while len(corners) > 1 and not _below(*(options[i] for i in (*corners[-2:], index))):
            corners.pop()
        corners.append(index)
    return corners


def _below(left: Option, middle: Option, right: Option) -> bool:
    """Whether the middle lies below the line through the others."""
    return (left[1] - middle[1]) * (right[0] - middle[0]) > (middle[1] - right[1]) * (middle[0] - left[0])


def steps(classes: Sequence[Sequence[Option]]) -> list[Step]:
    """The steps of all classes, those that save most for what they use first."""
    found = []
    for group, options in enumerate(classes):
        corners = hull(options)
        for here, there in itertools.pairwise(corners):
            use, saved = options[there][0] - options[here][0], options[here][1] - options[there][1]
            found.append(Step(Fraction(saved, use), group, there, use, saved))
    return sorted(found, key=lambda step: (-step.slope, step.group))


def front(classes: Sequence[Sequence[Option]]) -> list[Option]:
    """The convex hull of all assignments: (use, cost) from the least use to the least cost.

    Examples
    --------
    >>> front([[(0, 10), (2, 2)], [(0, 5), (1, 4)]])
    [(0, 15), (2, 7), (3, 6)]
    """
    first = [options[hull(options)[0]] for options in classes]
    points = [(sum(use for use, _ in first), sum(cost for _, cost in first))]
    for step in steps(classes):
        use, cost = points[-1]
        points.append((use + step.use, cost - step.saved))
    return points
