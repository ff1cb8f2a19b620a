"""Opening a model, and no other thing that this library has made of one."""

from __future__ import annotations

from pathlib import Path

from .._check import shown
from ..files.checkpoint import open_checkpoint
from ..files.made_files import SCALES, SKETCH, made_of
from ..files.mapping import Checkpoint
from .folder import PLAN, Folder


def open_model(model: str | tuple[str, ...]) -> Checkpoint:
    """`open_checkpoint`, but for what this library made of a model: that is no model.

    Raises
    ------
    ValueError
        As `open_checkpoint`; for a folder or file with scales, for a sketch and its parts.
    """
    if isinstance(model, str) and (Path(model) / PLAN).is_file():
        plan = Folder(model).plan()
        source, place = shown(plan["model"], 60), shown(model, 60)
        if "scan" in plan["asked"]:
            raise ValueError(f"{place} holds the parts of a scan, not a model; name the model, {source}")
        raise ValueError(
            f"{place} is what `qerror fit` made of {source}: scales, no weights; `qerror collect` prints its report, "
            "fit and scan take the model"
        )
    checkpoint = open_checkpoint(model)
    made, place = made_of(checkpoint), shown(checkpoint.path, 60)
    if made == SKETCH:
        verb = "holds" if Path(checkpoint.path).is_dir() else "is"
        raise ValueError(f"{place} {verb} a sketch, not a model; `qerror ask SKETCH --grid ...` answers from it")
    if made == SCALES:
        source = shown(checkpoint.metadata.get("source", "a model"), 60)
        raise ValueError(
            f"{place} holds scales that `qerror fit` made of {source}, no weights; "
            "name the model, and --scales FILE compares with them"
        )
    return checkpoint
