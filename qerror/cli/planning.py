"""The command `qerror plan`: a format for each tensor of a checkpoint, under a budget."""

import dataclasses
import json
import math
import shlex
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from .._check import listed, plain, shown
from .._files import atomic_open
from ..checkpoints.fitting import QUANTIZED
from ..checkpoints.planning import DEFAULT_FORMATS, KEEP, Plan, PlannedTensor
from ..checkpoints.planning import plan as make_plan
from ..checkpoints.planning.outputs import OUTPUTS, as_csv
from ..checkpoints.planning.sketch_errors import FORMATS as SKETCH_FORMATS
from ..checkpoints.planning.sketch_errors import LEFT_OUT
from ..checkpoints.planning.sources import is_run
from ..checkpoints.recipe import FUSED
from ..checkpoints.rows import finite
from ..files.compressed_tensors import EMBEDDINGS
from ..files.model_files import find_files
from ..files.scales import check_apart
from .fits import say_dequantized, show_left_out
from .fitting import parse_memory
from .group import ManyValues
from .options import examples
from .render import byte_progress, print_table, say
from .words import FORMATS, globs, several

# Room for the name of a tensor in 80 columns.
_NAME = 38


def _exact(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A number as it was written: 4.3 is no sum of powers of two."""
    if value is None:
        return None
    try:
        Fraction(value)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"--bits must be a number, got {value!r}") from None
    return value


@click.command(
    cls=ManyValues,
    epilog=examples(
        "qerror plan MODEL_DIR --bits 4.5 --together -o plan.json",
        "qerror plan MODEL_DIR --formats nvfp4 int8:axis=0 bf16 --size 20GB",
        "qerror plan MODEL_DIR --db 25 --together '*.{q,k,v}_proj.weight' '*.{gate,up}_proj.weight'",
        "qerror plan MODEL_DIR --bits 5 --keep 'lm_head.*=bf16' --exclude '*embed*'",
        "qerror plan MODEL_DIR --bits 5 --sensitivity fisher.csv",
        "qerror plan MODEL_DIR --bits 4.5 --for llm-compressor",
    ),
)
@click.argument("model", metavar="MODEL...", nargs=-1, required=True)
@several(
    *("--format", "--formats", "formats"),
    kind=FORMATS,
    metavar="FORMAT...",
    help=f"What to choose from.  [default: {' '.join(DEFAULT_FORMATS)}; of a sketch {' '.join(SKETCH_FORMATS)}]",
)
@click.option("--bits", metavar="B", callback=_exact, help="Bits per planned value, scales and all.")
@click.option("--size", metavar="SIZE", callback=parse_memory, help="Of all tensors: 20GB.")
@click.option("--db", metavar="DB", type=float, help="The fewest bits with so many dB of power over error.")
@click.option(
    "--sensitivity",
    metavar="WHAT",
    default="1",
    show_default=True,
    help="What an error counts: 1, relative (to the tensor's power), or a JSON or CSV file of traces by name.",
)
@click.option("--weights", metavar="FILE", help="Importance of the columns, as for `qerror fit`: an imatrix, or NAME.")
@globs(
    "--together",
    metavar="[GLOB...]",
    is_flag=False,
    flag_value=FUSED,
    help="Tensors that agree: '*.{q,k,v}_proj.weight', '*.experts.**'; alone: what runtimes fuse.",
)
@globs("--keep", metavar="GLOB=FORMAT...", help="This format here; GLOB alone: left as it is.")
@globs("--include", metavar="GLOB...", help="Plan only tensors whose names match.")
@globs("--exclude", metavar="GLOB...", help="Leave tensors whose names match as they are.")
@click.option("--include-1d", is_flag=True, help="Also biases, norms and other tensors of one dimension.")
@click.option("-o", "--output", metavar="PLAN", help="Write the plan, as .json (which qerror reads again) or .csv.")
@click.option(
    "--errors", metavar="FILE", help="Where measured errors are kept for another budget.  [default: beside -o]"
)
@click.option(
    "--memory",
    metavar="SIZE",
    callback=parse_memory,
    help="What the process may use while it measures.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON instead of a table.")
@click.option("--csv", "with_csv", is_flag=True, help="Print the plan as CSV instead of a table.")
@click.option("--for", "program", type=click.Choice(list(OUTPUTS)), help="Print what another program reads instead.")
def plan(
    model: tuple[str, ...],
    formats: tuple[str, ...],
    size: float | None,
    memory: float | None,
    include_1d: bool,
    output: str | None,
    errors: str | None,
    as_json: bool,
    with_csv: bool,
    program: str | None,
    **options: Any,
) -> int:
    """Choose a format for each tensor of MODEL: the least error within a budget.

    MODEL is a checkpoint, the folder of a run of `qerror fit`, or a sketch. Give one of --bits, --size and --db. Every
    format has its best scales; all that is stored counts. Scales count 32 bits where the format does not say what they
    are stored as, "bf16" and "fp16" are casts without a scale, "keep" leaves a tensor as it is. The plan is proven best
    for the measured errors of the weights, which are not the accuracy of the network.
    """
    place = model[0] if len(model) == 1 else model
    files = None if output is None else _outputs(output, errors, place)
    with byte_progress() as progress:
        found = make_plan(
            place,
            formats or None,
            size=None if size is None else int(size),
            errors=errors if files is None else files,
            memory=memory or math.inf,
            one_dimensional=include_1d,
            progress=progress,
            **options,
        )
    if output is not None:
        _write(found, output)
    if as_json or with_csv or program:
        _print_for(found, as_json, with_csv, program)
    else:
        show(found)
        if output is not None:
            measured = f", measured errors to {plain(str(files))}" if files is not None and files.is_file() else ""
            say(f"plan written to {plain(output)}{measured}")
    return 1 if any(each.why == QUANTIZED for each in found.tensors.values()) else 0


def _outputs(output: str, errors: str | None, place: Any) -> Path:
    """The file of errors; both are to be no file of the model."""
    path = Path(output)
    if path.suffix not in (".json", ".csv"):
        raise ValueError(f"-o must end in .json or .csv, got {shown(output)}")
    kept = Path(errors) if errors is not None else path.with_name(f"{path.stem}.errors.json")
    if kept.resolve() == path.resolve():
        raise ValueError(f"--errors must name another file than -o, got {shown(errors)} twice")
    if not is_run(place):
        for each in (path, kept):
            check_apart(each, find_files(place).files)
    return kept


def _write(found: Plan, output: str) -> None:
    if output.endswith(".json"):
        found.save(output)
        return
    with atomic_open(output, "w") as out:
        out.write(as_csv(found))


def _print_for(found: Plan, as_json: bool, with_csv: bool, program: str | None) -> None:
    if with_csv:
        click.echo(as_csv(found), nl=False)
        return
    content = found.as_json() if as_json or program is None else OUTPUTS[program](found)
    if isinstance(content, list):
        click.echo("\n".join(content))
        return
    click.echo(json.dumps(finite(content), indent=2, allow_nan=False))


def show(found: Plan) -> None:
    """Print a plan as tables in 80 columns."""
    title = f"{plain(_model(found), 40)}, {_budget(found)}"
    planned = {name: each for name, each in found.tensors.items() if not each.why}
    rows = [_row(name, each, found.total.error) for name, each in planned.items()]
    print_table(title, rows, ["tensor", "grid", "bits", "sqnr_db", "share"])
    points = [*found.uniform, dataclasses.replace(found.total, name="this plan")]
    said = [{"grid": each.name, "bits": round(each.bits_per_value, 4), "power_db": each.db} for each in points]
    said.sort(key=lambda row: (row["bits"], row["grid"]))
    print_table("all tensors in one format, and this plan", said, ["grid", "bits", "power_db"])
    say(_verdict(found))
    if found.options.get("source") == "sketch":
        say(LEFT_OUT)
    say_dequantized(each.dtype for each in planned.values())
    tables = [plain(name) for name, each in planned.items() if each.format != KEEP and _is_table(name)]
    if tables:
        flag = ",".join(tables)
        say(f"runtimes load embeddings as floats alone, llama.cpp apart; to leave them: --exclude {shlex.quote(flag)}")
    show_left_out({name: each.why for name, each in found.tensors.items() if each.why})


def _is_table(name: str) -> bool:
    return name.removesuffix(".weight").rpartition(".")[2] in EMBEDDINGS


def _model(found: Plan) -> str:
    return found.model if isinstance(found.model, str) else listed(found.model)


def _budget(found: Plan) -> str:
    kind, value = found.budget["kind"], found.budget["value"]
    if kind == "size":
        return f"at most {value:g} bytes" if value < 1e6 else f"at most {value / 1e6:.10g} MB"
    return f"at most {value:g} bits per value" if kind == "bits" else f"at least {value:g} dB"


def _row(name: str, each: PlannedTensor, total: float) -> dict[str, Any]:
    share = 100 * each.error / total if total else 0.0
    bits = round(each.bits_per_value, 4)
    return {"tensor": plain(name, _NAME), "grid": each.format, "bits": bits, "sqnr_db": each.sqnr_db, "share": share}


def _verdict(found: Plan) -> str:
    values = sum(each.size for each in found.tensors.values() if not each.why)
    lines = [
        f"{found.total.bits_per_value:.6g} bits per value over {values} values, {found.total.db:.3f} dB; "
        f"all tensors {found.size} bytes",
        _proof(found),
        "weight error is not accuracy: measure the network, too",
    ]
    kept = sum(each.format == KEEP and not each.why for each in found.tensors.values())
    return "\n".join([*lines, *([f"{kept} tensors keep their type as asked"] if kept else [])])


def _proof(found: Plan) -> str:
    what = "fewer bits" if found.budget["kind"] == "db" else "a smaller error"
    if found.proven:
        return f"proven optimal (gap 0): no choice of these formats within the budget has {what}"
    why = " (of float32 a sketch has bounds)" if found.options.get("source") == "sketch" else ""
    return f"not proven{why}: another choice may have {what}, by {100 * found.gap:.2g} % at most (gap {found.gap:.2g})"
