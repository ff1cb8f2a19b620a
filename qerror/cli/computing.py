"""Commands on one density or tensor. Each one reads its options, calls the library and prints what it says."""

from collections.abc import Sequence
from typing import Any

import click

import qerror as qe

from ..files import example_checkpoint
from ..grids.block_formats import as_format
from .options import certify_option, examples, loss_option, shift_option
from .render import print_json, print_legend, print_table, say, with_progress
from .rows import (
    DEMO_FORMATS,
    block_format_row,
    block_format_rows,
    block_row,
    compared_names,
    error_rows,
    format_rows,
    ladder_rows,
    level_rows,
    loss_row,
    ranked,
    scale_row,
    with_limits,
)
from .source import Request, Source, computes, load_source, on_source
from .words import FORMATS, each

# More levels than this are shown by their ends only; --json has them all.
_SHOWN_LEVELS = 256
_SHOWN_END = 16
_DEMO_COLUMNS = ("grid", "bits", "scale", "clip", "clipping", "rounding", "mse", "sqnr_db", "status")
_SCALE_COLUMNS = (*_DEMO_COLUMNS[:-1], "from", "to", "status")


@click.command(
    epilog=examples(
        "qerror scale int4 e2m1",
        "qerror scale int8 --density student-t:df=5 --shift mean",
        "qerror scale int4 int8 --loss 2.4",
        "qerror scale e4m3fn --data model.safetensors --tensor layers.0.weight --json",
    )
)
@click.argument("grids", metavar="GRID...", nargs=-1, required=True, type=FORMATS, callback=each)
@shift_option
@loss_option
@certify_option
@computes
def scale(
    grids: tuple[str, ...],
    shift: Any,
    loss: Any,
    certify: bool | None,
    request: Request,
) -> None:
    """Optimal scale of each GRID, with its error.

    The scale s gives the representable values z + s * levels the least mean squared error. "1% from ... to" are
    the scales around it that cost at most 1% more. Of another loss "MSE lost" is what its best scale costs.
    """
    options = _options(request, shift)
    if loss not in ("squared", 2.0):
        _print_losses(grids, loss, options, certify, request)
        return
    rows = _scale_rows(request.source, grids, options, certify)
    if request.as_json:
        print_json("scale", rows, density=request.source.title, **options)
        return
    print_table(_title(request.source, options), rows, _with_shift(_SCALE_COLUMNS, rows))
    print_legend(rows)


@click.command(
    epilog=examples(
        "qerror error int4 --scale 0.3",
        "qerror error e2m1 --scale 0.4 0.5 0.6 --density laplace --rounding stochastic",
    )
)
@click.argument("grid", type=FORMATS)
@click.argument("more", metavar="", nargs=-1, type=float)
@click.option("--scale", "scales", metavar="S...", type=float, multiple=True, required=True, help="One or more scales.")
@click.option("--shift", metavar="Z", type=float, default=0.0, show_default=True, help="Added to scale * levels.")
@computes
def error(
    grid: str,
    more: tuple[float, ...],
    scales: tuple[float, ...],
    shift: float,
    request: Request,
) -> None:
    """Error of GRID at given scales, and how many dB the best scale would gain."""
    options = _options(request, shift)
    rows = error_rows(request.source.density, grid, [*scales, *more], **options)
    if request.as_json:
        print_json("error", rows, density=request.source.title, **options)
        return
    columns = ("grid", "given", "clip", "clipping", "rounding", "mse", "bias", "sqnr_db", "excess_db")
    print_table(_title(request.source, options), rows, columns)


@click.command(
    epilog=examples(
        "qerror compare --bits 4",
        "qerror compare --bits 8 --density laplace --shift mean",
    )
)
@click.option("--bits", metavar="B", type=click.IntRange(min=1), required=True, help="Width of the formats, 2 to 16.")
@shift_option
@certify_option
@computes
def compare(
    bits: int,
    shift: Any,
    certify: bool | None,
    request: Request,
) -> None:
    """Rank every format of B bits by its error, each at its optimal scale, and block formats of such elements.

    Blocks (of a tensor along its last axis) have the scales of their own rule; what is stored for them counts as bits a
    value. "to Shannon" is what the best of all codes of as many bits would gain, for independent values; "to Lloyd"
    what the best as many levels with one scale would.
    """
    names, blocks = compared_names(bits)
    if not names:
        raise ValueError(f"--bits must be a width that some format has, got {bits}; `qerror formats` lists them")
    options = _options(request, shift)
    rows = _scale_rows(request.source, names, options, certify)
    source = request.source
    # Data are quantized as they are: to nearest, in blocks along the last axis.
    known = shift == 0.0 and request.model == "exact" and (source.tensor is None or request.rounding == "nearest")
    if known and (source.tensor is None or source.tensor.ndim):
        options_of_blocks = {"rounding": request.rounding, "tensor": source.tensor}
        rows += [block_row(source.density, name, **options_of_blocks) for name in with_progress(blocks)]
    rows = ranked(with_limits(rows, request.source.density, with_progress))
    if request.as_json:
        print_json("compare", rows, density=request.source.title, bits=bits, **options)
        return
    bound = tuple(name for name in ("bound_db", "lloyd_db") if any(row[name] is not None for row in rows))
    columns = ("rank", "grid", "bits", "scale", "mse", "sqnr_db", "behind_db", *bound, "status")
    print_table(f"{bits} bits, {_title(request.source, options)}", rows, _with_shift(columns, rows))
    print_legend(rows)


@click.command(
    epilog=examples(
        "qerror ladder int4 mxfp4 nf4_g64_bf16",
        "qerror ladder int8 --scale 0.03 --density laplace",
        "qerror ladder int4 --data model.safetensors --tensor layers.0.weight",
    )
)
@click.argument("grids", metavar="GRID...", nargs=-1, required=True, type=FORMATS, callback=each)
@click.option("--scale", metavar="S", type=float, help="The scale in use; left out, the ladder ends at the best one.")
@on_source
def ladder(grids: tuple[str, ...], scale: float | None, source: Source, as_json: bool) -> None:
    """What each GRID loses, step by step, from Shannon's limit to its scale in use.

    At the same bits a value: the best of all codes (of independent values), the best entropy-coded scalar quantizer,
    the best codebook of as many levels, this format at its best scale, and the scale in use (of block formats their
    rule).
    """
    for name in grids:
        as_format(name)
    data = source.density if source.tensor is None else source.tensor
    rows = [row for name in with_progress(grids) for row in ladder_rows(data, name, scale, 0.0)]
    if as_json:
        print_json("ladder", rows, density=source.title)
        return
    for name in grids:
        of_grid = [row for row in rows if row["grid"] == name]
        first = of_grid[0]
        title = f"{name}, {first['bits']:g} bits a value: {first['total_db']:.3f} dB in all, {source.title}"
        print_table(title, of_grid, ("rung", "mse", "sqnr_db", "step_db", "status"))
    print_legend(rows)


@click.command(
    epilog=examples(
        "qerror formats",
        "qerror formats e2m1",
    )
)
@click.argument("name", required=False, type=FORMATS)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits instead of a table.")
def formats(name: str | None, as_json: bool) -> None:
    """List every named format, or the levels, codes and thresholds of format NAME (of its elements)."""
    if name is None:
        if as_json:
            print_json("formats", format_rows(), block_formats=block_format_rows())
            return
        print_table("named formats", format_rows(), ("grid", "bits", "levels", "kind", "min", "max", "smallest"))
        columns = ("grid", "elements", "block_size", "stored", "rule", "tensor_scale", "bits")
        print_table("block formats, and any GRID_gB or GRID_gB_SCALE", block_format_rows(), columns)
        return
    form = as_format(name)
    grid = form.grid if isinstance(form, qe.BlockFormat) else form
    rows = level_rows(grid)
    if as_json:
        about = {"block_format": block_format_row(form)} if isinstance(form, qe.BlockFormat) else {}
        print_json("formats", rows, name=name, **about)
        return
    if isinstance(form, qe.BlockFormat):
        say(f"{form!r}, {form.bits_per_value():g} bits a value")
    _print_levels(grid, rows)


def _print_levels(grid: qe.Grid, rows: list[dict[str, Any]]) -> None:
    columns = ("code", "pattern", "level", "threshold")
    title = f"{grid.name}: {len(rows)} levels, {grid.bits} bits"
    if len(rows) <= _SHOWN_LEVELS:
        print_table(title, rows, columns)
        return
    print_table(f"{title}, the lowest and highest {_SHOWN_END} (--json: all)", rows[:_SHOWN_END], columns)
    print_table("", rows[-_SHOWN_END:], columns)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits instead of tables.")
def demo(as_json: bool) -> None:
    """Optimal scales of the common formats: for a Gaussian, a Laplace density and a real trained tensor."""
    options = {"shift": 0.0, "model": "exact", "rounding": "nearest"}
    sources = [
        load_source("gaussian", None, None),
        load_source("laplace", None, None),
        load_source(None, example_checkpoint(), "layers.0.weight"),
    ]
    # The proof for bf16 on the tensor alone takes 46 s.
    tables = [(source, _scale_rows(source, DEMO_FORMATS, options, unproven=("bf16",))) for source in sources]
    if as_json:
        rows = [{"density": source.title, **row} for source, rows in tables for row in rows]
        print_json("demo", rows, **options)
        return
    for source, rows in tables:
        print_table(_title(source, options), rows, _DEMO_COLUMNS)
    print_legend([row for _, rows in tables for row in rows])


def _print_losses(
    names: Sequence[str], loss: Any, options: dict[str, Any], certify: bool | None, request: Request
) -> None:
    for option, usual in (("model", "exact"), ("rounding", "nearest")):
        if options[option] != usual:
            raise ValueError(f"--{option} must be {usual} for another loss than squared, got {options[option]}")
    for name in names:
        qe.grid(name)
    density, shift = request.source.density, options["shift"]
    rows = [loss_row(density, name, loss=loss, shift=shift, certify=certify) for name in with_progress(names)]
    if request.as_json:
        print_json("scale", rows, density=request.source.title, loss=loss, **options)
        return
    said = "|e|" if loss in ("absolute", 1.0) else f"|e|^{loss:g}"
    columns = ("grid", "bits", "scale", "clip", "loss", "snr_db", "mse_lost_db", "status")
    print_table(f"loss {said}, {_title(request.source, options)}", rows, _with_shift(columns, rows))
    print_legend(rows)


def _options(request: Request, shift: Any) -> dict[str, Any]:
    return {"shift": shift, "model": request.model, "rounding": request.rounding}


def _scale_rows(
    source: Source,
    names: Sequence[str],
    options: dict[str, Any],
    certify: bool | None = None,
    unproven: Sequence[str] = (),
) -> list[dict[str, Any]]:
    # All names are looked up first: a misspelled one should not cost the search of those before it.
    for name in names:
        as_format(name)
    asked = {name: False if name in unproven else certify for name in names}
    return [scale_row(source.density, name, certify=asked[name], **options) for name in with_progress(names)]


def _title(source: Source, options: dict[str, Any]) -> str:
    """Name the data, and the options that are not the usual ones."""
    usual = {"shift": 0.0, "model": "exact", "rounding": "nearest"}
    return ", ".join([source.title, *(f"{key} {value}" for key, value in options.items() if value != usual[key])])


def _with_shift(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Show the shift beside the scale where there is one, and the constant of a block rule that is not 1."""
    shown = [] if all(row["shift"] == 0 for row in rows) else ["shift"]
    shown += ["constant"] if any(row.get("constant", 1.0) != 1.0 for row in rows) else []
    place = columns.index("scale") + 1
    return (*columns[:place], *shown, *columns[place:])
