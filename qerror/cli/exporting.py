"""The commands `qerror export` and `evaluate`: files that runtimes load, and how good those are that others wrote."""

from __future__ import annotations

import math
from typing import Any

import click

from .._check import plain
from ..checkpoints.against import evaluate as evaluate_model
from ..checkpoints.export_folder import ExportedTensor
from ..checkpoints.exporting import export as export_model
from ..checkpoints.pieces import DEFAULT_MEMORY
from ..checkpoints.rows import decibels
from ..checkpoints.tasks import absolute, model_name
from ..files.runtimes import LAYOUTS
from ..files.weight_formats import KEEP
from .fits import show_against
from .fitting import parse_memory
from .group import ManyValues
from .options import examples
from .render import byte_progress, print_json, print_table, say
from .words import FORMATS, RULE_NAMES, globs

# Names in a line; --json has all.
_NAMED = 10
_memory_option = click.option(
    "--memory", metavar="SIZE", callback=parse_memory, help="What the process may use.  [default: 1GB]"
)


@click.command(
    cls=ManyValues,
    epilog=examples(
        "qerror export MODEL_DIR --format int4_g128 -o OUT",
        "qerror export MODEL_DIR --format nvfp4 -o OUT --exclude '*.self_attn.*'",
        "qerror export MODEL_DIR --plan plan.json -o OUT",
        "qerror export model-F16.gguf --format q4_0 -o OUT --layout gguf",
    ),
)
@click.argument("model", metavar="MODEL...", nargs=-1, required=True)
@click.option("--plan", metavar="FILE", help="What `qerror plan` wrote: the format of each tensor.")
@click.option(
    *("--format", "format_"),
    metavar="FORMAT",
    type=FORMATS,
    help="One for all weights: int4_g128, int8:axis=0, nvfp4, ...",
)
@click.option("-o", "--output", metavar="DIR", required=True, help="The folder to write: new, or of the same export.")
@click.option("--layout", type=click.Choice(tuple(LAYOUTS)), default="compressed-tensors", show_default=True)
@click.option(
    "--rule", metavar="RULE", type=RULE_NAMES, default="optimal", show_default=True, help="How scales are chosen."
)
@click.option("--sign", type=click.Choice(("positive", "either")), help="Whether scales of integers may be negative.")
@globs("--include", metavar="GLOB", help="Only tensors whose names match.")
@globs("--exclude", metavar="GLOB", help="No tensors whose names match.")
@globs("--together", metavar="GLOB", help="Weights that are fused.  [default: q/k/v, gate/up]")
@click.option("--weights", metavar="FILE", help="Importance of the columns: NAME or NAME.weights, or an imatrix.")
@_memory_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits instead of a table.")
def export(
    model: tuple[str, ...],
    plan: str | None,
    format_: str | None,
    output: str,
    layout: str,
    together: tuple[str, ...],
    memory: float | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Write MODEL with quantized weights, as files that runtimes load.

    Scales are the best that the layout can hold. Without a plan all weights have one format, but for embeddings, heads,
    routers and norms, which --include can name. Other tensors are copied bit for bit.
    """
    place = model[0] if len(model) == 1 else model
    with byte_progress() as progress:
        done = export_model(
            place,
            output,
            layout=layout,
            plan=plan,
            format=format_,
            together=together or None,
            memory=memory or DEFAULT_MEMORY,
            progress=progress,
            **options,
        )
    made = [each for each in done if not math.isnan(each.mse)]
    rows = [_row(each) for each in made]
    total = _row(_total(made))
    name = model_name(absolute(place))
    if as_json:
        kept = [each.info.name for each in done if math.isnan(each.mse)]
        print_json("export", rows, layout=layout, output=output, total=total, kept=kept)
        return 0
    print_table(f"{plain(name)}, {layout}", [*rows, total], ["tensor", "shape", "grid", "bits", "sqnr_db"])
    size = sum(each.bits * each.info.size for each in done) / 8
    say(f"{len(made)} tensors quantized, {len(done) - len(made)} kept, {size / 1e6:.6g} MB: {plain(output)}")
    # What a file may mostly consist of: embeddings, and experts stacked in one tensor.
    large = [each for each in done if each.format == KEEP and len(each.info.shape) > 1]
    if large:
        kinds = "/".join(dict.fromkeys(each.info.dtype for each in large))
        megabytes = sum(each.bits * each.info.size for each in large) / 8e6
        names = ", ".join(plain(each.info.name) for each in large[:_NAMED])
        more = f" and {len(large) - _NAMED} others" if len(large) > _NAMED else ""
        say(f"of these as they were, {kinds}, {megabytes:.3g} MB in all: {names}{more}")
    return 0


def _row(each: ExportedTensor) -> dict[str, Any]:
    return {
        "tensor": each.info.name,
        "shape": list(each.info.shape),
        "dtype": each.info.dtype,
        "grid": each.format,
        "bits": each.bits,
        "mse": each.mse,
        "sqnr_db": decibels(each.power, each.mse),
    }


def _total(made: list[ExportedTensor]) -> ExportedTensor:
    size = sum(each.info.size for each in made)
    bits, power, mse = (
        math.fsum(getattr(each, name) * each.info.size for each in made) / size for name in ("bits", "power", "mse")
    )
    info = type(made[0].info)("total", (size,), "")
    return ExportedTensor(info, "", bits, power, mse)


@click.command(epilog=examples("qerror evaluate QUANTIZED_DIR --against ORIGINAL_DIR"))
@click.argument("model", metavar="MODEL...", nargs=-1, required=True)
@click.option("--against", metavar="ORIGINAL", required=True, help="The checkpoint that MODEL was made of.")
@globs("--include", metavar="GLOB", help="Only weights whose names match.")
@globs("--exclude", metavar="GLOB", help="No weights whose names match.")
@_memory_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits instead of a table.")
def evaluate(
    model: tuple[str, ...],
    against: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    memory: float | None,
    as_json: bool,
) -> int:
    """How good the scales of the quantized MODEL are, against the weights that it was made of.

    "stored" is the error of the codes in the file, "nearest" that of the same scales with each value rounded to the
    nearest level; both lose so many dB against the best scales of the same format.
    """
    place = model[0] if len(model) == 1 else model
    with byte_progress() as progress:
        done = evaluate_model(
            place, against, include=include, exclude=exclude, memory=memory or DEFAULT_MEMORY, progress=progress
        )
    return show_against(model_name(absolute(place)), model_name(absolute(against)), done, as_json, "evaluate")
