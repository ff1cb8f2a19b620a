"""All assignments that could be better than one, gone through class by class: the proof of `knapsack`.

Large classes come first. What is left behind them is small, so that dividing it at will (its hull) says within little
what a beginning can still become: beginnings that cannot become better are dropped, and so are those that use more than
another one and cost no less.
"""

from __future__ import annotations

import bisect
import itertools
import operator
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Protocol

from .hulls import Option, Step, steps

# Use, cost and excess of the beginning of an assignment, and how it came about: (before, option).
_State = tuple[int, int, int, Any]
_USE_AND_COST = operator.itemgetter(0, 1)
# Beginnings are made whole, by greed, after each of so many classes, and then after every so many.
_EACH, _EVERY = 40, 8


class Problem(Protocol):
    """What is read of a knapsack: see `knapsack._Problem`."""

    classes: list[list[Option]]
    excess: list[list[int]]
    limit: int
    slope: Fraction
    coin: int

    def cost(self, chosen: Sequence[int]) -> int:
        """Of an assignment."""

    def room(self, chosen: Sequence[int]) -> int:
        """The excess that a better assignment has at most."""

    def core(self, room: int) -> list[list[int]]:
        """Of each class the options that a better assignment can have."""


class _Rest:
    """Classes that are still to be chosen from, as if their options could be mixed: the least cost within any use."""

    def __init__(self, least: Sequence[Option], some: Sequence[Step]) -> None:
        self.steps = some
        self.uses = list(itertools.accumulate((s.use for s in some), initial=sum(use for use, _ in least)))
        saved = itertools.accumulate((s.saved for s in some), initial=0)
        start = sum(cost for _, cost in least)
        self.costs = [start - each for each in saved]

    def parts(self, left: int) -> tuple[int, int, int]:
        """The least cost within `left`, as whole - part / whole numbers: (cost, part, of)."""
        at = bisect.bisect_right(self.uses, left) - 1
        if at >= len(self.steps):
            return self.costs[-1], 0, 1
        step = self.steps[at]
        return self.costs[at], step.saved * (left - self.uses[at]), step.use

    def floor(self, left: int) -> int:
        """The same rounded down."""
        cost, part, of = self.parts(left)
        return cost - -(-part // of)


class Exhaustion:
    """The search from one assignment on; `best` becomes better with it."""

    def __init__(self, problem: Problem, best: list[int]) -> None:
        self.problem, self.best, self.cost = problem, best, problem.cost(best)
        self.room = problem.room(best)
        self.core = problem.core(self.room)
        self.options = [[own[i] for i in keep] for own, keep in zip(problem.classes, self.core, strict=True)]
        every = steps(self.options)
        span = dict.fromkeys(range(len(self.core)), 0)
        for step in every:
            span[step.group] = max(span[step.group], step.use)
        self.open = sorted((g for g, own in enumerate(self.core) if len(own) > 1), key=lambda g: -span[g])
        self.rank = {group: number for number, group in enumerate(self.open)}
        self.steps = [step for step in every if step.group in self.rank]

    def run(self, most: int) -> int | None:
        """Go through all; None where that is done, else, after `most` of them, a bound on the cost of all others."""
        alone = [(group, own[0]) for group, own in enumerate(self.core) if len(own) == 1]
        use, cost = (sum(self.problem.classes[group][i][k] for group, i in alone) for k in (0, 1))
        states: list[_State] = [(use, cost, sum(self.problem.excess[group][i] for group, i in alone), None)]
        seen, rest = 0, self._rest(0)
        if use + rest.uses[0] > self.problem.limit:
            return None
        for number, group in enumerate(self.open):
            seen += len(states) * len(self.core[group])
            if seen > most:
                return min(cost + rest.floor(self.problem.limit - use) for use, cost, *_ in states)
            rest = self._rest(number + 1)
            states = self._promising(self._extended(states, number, group, rest), rest)
            if not states:
                return None
            if number < _EACH or number % _EVERY == 0:
                self._complete(states, number + 1, rest)
        self._complete(states, len(self.open), rest)
        return None

    def _rest(self, number: int) -> _Rest:
        """The open classes from one on."""
        least = [self.options[group][0] for group in self.open[number:]]
        self.steps = [step for step in self.steps if self.rank[step.group] >= number]
        return _Rest(least, self.steps)

    def _extended(self, states: list[_State], number: int, group: int, rest: _Rest) -> list[_State]:
        """All states with each option of one more class; those that another is as good as are dropped."""
        # What the rest uses at least.
        high, room = self.problem.limit - rest.uses[0], self.room
        new: list[_State] = []
        for option in self.core[group]:
            more, dearer = self.problem.classes[group][option]
            worse = self.problem.excess[group][option]
            most, left = high - more, room - worse
            new += [
                (use + more, cost + dearer, excess + worse, (path, option))
                for use, cost, excess, path in states
                if use <= most and excess <= left
            ]
        new.sort(key=_USE_AND_COST)
        kept: list[_State] = []
        for state in new:
            if not kept or state[1] < kept[-1][1]:
                kept.append(state)
        return kept

    def _promising(self, states: list[_State], rest: _Rest) -> list[_State]:
        """Those that could still become better than the best by one coin."""
        limit, target, kept = self.problem.limit, self.cost - self.problem.coin, []
        for state in states:
            cost, part, of = rest.parts(limit - state[0])
            if (state[1] + cost - target) * of <= part:
                kept.append(state)
        return kept

    def _complete(self, states: list[_State], number: int, rest: _Rest) -> None:
        """Make the most promising state whole: the steps of the rest that fit, steepest first."""
        state = min(states, key=lambda each: each[1] + rest.floor(self.problem.limit - each[0]))
        chosen = [own[0] for own in self.core]
        path = state[3]
        for group in reversed(self.open[:number]):
            path, chosen[group] = path
        left = self.problem.limit - state[0] - rest.uses[0]
        at = dict.fromkeys(self.open[number:], 0)
        for step in rest.steps:
            own = self.options[step.group]
            have, there = own[at[step.group]], own[step.option]
            if there[0] - have[0] <= left and there[1] < have[1]:
                left -= there[0] - have[0]
                at[step.group] = step.option
        for group, option in at.items():
            chosen[group] = self.core[group][option]
        cost = self.problem.cost(chosen)
        if cost < self.cost:
            self.best, self.cost, self.room = chosen, cost, self.problem.room(chosen)
