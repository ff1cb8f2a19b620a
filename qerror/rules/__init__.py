"""The recipes in use for choosing a scale, one function each.

Each is a function `rule(density, grid, *, shift, **options)` that reads a `Density` and nothing else: on an `Empirical`
it is the algorithm on data, on a density by formula its limit for infinitely many data. They return a `RuleResult`
whose arrays have the broadcast shape of density and shift.
"""

from .base import RuleResult
from .block_rules import BlockRule
from .extremes import minmax, ocp, percentile, shrink_search, signed_absmax
from .histogram_rules import clipping_weighted, entropy
from .iterative import iterative
from .moments import aciq, analytic, octav, sawb
from .names import RULES, Rule, RuleName, as_rule, rule_label
from .optimum import optimal

__all__ = [
    "RULES", "BlockRule", "Rule", "RuleName", "RuleResult", "aciq", "analytic", "as_rule", "clipping_weighted",
    "entropy", "iterative", "minmax", "ocp", "octav", "optimal", "percentile", "rule_label", "sawb", "shrink_search",
    "signed_absmax",
]  # fmt: skip

for _rule in (
    *(minmax, percentile, analytic, iterative, aciq, octav, sawb, shrink_search, ocp),
    *(signed_absmax, entropy, clipping_weighted, optimal),
):
    RULES[_rule.__name__] = _rule
