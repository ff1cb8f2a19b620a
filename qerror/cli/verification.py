"""The command that challenges the library's predictions by simulations."""

import dataclasses
import math
from typing import Any

import click

import qerror as qe

from ..evidence.verification import VerificationReport
from .group import ManyValues
from .options import examples
from .render import print_json, print_table, say, with_progress
from .words import DENSITIES, FORMATS, several


def _parse_count(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Read 1e7 as people write it."""
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not number.is_integer():
        raise ValueError(f"--n must be a whole number such as 1e7, got {value!r}")
    return int(number)


@click.command(
    cls=ManyValues,
    epilog=examples(
        "qerror verify",
        "qerror verify --n 1e6 --grid int4 e2m1 --density laplace --seed 7",
        "qerror verify --n 1e6 --grid mxfp4 nvfp4 int4_g128",
    ),
)
@click.option(
    "--n", "count", callback=_parse_count, metavar="N", default="1e7", show_default=True, help="Samples a row."
)
@several(
    *("--grid", "--grids", "grids"),
    kind=FORMATS,
    metavar="GRID...",
    help="Grids and block formats. Default: int4 int8 e2m1 e4m3fn nf4.",
)
@several(
    *("--density", "--densities", "densities"),
    kind=DENSITIES,
    metavar="NAME...",
    help="Default: gaussian laplace uniform student-t:df=5.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Repeats a run to the last digit."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits instead of a table.")
@click.pass_context
def verify(
    ctx: click.Context, count: int, grids: tuple[str, ...], densities: tuple[str, ...], seed: int, as_json: bool
) -> None:
    """Challenge the predicted errors by simulations; exit status 1 if one is rejected.

    Every density and grid at half, one and two times the optimal scale, rounded to nearest and stochastically; block
    formats at half, one and two times the tensor scale of 2^20 values, or, without one, at three places in an octave.
    The table shows how many standard errors lie between prediction and simulation.
    """
    report = qe.verify(grids or None, densities or None, n=count, rng=seed, progress=with_progress)
    rows = _rows(report)
    if as_json:
        verdict = {"passed": report.passed, "threshold": report.threshold, "tested": report.tested}
        print_json("verify", rows, n=report.n, seed=seed, **verdict, detectable=report.power, says=report.statement)
    else:
        _print(report, rows)
    ctx.exit(0 if report.passed else 1)


def _rows(report: VerificationReport) -> list[dict[str, Any]]:
    return [
        {
            **{key: getattr(row, key) for key in ("density", "grid", "rounding", "place", "scale", "rng", "reason")},
            "terms": {term: dataclasses.asdict(found) for term, found in row.terms.items()},
            "rejected": row.failures(report.threshold),
        }
        for row in report.rows
    ]


def _print(report: VerificationReport, rows: list[dict[str, Any]]) -> None:
    terms = ("clipping", "rounding", "mse", "bias", "cross")
    flat = [
        {
            **row,
            "mode": row["rounding"],
            # What is not tested stays blank; the statement says why.
            **{f"z_{term}": None if math.isnan(row["terms"][term]["z"]) else row["terms"][term]["z"] for term in terms},
            "verdict": "rejected: " + ", ".join(row["rejected"]) if row["rejected"] else "",
        }
        for row in rows
    ]
    columns = ("density", "grid", "mode", "place", "scale", *(f"z_{term}" for term in terms), "verdict")
    print_table(f"(simulated - predicted) / standard error, n = {report.n:g} a row", flat, columns)
    say(report.statement)
