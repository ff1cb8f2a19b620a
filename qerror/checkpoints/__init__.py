"""Work on whole checkpoints, of any size: files, folders and shards, in parts that resume."""

from ..files.checkpoint import open_checkpoint as open
from .against import evaluate
from .collecting import collect
from .export_folder import ExportedTensor
from .exporting import export
from .fitting import TensorFit, checkpoint_total, fit_tensors, select_tensors
from .planning import Plan, plan, read_plan
from .recipe import Recipe
from .reporting import report
from .scanning import scan
from .sketch import Sketch, TensorSketch, load_sketch
from .verbs import fit

__all__ = [
    "ExportedTensor", "Plan", "Recipe", "Sketch", "TensorFit", "TensorSketch", "checkpoint_total", "collect",
    "evaluate", "export", "fit", "fit_tensors", "load_sketch", "open", "plan", "read_plan", "report",
    "scan", "select_tensors",
]  # fmt: skip
