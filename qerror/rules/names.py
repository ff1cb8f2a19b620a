"""Rules by name, with options as in "percentile:p=99.9"."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from .._check import shown, suggest
from .base import RuleResult
from .block_rules import NAMES, block_rule

Rule = Callable[..., RuleResult]
RuleName = Literal[
    "minmax", "percentile", "analytic", "iterative", "aciq", "octav", "sawb", "shrink_search", "ocp",
    "signed_absmax", "entropy", "clipping_weighted", "optimal", "absmax", "up", "down", "floor", "ceil", "even",
    "rceil", "best_of",
]  # fmt: skip
"""Names of rules without options, as types."""
RULES: dict[str, Rule] = {}
"""Every rule by its name; the package fills it in."""
# What other programs call them.
_MEANT = {
    **dict.fromkeys(("mse", "l2", "best", "exact", "min_mse"), "optimal"),
    **dict.fromkeys(("max", "min_max"), "minmax"),
    **dict.fromkeys(("abs_max", "amax", "maxabs", "max_abs"), "absmax"),
}


def as_rule(rule: str | Rule) -> Rule:
    """The function of a rule: of "name" or "name:key=value,key=value"; a callable is returned as it is.

    Parameters
    ----------
    rule : str or callable
        A callable takes (density, grid, shift=...) and returns a `RuleResult`. Beside the names of `RULES` those of
        block formats, as in "even", "absmax:constant=0.9", "best_of:constants=1,1.5".

    Raises
    ------
    ValueError
        For an unknown rule (near matches are shown) or option.

    Examples
    --------
    >>> import qerror as qe
    >>> float(as_rule("percentile:p=50")(qe.Empirical([1.0, 7.0, 70.0]), "int4").scale)
    1.0
    """
    if callable(rule):
        return _with_arguments(rule)
    if not isinstance(rule, str):
        raise ValueError(f"rule must be a name or a function, got {shown(rule)}; names are {', '.join(RULES)}")
    name, _, said = rule.strip().partition(":")
    key = name.strip().lower().replace("-", "_")
    if key in _MEANT:
        raise ValueError(f"unknown rule {name!r}; did you mean {_MEANT[key]!r}?")
    every = (*RULES, *NAMES)
    if key not in every:
        raise ValueError(f"unknown rule {name!r}{suggest(name, every) or '; known are ' + ', '.join(every)}")
    options = dict(_option(part, rule) for part in _parts(said)) if said.strip() else {}
    if key in NAMES:
        return block_rule(key, options)
    known = list(inspect.signature(RULES[key]).parameters)[3:]
    for option in options:
        if option not in known:
            raise ValueError(f"rule {key} has no option {option!r}; it has {', '.join(known) or 'none'}")
    return partial(RULES[key], **options) if options else RULES[key]


def _with_arguments(rule: Rule) -> Rule:
    """The function, if it can be called as rules are."""
    try:
        signature = inspect.signature(rule)
    except (TypeError, ValueError):
        return rule
    try:
        signature.bind(None, None, shift=0.0)
    except TypeError as error:
        remedy = "it is called as rule(density, grid, shift=...)"
        raise ValueError(f"rule must take a density, a grid and shift, got {shown(rule)}: {error}; {remedy}") from None
    return rule


def rule_label(rule: str | Rule) -> str:
    """How a rule is called in tables: its name with its options, or the name of the function.

    Examples
    --------
    >>> rule_label("percentile:p=99")
    'percentile:p=99'
    """
    return rule.strip() if isinstance(rule, str) else getattr(rule, "__name__", type(rule).__name__)


def _parts(said: str) -> list[str]:
    """The options, cut at commas; what has no key belongs to a list that has one, as in "constants=1,1.5"."""
    parts: list[str] = []
    for part in said.split(","):
        if "=" not in part and parts and parts[-1].partition("=")[0].strip() in ("constant", "constants"):
            parts[-1] += "," + part
        else:
            parts.append(part)
    return parts


def _option(text: str, rule: str) -> tuple[str, Any]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise ValueError(f"options of a rule are written as key=value, separated by commas, got {text!r} in {rule!r}")
    listed = f"[{value}]" if "," in value and not value.startswith("[") else value
    try:
        return key.lower(), json.loads(listed)
    except ValueError:
        return key.lower(), value
