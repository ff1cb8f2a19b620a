"""The multiple-choice knapsack: one option of each class, the least cost within a limit on use; proven in integers.

A walk along the hulls finds an assignment, HiGHS (in floating point) a better one where the proof does not close on it.
That the last one is the best is shown here, without trusting any rounding: for every slope p/q >= 0 and every
assignment within the limit

    q * cost >= sum over classes of min (q c + p u) - p * limit + sum of the excesses r = (q c + p u) - min (q c + p u)

(Lagrange). With the slope of the hull at the limit the first two terms are close to the optimum, so that few options of
few classes can be in a better assignment. These are gone through in full.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .exhaustion import Exhaustion
from .hulls import Option, steps, undominated

# Partial assignments that the proof looks at, at most: about a second before HiGHS is asked, some seconds after it.
_FIRST_STATES, _STATES = 200_000, 400_000
# Seconds for HiGHS. What it has found by then is used; a proof does not need it to have finished.
_SECONDS = 3.0


class InfeasibleError(ValueError):
    """No assignment is within the limit; `least` is the least use."""

    def __init__(self, least: int) -> None:
        super().__init__(f"the least use is {least}")
        self.least = least


@dataclasses.dataclass(frozen=True)
class Assignment:
    """One option of each class, what they use and cost together, and a bound on the cost of any within the limit."""

    chosen: tuple[int, ...]
    use: int
    cost: int
    bound: Fraction
    proven: bool


def assign(classes: Sequence[Sequence[Option]], limit: int) -> Assignment:
    """The assignment of least cost whose use is at most the limit.

    Parameters
    ----------
    classes : sequence of sequences of (use, cost)
        Integers of any size.
    limit : int

    Raises
    ------
    InfeasibleError
        If all assignments use more.

    Examples
    --------
    >>> found = assign([[(4, 9), (8, 1)], [(4, 5), (8, 2)]], 12)
    >>> found.chosen, found.cost, found.proven
    ((1, 0), 6, True)
    """
    problem = _Problem(classes, limit)
    if problem.limit < 0:
        raise InfeasibleError(problem.least)
    best, lower = problem.settled(problem.greedy(), _FIRST_STATES)
    if lower is not None:
        best, lower = problem.settled(min(best, problem.by_milp(best), key=problem.cost), _STATES)
    proven = lower is None
    chosen = tuple(names[option] for names, option in zip(problem.names, best, strict=True))
    total = [options[index] for options, index in zip(classes, chosen, strict=True)]
    cost = sum(cost for _, cost in total)
    bound = Fraction(cost) if lower is None else min(Fraction(cost), problem.base + lower)
    return Assignment(chosen, sum(use for use, _ in total), cost, bound, proven)


class _Problem:
    """The classes without dominated options, uses from 0 on in their common unit, costs from 0 on.

    `coin` is the common unit of costs: what is better is better by one coin at least. `excess` of an option is the r of
    this module's first lines, `floor` the first two terms there.
    """

    def __init__(self, classes: Sequence[Sequence[Option]], limit: int) -> None:
        self.names = [undominated(options) for options in classes]
        kept = [[options[i] for i in names] for options, names in zip(classes, self.names, strict=True)]
        self.least = sum(options[0][0] for options in kept)
        self.base = sum(options[-1][1] for options in kept)
        self.unit = math.gcd(*(use - options[0][0] for options in kept for use, _ in options)) or 1
        self.coin = math.gcd(*(cost - options[-1][1] for options in kept for _, cost in options)) or 1
        self.limit = (limit - self.least) // self.unit
        self.classes = [
            [((use - options[0][0]) // self.unit, cost - options[-1][1]) for use, cost in options] for options in kept
        ]
        self.steps = steps(self.classes)
        self.slope = self._slope()
        p, q = self.slope.numerator, self.slope.denominator
        values = [[q * cost + p * use for use, cost in options] for options in self.classes]
        self.floor = sum(map(min, values)) - p * self.limit
        self.excess = [[value - min(own) for value in own] for own in values]

    def _slope(self) -> Fraction:
        """That of the step which no longer fits; 0 where all do."""
        left = self.limit
        for step in self.steps:
            left -= step.use
            if left < 0:
                return step.slope
        return Fraction(0)

    def use(self, chosen: Sequence[int]) -> int:
        return sum(options[i][0] for options, i in zip(self.classes, chosen, strict=True))

    def cost(self, chosen: Sequence[int]) -> int:
        return sum(options[i][1] for options, i in zip(self.classes, chosen, strict=True))

    def room(self, chosen: Sequence[int]) -> int:
        """The excess that a better assignment has at most; negative: there is none."""
        return self.slope.denominator * (self.cost(chosen) - self.coin) - self.floor

    def greedy(self) -> list[int]:
        """Steps along the hulls while they fit, then whatever still does."""
        chosen, left = [0] * len(self.classes), self.limit
        for step in self.steps:
            have, (use, cost) = self.classes[step.group][chosen[step.group]], self.classes[step.group][step.option]
            if use - have[0] <= left and cost < have[1]:
                left -= use - have[0]
                chosen[step.group] = step.option
        return chosen

    def core(self, room: int) -> list[list[int]]:
        """Of each class the options that a better assignment can have."""
        return [[i for i, r in enumerate(own) if r <= room] for own in self.excess]

    def by_milp(self, chosen: list[int]) -> list[int]:
        """What HiGHS finds among the options that can be in a better assignment than the chosen one."""
        core = self.core(self.room(chosen))
        open_ = [group for group, own in enumerate(core) if len(own) > 1]
        if not open_:
            return chosen
        places = [(row, group, i) for row, group in enumerate(open_) for i in core[group]]
        fixed = sum(self.classes[group][own[0]][0] for group, own in enumerate(core) if len(own) == 1)
        # The objective as excesses and what is left of the limit: numbers from 0 to 1, unlike costs.
        room, p = self.room(chosen) or 1, self.slope.numerator
        costs = np.array([*(self.excess[group][i] / room for _, group, i in places), p / room])
        # So are uses: HiGHS stumbles over bits as numbers of 1e10. What it then oversteps the limit by is mended below.
        unit = max(self.classes[group][i][0] for _, group, i in places)
        most = min(max(1, room // p) if p else self.limit, self.limit) / unit
        costs[-1] *= unit
        uses = np.array([*(self.classes[group][i][0] / unit for _, group, i in places), 1.0])
        found = _highs(costs, uses, [row for row, _, _ in places], most, (self.limit - fixed) / unit)
        if found is None:
            return chosen
        taken = [own[0] for own in core]
        for value, (_, group, i) in zip(found, places, strict=True):
            if value > 0.5:
                taken[group] = i
        return self.repaired(taken)

    def repaired(self, chosen: list[int]) -> list[int]:
        """The same within the limit, which HiGHS may pass by its tolerance: what costs least for its use goes back."""
        while (over := self.use(chosen) - self.limit) > 0:
            back = []
            for group, own in enumerate(self.classes):
                use, cost = own[chosen[group]]
                back += [
                    (Fraction(less[1] - cost, min(use - less[0], over)), group, i)
                    for i, less in enumerate(own[: chosen[group]])
                ]
            _, group, i = min(back)
            chosen[group] = i
        return chosen

    def settled(self, best: list[int], states: int) -> tuple[list[int], Fraction | None]:
        """The best assignment of all; where it is not shown that it is, also what any other costs at least."""
        if self.room(best) < 0:
            return best, None
        search = Exhaustion(self, best)
        lower = search.run(states)
        if lower is None:
            return search.best, None
        return search.best, max(Fraction(lower), Fraction(self.floor, self.slope.denominator))


def _highs(
    costs: NDArray[np.float64], uses: NDArray[np.float64], rows: list[int], most: float, left: float
) -> NDArray[np.float64] | None:
    """What HiGHS says of one choice in each row; the last number of costs and uses is of what is left, up to `most`."""
    # Loaded here: it takes longer than most plans.
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    count = len(rows)
    table = coo_array((np.ones(count), (rows, range(count))), (max(rows) + 1, count + 1))
    found = milp(
        costs,
        integrality=np.append(np.ones(count), 0),
        bounds=Bounds(0, np.append(np.ones(count), most)),
        constraints=[LinearConstraint(table.tocsr(), 1, 1), LinearConstraint(uses[None, :], left, left)],
        options={"mip_rel_gap": 0.0, "time_limit": _SECONDS},
    )
    return None if found.x is None else np.asarray(found.x[:-1], np.float64)
