"""Which format each tensor of a checkpoint gets under a budget, with a proof that no other choice is better."""

from .plan import KEEP, Plan, PlannedTensor, Point, read_plan
from .sources import DEFAULT_FORMATS
from .verbs import plan

__all__ = ["DEFAULT_FORMATS", "KEEP", "Plan", "PlannedTensor", "Point", "plan", "read_plan"]
