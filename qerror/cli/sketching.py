"""The commands `qerror scan` and `ask`: a checkpoint read once, and answers for any format without it."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from .._check import plain
from ..checkpoints.bins import BITS, Bins
from ..checkpoints.counting import exact_best
from ..checkpoints.engines import some_executor
from ..checkpoints.fitting import QUANTIZED, TensorFit
from ..checkpoints.pieces import BASE_MEMORY
from ..checkpoints.scanning import scan as scan_model
from ..checkpoints.sketch import Sketch, load_sketch
from ..files import Checkpoint, open_checkpoint
from ..files.quantized_weights import as_floats, dequantized
from ..grids.formats import grid as as_grid
from ..rules import RULES
from .fits import say_dequantized, show, show_left_out
from .fitting import parse_memory
from .group import ManyValues
from .options import examples, shift_option
from .render import byte_progress, print_json, say, with_progress
from .words import FORMATS, RULE_NAMES, globs, several


@click.command(
    epilog=examples(
        "qerror scan MODEL_DIR -o model.sketch.safetensors",
        "qerror scan MODEL_DIR -o model.sketch.safetensors --shard 3/8",
        "qerror ask model.sketch.safetensors --grid int4",
    )
)
@click.argument("model", metavar="MODEL...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="SKETCH", required=True, help="The file to write, ending in .safetensors.")
@globs("--include", metavar="GLOB", help="Only tensors whose names match.")
@globs("--exclude", metavar="GLOB", help="No tensors whose names match.")
@click.option(
    "--bits",
    metavar="K",
    type=click.IntRange(14, 20),
    default=BITS,
    show_default=True,
    help="Leading bits that float32 values are counted by.",
)
@click.option("--shard", metavar="i/n", help="Begin with this part of the work; others do the rest.")
@click.option("--engine", metavar="ENGINE", help="dask:ADDRESS runs the work on a Dask cluster.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def scan(model: tuple[str, ...], output: str, engine: str | None, as_json: bool, **asked: Any) -> int:
    """Read MODEL once and write a SKETCH of it that answers for any format.

    Of 16-bit and 8-bit floats it holds how often each value is there, so that answers are exact; of float32 counts and
    sums by the leading bits, so that answers are proven bounds. It is about a ten-thousandth of the model's size.

    What was read is kept in SKETCH.parts: the same command goes on where it was interrupted, and reads again only what
    has changed. Delete the folder to have the space.
    """
    if not output.endswith(".safetensors"):
        raise ValueError(f"-o must end in .safetensors, got {output!r}")
    place = model[0] if len(model) == 1 else model
    with some_executor(engine) as executor, byte_progress() as progress:
        found = scan_model(place, output=output, executor=executor, progress=progress, **asked)
    size, stored = sum(each.info.size for each in found.values()), Path(output).stat().st_size
    if as_json:
        rows = [
            {"tensor": each.info.name, "shape": each.info.shape, "dtype": each.info.dtype} for each in found.values()
        ]
        print_json("scan", rows, values=size, output=output, bytes=stored, left_out=dict(found.left_out))
    else:
        many = "" if len(found) == 1 else "s"
        say(f"{len(found)} tensor{many}, {size} values, in {stored} bytes: {plain(output)}")
        with open_checkpoint(place) as opened:
            say_dequantized(info.dtype for info in dequantized(opened).tensors if info.name in found)
        show_left_out(found.left_out)
    return 1 if QUANTIZED in found.left_out.values() else 0


@click.command(
    cls=ManyValues,
    epilog=examples(
        "qerror ask model.sketch.safetensors --grid int4 --grid e2m1",
        "qerror ask part-1.safetensors part-2.safetensors --grid int8 --rule minmax --rule optimal",
        "qerror ask model.sketch.safetensors --grid int8 --exact MODEL_DIR",
    ),
)
@click.argument("sketch", metavar="SKETCH...", nargs=-1, required=True)
@several("--grid", "--grids", "grids", kind=FORMATS, metavar="GRID", required=True, help="One or more formats.")
@several(
    *("--rule", "--rules", "rules"),
    kind=RULE_NAMES,
    metavar="RULE",
    help=f"One or more of {', '.join(RULES)}.  [default: optimal]",
)
@shift_option
@globs("--include", metavar="GLOB", help="Only tensors whose names match.")
@globs("--exclude", metavar="GLOB", help="No tensors whose names match.")
@click.option("--exact", metavar="MODEL", help="Settle float32 tensors with a look at the few values that decide.")
@click.option(
    "--memory",
    metavar="SIZE",
    default="4GB",
    show_default=True,
    callback=parse_memory,
    help="What --exact may use.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits instead of a table.")
def ask(
    sketch: tuple[str, ...],
    grids: tuple[str, ...],
    rules: tuple[str, ...],
    shift: Any,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    exact: str | None,
    memory: float,
    as_json: bool,
) -> int:
    """Answer from the SKETCH that `qerror scan` made, without the model.

    Each tensor has one scale. Of float32 tensors "lost dB" is how far the scale is from the best at most; the MSE is an
    upper bound. --exact reads those values again that decide between the scales that are left.
    """
    rules = tuple(dict.fromkeys(rules or ("optimal",)))
    if exact is not None and rules != ("optimal",):
        raise ValueError(f"--exact settles rule optimal alone, got {', '.join(rules)}; leave out --rule or --exact")
    first, *others = [load_sketch(path) for path in sketch]
    whole = first.joined(others)
    done = whole.ask(tuple(dict.fromkeys(grids)), rule=rules, shift=shift, include=include, exclude=exclude)
    if exact is not None:
        with open_checkpoint(exact) as opened:
            checkpoint = as_floats(dequantized(opened))
            room = memory - BASE_MEMORY
            done = [
                _settled(fit, whole, checkpoint, shift, room) for fit in with_progress(done, lambda fit: fit.info.size)
            ]
    options = {"shift": shift} if shift else {}
    show(whole.source, list(dict.fromkeys(grids)), done, whole.left_out, as_json, options, command="ask")
    if not as_json and exact is None and any(not whole[fit.info.name].exact for fit in done if fit.mse):
        say("float32: lost dB is a proven bound; --exact MODEL settles it")
    return 1 if any(fit.failed for fit in done) else 0


def _settled(fit: TensorFit, sketch: Sketch, checkpoint: Checkpoint, shift: float, memory: float) -> TensorFit:
    """The exact answer for a float32 tensor, or why there is none."""
    content = sketch[fit.info.name].content
    if not isinstance(content, Bins) or not fit.mse:
        return fit
    info = checkpoint.info(fit.info.name)
    if (info.shape, info.dtype) != (fit.info.shape, fit.info.dtype):
        raise ValueError(f"--exact must name the model that was scanned; {plain(info.name)} is another there")
    try:
        scale, mse, status = exact_best(checkpoint, info, content, as_grid(fit.grid), float(shift), memory=memory)
    except MemoryError as error:
        return TensorFit(fit.info, failed=str(error))
    unusual = {"optimal": {status: 1}} if status.name != "EXACT" else {}
    return dataclasses.replace(fit, scales=(scale,) * 3, mse={"optimal": mse}, optimum=mse, unusual=unusual)
