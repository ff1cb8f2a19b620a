"""The command `qerror report`: a checkpoint measured, as one page to look at."""

import itertools
import math
from pathlib import Path

import click

from .._check import plain, shown
from ..checkpoints.planning import DEFAULT_FORMATS
from ..checkpoints.planning.sketch_errors import FORMATS as SKETCH_FORMATS
from ..checkpoints.reporting import report as write_report
from ..files.model_files import find_files
from ..files.scales import check_apart
from .fitting import parse_memory
from .group import ManyValues
from .options import examples
from .render import byte_progress, say
from .words import FORMATS, globs, several


@click.command(
    cls=ManyValues,
    epilog=examples(
        "qerror report MODEL_DIR -o report.html",
        "qerror plan MODEL_DIR --bits 4.5 -o plan.json && qerror report MODEL_DIR --plan plan.json -o report.html",
        "qerror report model.safetensors --formats int4_g32 nvfp4 int8:axis=0 -o report.html",
        "qerror report QUANTIZED_DIR --against MODEL_DIR -o report.html",
    ),
)
@click.argument("model", metavar="MODEL...", nargs=-1, required=True)
@click.option("--plan", "plan_file", metavar="PLAN", help="What `qerror plan -o PLAN` wrote; its formats are shown.")
@several(
    *("--format", "--formats", "formats"),
    kind=FORMATS,
    metavar="FORMAT...",
    help=f"Without a plan.  [default: {' '.join(DEFAULT_FORMATS)}; of a sketch {' '.join(SKETCH_FORMATS)}]",
)
@globs("--include", metavar="GLOB...", help="Without a plan: only tensors whose names match.")
@globs("--exclude", metavar="GLOB...", help="Without a plan: no tensors whose names match.")
@click.option("--against", metavar="ORIGINAL", help="What a quantized MODEL was made of: its scales are marked.")
@click.option("--scales", metavar="FILE", help="NAME.scale of `qerror fit -o`, to be marked as those in use.")
@click.option("-o", "--output", metavar="FILE", required=True, help="The file to write, ending in .html.")
@click.option(
    "--errors",
    metavar="FILE",
    help="Where measured errors are kept.  [default: those of --plan, or beside -o]",
)
@click.option("--memory", metavar="SIZE", callback=parse_memory, help="What the process may use while it measures.")
def report(
    model: tuple[str, ...],
    plan_file: str | None,
    formats: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    against: str | None,
    scales: str | None,
    output: str,
    errors: str | None,
    memory: float | None,
) -> int:
    """Write a page about MODEL that opens in any browser, without network.

    MODEL may be a sketch of `qerror scan`: formats with one scale a tensor then, and no rows.

    The verdict first, in words; bits against error with the best mixes of formats; a map of layers and modules; a table
    of the tensors that sorts and filters; and of each tensor its values over their scales, its error against the clip,
    its worst rows, and with --against or --scales the scales in use. The errors are those of the weights, which are not
    the accuracy of the network.
    """
    if not output.endswith(".html"):
        raise ValueError(f"-o must end in .html, got {shown(output)}")
    place = model[0] if len(model) == 1 else model
    beside = Path(plan_file or output)
    kept = Path(errors) if errors is not None else beside.with_name(f"{beside.stem}.errors.json")
    for each, source in itertools.product((Path(output), kept), (place, against)):
        if source is not None:
            check_apart(each, find_files(source).files)
    with byte_progress() as progress:
        write_report(
            place,
            output,
            plan=plan_file,
            formats=formats or None,
            include=include,
            exclude=exclude,
            against=against,
            scales=scales,
            errors=kept,
            memory=memory or math.inf,
            progress=progress,
        )
    say(f"report written to {plain(output)}")
    return 0
