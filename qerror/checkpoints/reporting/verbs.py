"""`report`: a checkpoint measured in several formats, as one HTML file."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from ..._check import plain, shown
from ..._files import atomic_open
from ...files.checkpoint import Where, open_checkpoint
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
    names = tuple(dict.fromkeys(told.formats if told else formats or default_formats(model)))
    asked = _asked(told, names, include, exclude)
    # Tensors are gone through twice: for errors, and for what is drawn.
    heard = None if progress is None else (lambda name, size, total: progress(name, size, 2 * total))
    measured = measure(model, asked, ErrorFile(errors), memory, heard)
    _check(told, measured)
    profiles = _profiles(model, measured, told, names, progress)
    front, uniform = (told.front, told.uniform) if told else _points(measured, names)
    title = plain(model_name(absolute(model)), 60)
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


def _profiles(
    model: Where, measured: Measured, told: Plan | None, names: tuple[str, ...], progress: Progress | None
) -> dict[str, Profile]:
    """Each tensor in the format that it is to have, or in the first that has scales."""
    if measured.sketch:
        return _of_sketch(load_sketch(str(model)), measured, told, names)
    found: dict[str, Profile] = {}
    total = 2 * sum(stored_size(each.info) for each in measured.tensors)
    with open_checkpoint(model) as checkpoint:
        recipe = Recipe(("nvfp4",), together=measured.together)
        largest = Largest(checkpoint, [each.info.name for each in measured.tensors], recipe)
        for each in measured.tensors:
            if progress is not None:
                progress(each.info.name, stored_size(each.info), total)
            form = _drawn(each, told, names)
            if form is None:
                continue
            try:
                found[each.info.name] = profile(checkpoint, each.info, form, largest)
            except ReadError:
                raise
            except ValueError:
                # Rows that were not measured either; the table says why.
                continue
    return found


def _of_sketch(sketch: Sketch, measured: Measured, told: Plan | None, names: tuple[str, ...]) -> dict[str, Profile]:
    drawn = {each.info.name: (each, _drawn(each, told, names)) for each in measured.tensors}
    return {
        name: sketch_profile(sketch[name], form, each.formats[form])
        for name, (each, form) in drawn.items()
        if form is not None
    }


def _drawn(each: TensorErrors, told: Plan | None, names: tuple[str, ...]) -> str | None:
    planned = told.tensors[each.info.name].format if told else None
    wanted = [planned, *names] if planned is not None else names
    return next((form for form in wanted if form in each.formats and form != KEEP and not is_cast(form)), None)


def _points(measured: Measured, names: tuple[str, ...]) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    found, _ = choices(measured.tensors, names, (), measured.together, factors_of(measured.tensors, 1))
    sizes = {each.info.name: each.info.size for each in measured.tensors}
    ledger = Ledger.of(found, sum(sizes[name] for each in found for name in each.names))
    return ledger.front(), uniform_points(ledger, found, names)
