"""`report`: a checkpoint measured in several formats, as one HTML file."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..._check import plain, shown
from ..._files import atomic_open
from ...files.checkpoint import Where, open_checkpoint
from ...files.mapping import Checkpoint
from ...files.quantized_weight import QuantizedWeight
from ...files.quantized_weights import dequantized, quantized_weights
from ...files.scales import read_scales
from ...files.sources import ReadError
from ..fitting import Largest, stored_size
from ..planning.budgets import Ledger
from ..planning.choices import Keep, choices, factors_of, kept_format
from ..planning.errors import ErrorFile, TensorErrors
from ..planning.plan import KEEP, Plan, Point, read_plan
from ..planning.sketch_errors import LEFT_OUT
from ..planning.sources import Asked, Measured, Progress, default_formats, is_run, measure
from ..planning.storage import is_cast
from ..planning.verbs import uniform_points
from ..recipe import Recipe
from ..sketch import Sketch, load_sketch
from ..tasks import absolute, model_name
from .content import Content
from .page import page
from .present import Finder, check_scales, of_quantized, of_scales
from .profiles import Profile, profile
from .sketch_profiles import sketch_profile


def report(
    model: Where,
    output: str | os.PathLike[str],
    *,
    plan: Plan | str | os.PathLike[str] | None = None,
    formats: Sequence[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    against: Where | None = None,
    scales: str | os.PathLike[str] | None = None,
    errors: str | os.PathLike[str] | None = None,
    memory: float = math.inf,
    progress: Progress | None = None,
) -> None:
    """Write a report on a checkpoint: one HTML file without network, readable without JavaScript.

    It has the verdict in words, bits against error with the front of all mixes, a map of layers and modules, a table of
    the tensors, and of each its values over their scales, its error against the clip, and its worst rows.

    Parameters
    ----------
    model : path-like or sequence
        As in `qerror.files.open_checkpoint`, or a sketch of `qerror.checkpoints.scan`: formats with one scale a tensor,
        no rows.
    output : path-like
        The file, ending in .html.
    plan : Plan or path-like, optional
        The plan to show; its formats, tensors and importance count.
    formats : sequence of str, optional
        Without a plan: as in `qerror.checkpoints.plan`.
    include, exclude
        Without a plan: which tensors, as in `qerror.checkpoints.select_tensors`.
    against : path-like or sequence, optional
        What a quantized `model` was made of: the report is on these values, and marks the scales that `model` has.
        Its formats come first where none are given.
    scales : path-like, optional
        NAME.scale of `qerror fit -o`, to be marked as those in use.
    errors : path-like, optional
        The file in which a plan keeps measured errors.
    memory : float
        Bytes that may be used while measuring.
    progress : callable, optional
        Called as progress(tensor, bytes done since, bytes in all).

    Raises
    ------
    ValueError
        If the plan is of other tensors.

    Examples
    --------
    >>> import tempfile, qerror as qe
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report(qe.files.example_checkpoint(), folder + "/r.html", formats=["int4_g32"], include=["*.weight"])
    ...     print(Path(folder, "r.html").read_text()[:15])
    <!DOCTYPE html>
    """
    if not str(output).endswith(".html"):
        raise ValueError(f"output must end in .html, got {os.fspath(output)!r}")
    if not Path(output).absolute().parent.is_dir():
        raise ValueError(f"the folder of {shown(os.fspath(output))} does not exist; make it first")
    if is_run(model):
        raise ValueError(f"model must be a checkpoint, got the run {shown(model)}; its values are drawn, too")
    told = plan if plan is None or isinstance(plan, Plan) else read_plan(plan)
    if told is not None and (formats is not None or include or exclude):
        raise ValueError("formats, include and exclude must be left out with a plan, which has its own")
    if against is not None and scales is not None:
        raise ValueError("scales must be left out with against, whose model has its own")
    title = plain(model_name(absolute(model)), 60)
    with contextlib.ExitStack() as stack:
        quantized: Mapping[str, QuantizedWeight] = {}
        if against is not None:
            quantized = _quantized(stack.enter_context(open_checkpoint(model)))
            title += f", made of {plain(model_name(absolute(against)), 60)}"
        values = model if against is None else against
        own = [each.format for each in quantized.values() if each.format is not None]
        names = tuple(dict.fromkeys(told.formats if told else formats or (*own, *default_formats(values))))
        asked = _asked(told, names, include, exclude)
        # Tensors are gone through twice: for errors, and for what is drawn.
        heard = None if progress is None else (lambda name, size, total: progress(name, size, 2 * total))
        measured = measure(values, asked, ErrorFile(errors), memory, heard)
        _check(told, measured)
        present = of_quantized(quantized) if quantized else None
        if scales is not None and measured.sketch:
            raise ValueError("scales need the model, got a sketch, which does not know where values are")
        if scales is not None:
            given = read_scales(scales)
            check_scales(given, names, [each.info for each in measured.tensors])
            present = of_scales(given, names)
        drawn = {each.info.name: _drawn(each, told, names, quantized) for each in measured.tensors}
        profiles = _profiles(values, measured, drawn, present, progress)
    front, uniform = (told.front, told.uniform) if told else _points(measured, names)
    columns = tuple(name for name in names if name != KEEP)
    text = page(
        Content(
            title,
            columns,
            measured.tensors,
            profiles,
            told,
            front,
            uniform,
            measured.why,
            LEFT_OUT if measured.sketch else "",
        )
    )
    with atomic_open(Path(output), "w") as out:
        out.write(text)


def _asked(told: Plan | None, names: tuple[str, ...], include: Sequence[str], exclude: Sequence[str]) -> Asked:
    """The same errors as the plan asked for, so that what it kept of them is found."""
    if told is None:
        return Asked(names, lambda name: (), tuple(include), tuple(exclude))
    options = told.options
    keep = [Keep.parse(text) for text in options.get("keep", ())]
    planned = tuple(name for name, each in told.tensors.items() if not each.why)
    one_dimensional = any(len(told.tensors[name].shape) < 2 for name in planned)

    def extra(name: str) -> tuple[str, ...]:
        found = {kept_format(name, keep), told.tensors[name].format if name in told.tensors else None}
        return tuple(sorted(form for form in found if form))

    which, without, together = (tuple(options.get(key, ())) for key in ("include", "exclude", "together"))
    return Asked(names, extra, which, without, one_dimensional, options.get("weights"), together)


def _check(told: Plan | None, measured: Measured) -> None:
    if told is None:
        return
    missing = next((each.info.name for each in measured.tensors if each.info.name not in told.tensors), None)
    if missing is not None:
        raise ValueError(f"plan must be of this model, and lacks its tensor {plain(missing, 60)}; make it again")


def _quantized(checkpoint: Checkpoint) -> Mapping[str, QuantizedWeight]:
    found = quantized_weights(checkpoint)
    if not found:
        raise ValueError(f"{shown(checkpoint.path)} has no quantized weights to hold against others; leave out against")
    return found


def _profiles(
    model: Where,
    measured: Measured,
    drawn: Mapping[str, str | None],
    present: Finder | None,
    progress: Progress | None,
) -> dict[str, Profile]:
    """Each tensor in one format."""
    if measured.sketch:
        return _of_sketch(load_sketch(str(model)), measured, drawn)
    found: dict[str, Profile] = {}
    total = 2 * sum(stored_size(each.info) for each in measured.tensors)
    with open_checkpoint(model) as opened:
        checkpoint = dequantized(opened)
        recipe = Recipe(("nvfp4",), together=measured.together)
        largest = Largest(checkpoint, [each.info.name for each in measured.tensors], recipe)
        for each in measured.tensors:
            if progress is not None:
                progress(each.info.name, stored_size(each.info), total)
            form = drawn[each.info.name]
            if form is None:
                continue
            try:
                found[each.info.name] = profile(checkpoint, each.info, form, largest, present)
            except ReadError:
                raise
            except ValueError:
                # Rows that were not measured either; the table says why.
                continue
    return found


def _of_sketch(sketch: Sketch, measured: Measured, drawn: Mapping[str, str | None]) -> dict[str, Profile]:
    formats = {each.info.name: each.formats for each in measured.tensors}
    return {
        name: sketch_profile(sketch[name], form, formats[name][form])
        for name, form in drawn.items()
        if form is not None
    }


def _drawn(
    each: TensorErrors, told: Plan | None, names: tuple[str, ...], quantized: Mapping[str, QuantizedWeight]
) -> str | None:
    """The format that a tensor has, that it is to have, or the first that has scales."""
    name = each.info.name
    now = quantized[name].format if name in quantized else None
    planned = told.tensors[name].format if told else None
    wanted = [form for form in (now, planned, *names) if form is not None and form in each.formats]
    return next((form for form in wanted if form != KEEP and not is_cast(form)), None)


def _points(measured: Measured, names: tuple[str, ...]) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    found, _ = choices(measured.tensors, names, (), measured.together, factors_of(measured.tensors, 1))
    sizes = {each.info.name: each.info.size for each in measured.tensors}
    ledger = Ledger.of(found, sum(sizes[name] for each in found for name in each.names))
    return ledger.front(), uniform_points(ledger, found, names)
