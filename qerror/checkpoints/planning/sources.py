"""Where errors come from: a model, the sketch of one, or the folder of a run of `qerror fit`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..._check import listed, shown
from ...files.checkpoint import Where, open_checkpoint
from ...files.elements import TensorInfo
from ...files.made_files import SKETCH, made_of
from ...files.mapping import Checkpoint
from ...files.model_files import find_files
from ...files.quantized_weights import dequantized
from ...grids.block_formats import BlockFormat, as_format
from ..collecting import joined_tensors
from ..fitting import select_tensors, stored_size
from ..folder import Folder, Task
from ..recipe import split_format
from ..running import check_complete
from ..sketch import load_sketch
from ..tasks import absolute
from ..weights import Weights
from .errors import ErrorFile, Measuring, TensorErrors, cast_error, entry_of, tensor_errors
from .plan import KEEP
from .sketch_errors import FORMATS, sketch_error
from .storage import is_cast

Progress = Callable[[str, int, int], None]
DEFAULT_FORMATS = ("int4_g128", "nvfp4", "mxfp4", "int8:axis=0", "e4m3fn:axis=0", "bf16")


def default_formats(model: Where) -> tuple[str, ...]:
    """The formats to choose from where none are named: of a run of `qerror fit` its own, of a sketch with one scale."""
    if is_run(model):
        recipe = Folder(str(model)).plan()["asked"]["recipe"]
        return tuple(_with_axis(grid, recipe["options"].get("axis")) for grid in recipe["grids"])
    return FORMATS if is_sketch(model) else DEFAULT_FORMATS


def is_sketch(model: Where) -> bool:
    """Whether this is what `qerror scan` wrote."""
    if not find_files(model).single:
        return False
    with open_checkpoint(model) as checkpoint:
        return made_of(checkpoint) == SKETCH


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be measured: formats for all tensors, more of them for some, and which tensors."""

    formats: tuple[str, ...]
    extra: Callable[[str], tuple[str, ...]]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    one_dimensional: bool = False
    weights: str | None = None
    together: tuple[str, ...] = ()

    def of(self, name: str) -> list[str]:
        """The formats to measure on a tensor."""
        return [each for each in dict.fromkeys([*self.formats, *self.extra(name)]) if each != KEEP]

    def select(self, infos: Sequence[TensorInfo]) -> tuple[list[TensorInfo], dict[str, str]]:
        """The tensors to plan, and why others are not."""
        chosen = select_tensors(infos, include=self.include, exclude=self.exclude, one_dimensional=self.one_dimensional)
        reasons = {info.name: reason for info, reason in chosen if reason}
        named = {info.name for info, _ in chosen}
        reasons |= {info.name: "not asked for" for info in infos if info.name not in named}
        return [info for info, reason in chosen if not reason], reasons


@dataclasses.dataclass(frozen=True)
class Measured:
    """Errors of the tensors to plan, and what is known of the others.

    Attributes
    ----------
    model : str or tuple of str
    tensors : list of TensorErrors
    others : dict of str to TensorInfo
        Tensors that are left as they are.
    why : dict of str to str
        The reason, for these and for what is no tensor of real numbers.
    together : tuple of str
        Patterns of tensors that must agree.
    sketch : bool
        Whether the errors are those of a sketch.
    """

    model: str | tuple[str, ...]
    tensors: list[TensorErrors]
    others: dict[str, TensorInfo]
    why: dict[str, str]
    together: tuple[str, ...] = ()
    sketch: bool = False


def measure(model: Where, asked: Asked, kept: ErrorFile, memory: float, progress: Progress | None) -> Measured:
    """The errors of all tensors in all formats, from whatever the model is given as."""
    if is_run(model) and isinstance(model, str | os.PathLike):
        return from_run(Path(model), asked)
    with open_checkpoint(model) as checkpoint:
        if made_of(checkpoint) == SKETCH:
            return from_sketch(str(model), asked)
        return from_model(dequantized(checkpoint), absolute(model), asked, kept, memory, progress)


def is_run(model: Where) -> bool:
    """Whether this is the folder of a run of `qerror fit`; a plan.json of `qerror plan` in a model's makes it none."""
    if not isinstance(model, str | os.PathLike) or not (Path(model) / "plan.json").is_file():
        return False
    return (Path(model) / "parts").is_dir()


def from_model(
    checkpoint: Checkpoint,
    place: str | tuple[str, ...],
    asked: Asked,
    kept: ErrorFile,
    memory: float,
    progress: Progress | None,
) -> Measured:
    """Read the tensors, but for errors that an earlier run has kept."""
    infos = list(checkpoint.tensors)
    chosen, why = asked.select(infos)
    weigh = None if asked.weights is None else Weights(asked.weights)
    names = [info.name for info in chosen]
    if weigh is not None and names and not weigh.names(names):
        raise ValueError(f"weights {shown(asked.weights)} has none for any tensor to plan, such as {shown(names[0])}")
    measuring = Measuring(checkpoint, names, weigh, asked.together, kept, memory)
    total, found = sum(map(stored_size, chosen)), []
    try:
        for info in chosen:
            heard = None if progress is None else (lambda size, name=info.name: progress(name, size, total))
            found.append(measuring.tensor(info.name, asked.of(info.name), heard))
    finally:
        kept.save()
    others = {info.name: info for info in infos if info.name in why}
    return Measured(place, found, others, {**why, **dict(checkpoint.skipped)}, asked.together)


def from_run(path: Path, asked: Asked) -> Measured:
    """The errors that `qerror fit -o RUN` has found; casts are measured on the model.

    Raises
    ------
    ValueError
        If the run lacks a format, or its scales are of other layouts than formats can say.
    """
    folder = Folder(path)
    run = folder.plan()
    recipe = run["asked"]["recipe"]
    _check_layout(path, recipe["options"])
    if asked.weights is not None or asked.together:
        raise ValueError("weights and together must be left out with a run, which has its own; give them to qerror fit")
    axis = recipe["options"].get("axis")
    grids = {_with_axis(grid, axis): grid for grid in recipe["grids"]}
    infos = {name: TensorInfo(name, tuple(shape), dtype) for name, (shape, dtype) in run["tensors"].items()}
    place = run["model"] if isinstance(run["model"], str) else tuple(run["model"])
    chosen, why = asked.select(list(infos.values()))
    names, found = {info.name for info in chosen}, []
    tasks = [Task(**each) for each in run["tasks"]]
    check_complete(folder, tasks)
    with open_checkpoint(place) as opened:
        checkpoint = dequantized(opened)
        for info, part, _ in joined_tensors(folder, tasks, infos):
            if info.name not in names:
                continue
            entries: dict[str, dict[str, Any]] = {}
            for text in asked.of(info.name):
                if is_cast(text):
                    entries[text] = cast_error(checkpoint, info, text)
                elif text not in grids:
                    has = listed(grids)
                    raise ValueError(
                        f"formats must be among those of the run ({has}), got {text}; fit it or give MODEL"
                    )
                elif isinstance(part, str):
                    entries[text] = {"failed": part}
                else:
                    entries[text] = entry_of(text, part.formats[grids[text]], part.moments.kurtosis)
            found.append(tensor_errors(info, entries))
        names = {each.info.name for each in found}
        others = {info.name: info for info in checkpoint.tensors if info.name not in names}
    why |= dict(run["left_out"]) | run["failed"] | run["no_tensors"]
    why = {**dict.fromkeys(others, "not asked for"), **why}
    return Measured(place, found, others, why, tuple(recipe["together"]))


def _check_layout(path: Path, options: dict[str, Any]) -> None:
    usual = {"axis": options.get("axis"), "block_axis": -1, "shift": 0.0}
    other = next((key for key, value in options.items() if usual.get(key) != value), None)
    if other is not None:
        raise ValueError(
            f"{shown(path)} was fitted with {other} {shown(options[other])}, which no name of a format says; plan from "
            "the model, with formats such as int4_g32 or int8:axis=0"
        )


def _with_axis(grid: str, axis: int | None) -> str:
    plain = axis is None or split_format(grid)[1] is not None or isinstance(as_format(grid), BlockFormat)
    return grid if plain else f"{grid}:axis={axis}"


def from_sketch(path: str, asked: Asked) -> Measured:
    """Errors of formats with one scale a tensor: exact, but for float32 bounds."""
    sketch = load_sketch(path)
    if asked.weights is not None or asked.together:
        raise ValueError("weights and together need the model, got a sketch, which does not know where values are")
    chosen, why = asked.select([each.info for each in sketch.values()])
    found = [
        tensor_errors(info, {text: sketch_error(sketch[info.name], text) for text in asked.of(info.name)})
        for info in chosen
    ]
    others = {name: sketch[name].info for name in why}
    return Measured(path, found, others, {**why, **sketch.left_out}, sketch=True)
