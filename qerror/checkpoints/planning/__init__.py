"""Which format each tensor of a checkpoint gets under a budget, with a proof that no other choice is better."""

from .plan import KEEP, Plan, PlannedTensor, Point, read_plan

__all__ = ["KEEP", "Plan", "PlannedTensor", "Point", "read_plan"]
