"""A derivation as ordered steps, and how it is shown: LaTeX, Markdown, a notebook."""

from __future__ import annotations

import json
from dataclasses import dataclass

import sympy as sp

from .._types import Expr
from .expressions import as_expression
from .typeset import latex


@dataclass(frozen=True)
class Step:
    """One equation of a derivation.

    Attributes
    ----------
    name : str
        What was done: "integral", "closed form", ...
    left, right : Expr
        The two sides.
    note : str
        A sentence, where the step needs one.
    """

    name: str
    left: Expr
    right: Expr
    note: str = ""

    def __post_init__(self) -> None:
        for side in ("left", "right"):
            object.__setattr__(self, side, as_expression(side, getattr(self, side), sp.Basic))

    def latex(self) -> str:
        """The equation in LaTeX."""
        return f"{latex(self.left)} = {latex(self.right)}"


@dataclass(frozen=True)
class Derivation:
    """Ordered steps; every right side comes from SymPy operations on the first.

    Examples
    --------
    >>> from qerror import symbolic
    >>> found = symbolic.derivation("clipping", "laplace:std=1")
    >>> [step.name for step in found.steps]
    ['density', 'integral', 'closed form', 'derivative']
    >>> found["closed form"].right
    exp(-sqrt(2)*C)
    """

    title: str
    steps: tuple[Step, ...]

    def __getitem__(self, name: str) -> Step:
        """The step of that name."""
        for step in self.steps:
            if step.name == name:
                return step
        names = ", ".join(repr(step.name) for step in self.steps)
        raise KeyError(f"no step {name!r}; there are {names}")

    @property
    def result(self) -> Expr:
        """The right side of the last step."""
        return self.steps[-1].right

    def latex(self) -> str:
        """An align* environment with one line a step."""
        lines = [rf"&\text{{{step.name}:}} && {latex(step.left)} = {latex(step.right)}" for step in self.steps]
        return "\\begin{align*}\n" + " \\\\\n".join(lines) + "\n\\end{align*}"

    def markdown(self) -> str:
        """A heading, and a paragraph with a displayed formula for each step."""
        return "\n\n".join([f"## {self.title}", *map(_paragraph, self.steps)]) + "\n"

    def notebook(self) -> str:
        """A Jupyter notebook (nbformat 4) with one cell a step, as JSON text."""
        texts = [f"# {self.title}", *map(_paragraph, self.steps)]
        cells = [
            {"cell_type": "markdown", "id": f"step-{i}", "metadata": {}, "source": text.splitlines(keepends=True)}
            for i, text in enumerate(texts)
        ]
        return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def __str__(self) -> str:
        """Plain text, one step a line."""
        return "\n".join([self.title, *(f"  {step.name}: {step.left} = {step.right}" for step in self.steps)])


def _paragraph(step: Step) -> str:
    head = f"**{step.name}**" + (f" — {step.note}" if step.note else "")
    return f"{head}\n\n$$\n{step.latex()}\n$$"
