"""The command `qerror fit`: scales of a whole checkpoint, and what each rule loses on it."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import qerror as qe

from .._check import plain, shown
from ..checkpoints.fitting import TensorFit, checkpoint_total, fit_tensors, select_tensors
from ..files import open_checkpoint
from ..files.scales import check_output, open_scales, read_scales
from ..grids.scale_formats import SCALE_FORMATS, scale_name
from ..rules import RULES
from ..rules.block_rules import NAMES
from .group import OptionalWords
from .options import examples, shift_option
from .render import print_json, print_table, with_progress

_COLUMNS = ("tensor", "shape", "dtype", "kurtosis", "groups", "scales")


@click.command(
    cls=OptionalWords,
    epilog=examples(
        "qerror fit model.safetensors --grid int4 --axis 0",
        "qerror fit model.safetensors --grid int4 --block 32 --rule minmax --rule octav --rule optimal",
        "qerror fit model.safetensors --grid nvfp4 --include '*.weight' -o scales.safetensors",
    ),
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--grid", metavar="GRID", required=True, help="A format (int4, e2m1, ...) or block format (mxfp4, nvfp4)."
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
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write .safetensors or .json.")
@click.option("--codes", is_flag=True, help="Write the quantized tensors too, as NAME.codes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits instead of a table.")
def fit(
    file: Path,
    grid: str,
    rules: tuple[str, ...],
    scales: Path | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    include_1d: bool,
    output: Path | None,
    codes: bool,
    as_json: bool,
    **layout: Any,
) -> int:
    """Fit scales to the tensors of FILE, one tensor in memory at a time.

    Without --axis and --block a tensor has one scale. "lost dB" is what a rule's mean squared error lies above that
    of the best scales with all else the same. -o writes NAME.scale and NAME.shift for every tensor,
    and NAME.zero_point and NAME.tensor_scale where there are such. With a tensor that cannot be fitted (NaN), the rest
    goes on and the exit status is 1.
    """
    rules = tuple(dict.fromkeys(rules or ("optimal",)))
    options = {key: value for key, value in layout.items() if value is not None}
    _check(grid, rules, options, output, scales, codes)
    given = None if scales is None else read_scales(scales)
    with open_checkpoint(file) as checkpoint, contextlib.ExitStack() as stack:
        selected = select_tensors(checkpoint.tensors, include=include, exclude=exclude, one_dimensional=include_1d)
        if given is not None and not any(f"{info.name}.scale" in given for info, reason in selected if not reason):
            such = shown(selected[0][0].name)
            raise ValueError(f"--scales {shown(scales)} has no NAME.scale of any tensor to fit, such as {such}")
        metadata = {"made_by": f"qerror {qe.__version__}", "source": file.name, "grid": grid, "rule": rules[0]}
        metadata |= {key: str(value) for key, value in options.items()}
        sink = None if output is None else stack.enter_context(open_scales(output, metadata))
        watched = with_progress(selected, lambda item: item[0].size)
        done = list(fit_tensors(checkpoint, watched, grid, rules, given=given, sink=sink, codes=codes, **options))
    title = ", ".join([plain(file.name), grid, *(f"{key} {value}" for key, value in _said(options).items())])
    _show(title, grid, done, checkpoint.skipped, as_json, options)
    if output is not None and not as_json:
        click.echo(f"scales of {sum(1 for fit in done if fit.mse)} tensors written to {plain(str(output))}")
    return 1 if any(fit.failed for fit in done) else 0


def _check(
    grid: str, rules: Sequence[str], options: dict[str, Any], output: Path | None, scales: Path | None, codes: bool
) -> None:
    """Refuse what no tensor could change, before the first one is read."""
    if output is not None:
        check_output(output)
        if len(rules) > 1 or scales is not None:
            raise ValueError("-o writes the scales of one rule, got several columns; leave out -o or give one --rule")
    elif codes:
        raise ValueError("--codes needs a file to write to: -o FILE")
    trial = {**options, "axis": None} if "axis" in options else options
    if "axis" in options and "block_size" in options:
        raise ValueError(f"give --axis or --block, not both; got {options['axis']} and {options['block_size']}")
    for rule in rules:
        qe.fit(np.array([[-1.0, 0.5, 1.0]]), grid, rule=rule, **{**trial, "block_axis": -1})


def _said(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are not the usual ones, in words."""
    words = {"axis": "axis", "block_size": "blocks of", "zero_point": "zero point", "scale_format": "scales"}
    said = {words[key]: options[key] for key in words if key in options}
    if options.get("shift"):
        said["shift"] = options["shift"]
    return said


def _show(
    title: str,
    grid: str,
    done: list[TensorFit],
    foreign: Mapping[str, str],
    as_json: bool,
    options: dict[str, Any],
) -> None:
    total = checkpoint_total(done)
    rows = [_row(fit) for fit in done if fit.mse]
    if as_json:
        left_out = [
            {"tensor": fit.info.name, "skipped": fit.skipped, "failed": fit.failed} for fit in done if not fit.mse
        ]
        left_out += [{"tensor": name, "skipped": reason, "failed": ""} for name, reason in foreign.items()]
        print_json("fit", rows, grid=grid, **options, total=_row(total) if total else None, left_out=left_out)
        return
    if total:
        rules = list(dict.fromkeys(rule for fit in done for rule in fit.mse))
        # Of several rules each one's SQNR is the best less what it loses.
        sqnr = "sqnr_db" if len(rules) == 1 else "optimal_sqnr_db"
        print_table(title, [*rows, _row(total)], [*_COLUMNS, sqnr, *(f"lost {rule}" for rule in rules)])
    _show_unusual(done)
    left: dict[str, list[str]] = {}
    for name, reason in [*((fit.info.name, fit.skipped) for fit in done if fit.skipped), *foreign.items()]:
        left.setdefault(reason, []).append(plain(name))
    for reason, names in left.items():
        hint = " (--include-1d fits them)" if reason.endswith("-D") else ""
        click.echo(f"left out, {reason}{hint}: {', '.join(names)}")
    for fit in done:
        if fit.failed:
            click.echo(f"not fitted: {plain(fit.info.name)}: {fit.failed}", err=True)


def _show_unusual(done: list[TensorFit]) -> None:
    """Say how many groups have no scale of the rule's own."""
    groups = sum(fit.groups for fit in done)
    met = dict.fromkeys((rule, one) for fit in done for rule, counts in fit.unusual.items() for one in counts)
    for rule, status in met:
        counts = [fit.unusual.get(rule, {}).get(status, 0) for fit in done]
        tensors = sum(map(bool, counts))
        where = f"{sum(counts)} of {groups} groups, in {tensors} tensor{'s' if tensors > 1 else ''}"
        click.echo(f"{rule}: {status.name}, {where} ({status})")


def _row(fit: TensorFit) -> dict[str, Any]:
    first = next(iter(fit.mse.values()))
    return {
        "tensor": fit.info.name,
        "shape": "x".join(map(str, fit.info.shape)) or "scalar",
        "dtype": fit.info.dtype,
        "kurtosis": None if math.isnan(fit.kurtosis) else fit.kurtosis,
        "groups": fit.groups,
        "scales": None if math.isnan(fit.scales[1]) else list(fit.scales),
        "mse": dict(fit.mse),
        "unusual": {rule: {one.name: n for one, n in counts.items()} for rule, counts in fit.unusual.items()},
        "sqnr_db": _decibels(fit.power, first),
        "optimal_sqnr_db": _decibels(fit.power, fit.optimum),
        **{f"lost {rule}": _lost(mse, fit.optimum) for rule, mse in fit.mse.items()},
    }


def _decibels(power: float, mse: float) -> float:
    """10 log10(power / mse); nan where both are 0."""
    if mse == 0:
        return math.inf if power > 0 else math.nan
    return 10 * math.log10(power / mse) if power > 0 else -math.inf


def _lost(mse: float, optimum: float) -> float:
    return 0.0 if mse <= optimum else _decibels(mse, optimum)
