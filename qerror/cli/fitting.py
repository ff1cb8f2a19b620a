"""The commands `qerror fit` and `collect`: scales of a whole checkpoint, and what each rule loses on it."""

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

import qerror as qe

from .._check import plain, shown
from ..checkpoints.collecting import collect as collect_parts
from ..checkpoints.engines import dask_executor
from ..checkpoints.fitting import QUANTIZED, TensorFit, fit_tensors, stored_size
from ..checkpoints.pieces import DEFAULT_MEMORY
from ..checkpoints.recipe import Recipe
from ..checkpoints.report import report, row, totals
from ..checkpoints.running import Shard, run
from ..checkpoints.tasks import Job, absolute, model_name, open_work
from ..files.scales import check_apart, check_output, open_scales, read_scales
from ..grids.scale_formats import SCALE_FORMATS, scale_name
from ..rules import RULES
from ..rules.block_rules import NAMES
from .group import OptionalWords
from .options import examples, shift_option
from .render import byte_progress, print_json, print_table, say

_COLUMNS = ("tensor", "shape", "dtype", "kurtosis", "groups", "scales")
# Names in a line; --json has all.
_NAMED = 10
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_OPTIONS = ("axis", "block_size", "block_axis", "shift", "zero_point", "scale_format")


def _parse_memory(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read 500MB, 1.5 GB or a number of bytes."""
    if value is None:
        return None
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([KMGT]?)i?B?\s*", value, re.IGNORECASE)
    try:
        size = float(match[1]) * _UNITS[match[2].upper()] if match else 0.0
    except ValueError:
        size = 0.0
    if not size > 0:
        raise ValueError(f"--memory must be a size such as 500MB or 4GB, got {value!r}")
    return size


@click.command(
    cls=OptionalWords,
    epilog=examples(
        "qerror fit model.safetensors --grid int4 --axis 0",
        "qerror fit model.safetensors --grid int4 --block 32 --rule minmax --rule octav --rule optimal",
        "qerror fit model.safetensors --grid nvfp4 --include '*.weight' -o scales.safetensors",
        "qerror fit MODEL_DIR --grid int4_g128 --rule minmax -o RUN     (again: goes on where it was interrupted)",
        "qerror fit MODEL_DIR --grid int4_g128 -o RUN --shard 3/8       (one of 8 machines; then qerror collect RUN)",
    ),
)
@click.argument("model", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--grid",
    "grids",
    metavar="GRID",
    required=True,
    multiple=True,
    help="A format (int4, e2m1, ...) or block format (mxfp4, nvfp4). Several are fitted in one reading.",
)
@click.option("--axis", metavar="N", type=int, help="The axis that keeps its own scales: 0 for output channels.")
@click.option("--block", "block_size", metavar="N", type=click.IntRange(min=1), help="Elements that share a scale.")
@click.option("--block-axis", metavar="N", type=int, default=-1, show_default=True, help="The axis cut into blocks.")
@click.option(
    "--rule",
    "rules",
    metavar="RULE",
    multiple=True,
    help=f"One or more of {', '.join((*RULES, *NAMES))}, with options as in percentile:p=99.9.  [default: optimal]",
)
@shift_option
@click.option(
    "--zero-point",
    is_flag=False,
    flag_value="integer",
    type=click.Choice(["integer", "storable"]),
    help="Choose an integer zero point with each scale, or one of the codes; 'integer' may be left out.",
)
@click.option(
    "--scale-format",
    metavar="FORMAT",
    callback=lambda ctx, param, value: None if value is None else scale_name(value),
    help=f"What scales are stored as: {', '.join(SCALE_FORMATS)}.",
)
@click.option(
    "--scales", metavar="FILE", type=click.Path(path_type=Path), help="NAME.scale to compare with, as 'given'."
)
@click.option("--include", metavar="GLOB", multiple=True, help="Only tensors whose names match.")
@click.option("--exclude", metavar="GLOB", multiple=True, help="No tensors whose names match.")
@click.option("--include-1d", is_flag=True, help="Also biases, norms and other tensors of one dimension.")
@click.option(
    "--weights", metavar="FILE", help="Importance of the columns: NAME or NAME.weights of each tensor, or an imatrix."
)
@click.option(
    "--together", metavar="GLOB", multiple=True, help="Tensors that share a tensor scale: '*.{q,k,v}_proj.weight'."
)
@click.option(
    "-o", "--output", metavar="PATH", help="Write a .safetensors or .json file, or a folder whose work can be resumed."
)
@click.option("--codes", is_flag=True, help="Write the quantized tensors too, as NAME.codes.")
@click.option("--shard", metavar="i/n", help="Begin with this part of the work; others do the rest. Needs a folder.")
@click.option("--engine", metavar="ENGINE", help="dask:ADDRESS runs the work on a Dask cluster. Needs a folder.")
@click.option(
    "--memory",
    metavar="SIZE",
    callback=_parse_memory,
    help="What a process may use; the results do not depend on it.  [default: 1GB with -o DIR]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits instead of a table.")
def fit(
    model: tuple[str, ...],
    grids: tuple[str, ...],
    rules: tuple[str, ...],
    scales: Path | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    include_1d: bool,
    weights: str | None,
    together: tuple[str, ...],
    output: str | None,
    codes: bool,
    shard: str | None,
    engine: str | None,
    memory: float | None,
    as_json: bool,
    **layout: Any,
) -> int:
    """Fit scales to the tensors of MODEL, however large it is.

    MODEL is a file, several, a folder with an index or shards, a pattern, or a URL. Without --axis and --block a tensor
    has one scale. "lost dB" is what a rule's mean squared error lies above that of the best scales with all else the
    same. -o writes NAME.scale and NAME.shift for every tensor, and NAME.zero_point and NAME.tensor_scale where there
    are such. With a tensor that cannot be fitted (NaN), or that is quantized already, the rest goes on and the exit
    status is 1.
    """
    options = {key: value for key, value in layout.items() if value is not None}
    recipe = Recipe(tuple(dict.fromkeys(grids)), tuple(dict.fromkeys(rules or ("optimal",))), options, codes, together)
    place = absolute(model[0] if len(model) == 1 else model)
    folder = _folder(output, shard, engine)
    room = memory or (math.inf if folder is None else DEFAULT_MEMORY)
    job = Job(place, recipe, include, exclude, include_1d, weights and str(absolute(weights)), room)
    _check(recipe, options, output if folder is None else None, scales, folder)
    if folder is not None:
        with contextlib.ExitStack() as stack:
            executor = stack.enter_context(dask_executor(engine)) if engine else None
            progress = stack.enter_context(byte_progress())
            run(job, folder, shard=Shard.parse(shard), executor=executor, progress=progress)
        if shard is not None:
            click.echo(f"all parts are there; qerror collect {plain(str(folder))} puts them together")
            return 0
        return _collect(folder, as_json)
    given = None if scales is None else read_scales(scales)
    with contextlib.ExitStack() as stack:
        work = open_work(job)
        stack.callback(work.checkpoint.close)
        if output is not None:
            check_apart(Path(output), work.checkpoint.files)
        if given is not None and not any(f"{name}.scale" in given for name in work.names):
            such = shown(work.selected[0][0].name)
            raise ValueError(f"--scales {shown(scales)} has no NAME.scale of any tensor to fit, such as {such}")
        name = model_name(place)
        metadata = {"made_by": f"qerror {qe.__version__}", "source": name, "grid": grids[0], "rule": recipe.rules[0]}
        metadata |= {key: str(value) for key, value in options.items()}
        sink = None if output is None else stack.enter_context(open_scales(output, metadata))
        total = sum(stored_size(info) for info, reason in work.selected if not reason)
        heard = stack.enter_context(byte_progress())
        done = list(
            fit_tensors(
                *(work.checkpoint, work.selected, recipe.grids, recipe.rules),
                given=given,
                weigh=work.weigh,
                sink=sink,
                memory=room,
                codes=codes,
                together=together,
                progress=lambda tensor, size: heard(tensor, size, total),
                **options,
            )
        )
    show(name, recipe.grids, done, work.checkpoint.skipped, as_json, options)
    if output is not None and not as_json:
        click.echo(f"scales of {sum(1 for fit in done if fit.mse)} tensors written to {plain(output)}")
    return _status(done)


@click.command(epilog=examples("qerror collect RUN"))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits instead of a table.")
def collect(folder: Path, as_json: bool) -> int:
    """Put the parts together that `qerror fit -o DIR --shard i/n` made.

    Writes scales-*.safetensors with an index, in a folder of its own for each of several formats, and report.json.
    """
    return _collect(folder, as_json)


def _collect(folder: Path, as_json: bool) -> int:
    done, plan = collect_parts(folder)
    asked = plan["asked"]["recipe"]
    model = plan["model"] if isinstance(plan["model"], str) else tuple(plan["model"])
    show(model_name(model), asked["grids"], done, plan["no_tensors"], as_json, asked["options"])
    if not as_json:
        count = len({fit.info.name for fit in done if fit.mse})
        click.echo(f"scales of {count} tensors written to {plain(str(folder))}")
    return _status(done)


def _status(done: list[TensorFit]) -> int:
    return 1 if any(fit.failed or fit.skipped == QUANTIZED for fit in done) else 0


def _folder(output: str | None, shard: str | None, engine: str | None) -> Path | None:
    """The folder of the run, if it has one: what ends like a file is a file unless it is there as a folder."""
    if output is None or (Path(output).suffix and not output.endswith("/") and not Path(output).is_dir()):
        if shard is not None or engine is not None:
            word = "--shard" if shard is not None else "--engine"
            raise ValueError(f"{word} needs a folder in which the parts are shared: -o DIR/")
        return None
    return Path(output)


def _check(
    recipe: Recipe, options: dict[str, Any], output: str | None, scales: Path | None, folder: Path | None
) -> None:
    """Refuse what no tensor could change, before the first one is read."""
    if output is not None:
        check_output(Path(output))
        if len(recipe.rules) > 1 or len(recipe.grids) > 1 or scales is not None:
            raise ValueError("-o writes the scales of one rule, got several columns; leave out -o or give one --rule")
    elif folder is not None:
        if scales is not None:
            raise ValueError("--scales compares in a table; leave out -o")
    elif recipe.codes:
        raise ValueError("--codes needs a file to write to: -o FILE")
    if "axis" in options and "block_size" in options:
        raise ValueError(f"give --axis or --block, not both; got {options['axis']} and {options['block_size']}")
    recipe.check()


def _said(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not the usual ones, in words."""
    words = {"axis": "axis", "block_size": "blocks of", "zero_point": "zero point", "scale_format": "scales"}
    said = {words[key]: options[key] for key in words if key in options}
    if options.get("shift"):
        said["shift"] = options["shift"]
    return said


def show(
    name: str,
    grids: Sequence[str],
    done: list[TensorFit],
    foreign: Mapping[str, str],
    as_json: bool,
    options: Mapping[str, Any],
    command: str = "fit",
) -> None:
    """Print what was found, as a table or as JSON."""
    if as_json:
        found = report(done, dict(foreign))
        rest = {key: found[key] for key in ("total", "left_out")}
        print_json(command, found["rows"], grid=", ".join(grids), **options, **rest)
        return
    title = ", ".join([plain(name), *grids, *(f"{key} {value}" for key, value in _said(options).items())])
    total = totals(done)
    if total:
        rules = list(dict.fromkeys(rule for fit in done for rule in fit.mse))
        # Of several rules each one's SQNR is the best less what it loses.
        sqnr = "sqnr_db" if len(rules) == 1 else "optimal_sqnr_db"
        several = len(grids) > 1
        columns = ("tensor", "grid", *_COLUMNS[1:]) if several else _COLUMNS
        rows = [row(fit) for fit in [*(fit for fit in done if fit.mse), *total]]
        print_table(title, rows, [*columns, sqnr, *(f"lost {rule}" for rule in rules)])
    _show_unusual(done)
    show_left_out({**{fit.info.name: fit.skipped for fit in done if fit.skipped}, **foreign})
    for fit in done:
        if fit.failed:
            click.echo(f"not fitted: {plain(fit.info.name)}: {fit.failed}", err=True)


def show_left_out(reasons: Mapping[str, str]) -> None:
    """Say which tensors were left out, a line for each reason; of many the first ones."""
    left: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        left.setdefault(reason, []).append(plain(name))
    for reason, names in left.items():
        hint = " (--include-1d fits them)" if reason.endswith("-D") else ""
        said = reason if reason == QUANTIZED else f"left out, {reason}{hint}"
        more = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
        say(f"{said}: {', '.join(names[:_NAMED])}{more}")


def _show_unusual(done: list[TensorFit]) -> None:
    """Say how many groups have no scale of the rule's own."""
    groups = sum(fit.groups for fit in done)
    met = dict.fromkeys((rule, one) for fit in done for rule, counts in fit.unusual.items() for one in counts)
    for rule, status in met:
        counts = [fit.unusual.get(rule, {}).get(status, 0) for fit in done]
        tensors = sum(map(bool, counts))
        where = f"{sum(counts)} of {groups} groups, in {tensors} tensor{'s' if tensors > 1 else ''}"
        say(f"{rule}: {status.name}, {where} ({status})")
