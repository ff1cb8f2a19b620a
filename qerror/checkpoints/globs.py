"""Patterns of names of tensors: * ** ? [abc] {a,b}, the same wherever tensors are named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from .._check import shown


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns matches the whole name.

    Examples
    --------
    >>> matches("l.0.mlp.up_proj.weight", ["*.{up,down}_proj.weight"]), matches("l.0.bias", ["*.weight"])
    (True, False)
    """
    return any(_compiled(pattern).fullmatch(name) for pattern in patterns)


def grouped_names(names: Sequence[str], patterns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Of each name that a pattern matches all names that it matches alike.

    Examples
    --------
    >>> names = ["l.0.q_proj.w", "l.0.k_proj.w", "l.1.q_proj.w"]
    >>> grouped_names(names, ["*.{q,k,v}_proj.w"])["l.0.q_proj.w"]
    ('l.0.q_proj.w', 'l.0.k_proj.w')

    All experts of a layer, however many: ** stands for anything, and need not be alike.

    >>> names = ["l.0.experts.0.up", "l.0.experts.31.up", "l.1.experts.0.up"]
    >>> grouped_names(names, ["l.*.experts.**"])["l.0.experts.0.up"]
    ('l.0.experts.0.up', 'l.0.experts.31.up')
    """
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    compiled = [(pattern, _compiled(pattern)) for pattern in patterns]
    for name in names:
        for pattern, expression in compiled:
            match = expression.fullmatch(name)
            if match:
                groups.setdefault((pattern, match.groups()), []).append(name)
                break
    return {name: tuple(members) for members in groups.values() for name in members}


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(_expression(pattern), re.DOTALL)
    except re.error as error:
        known = "* ** ? [abc] {a,b}"
        raise ValueError(f"patterns of names must hold {known}, got {shown(pattern)} ({error})") from None


def _expression(pattern: str) -> str:
    """A pattern as a regular expression whose groups are what * and ? stand for."""
    out, at = "", 0
    while at < len(pattern):
        mark = pattern[at]
        closing = {"[": "]", "{": "}"}.get(mark)
        end = pattern.find(closing, at) if closing else -1
        if pattern.startswith("**", at):
            out += ".*"
            at += 1
        elif mark == "*":
            out += "(.*)"
        elif mark == "?":
            out += "(.)"
        elif mark == "[" and end > at + 1:
            inside = pattern[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            out += "[" + ("^" + inside[1:] if inside[0] == "!" else inside) + "]"
            at = end
        elif mark == "{" and end > at:
            out += "(?:" + "|".join(map(re.escape, pattern[at + 1 : end].split(","))) + ")"
            at = end
        else:
            out += re.escape(mark)
        at += 1
    return out
