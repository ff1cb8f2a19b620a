"""Commands for what people take away: tables of scales, the audit of published constants, figures."""

import collections
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import qerror as qe

from .. import literature
from .._check import listed, plain
from ..errors.exact import MODELS, ROUNDINGS
from ..tables.writing import check_path
from .group import ManyValues
from .options import examples, shift_option
from .render import print_json, print_table, say, with_progress
from .rows import audit_rows
from .words import DENSITIES, FIGURE_NAMES, FORMATS, each, several


@click.command(
    cls=ManyValues,
    epilog=examples(
        "qerror table --grids int4 e2m1 --densities gaussian student-t:df=5",
        "qerror table --grids int8 --rounding nearest stochastic -o scales.json",
        "qerror table --certified --grids e4m3fn",
    ),
)
@several("--grid", "--grids", "grids", kind=FORMATS, metavar="GRID...", help="Default: all of up to 8 bits.")
@several(
    *("--density", "--densities", "densities"),
    kind=DENSITIES,
    metavar="NAME...",
    help="Default: the parametric ones at usual shapes.",
)
@click.option("--rounding", type=click.Choice(ROUNDINGS), multiple=True, default=["nearest"], show_default=True)
@click.option("--model", type=click.Choice(MODELS), default="exact", show_default=True)
@shift_option
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write .json, .csv, .safetensors, .h (C header) or .py (Python module) instead of printing.",
)
@click.option("--certified", is_flag=True, help="The shipped rows with 30 proven digits of scale and error.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits instead of a table.")
def table(
    grids: tuple[str, ...],
    densities: tuple[str, ...],
    rounding: tuple[Any, ...],
    model: Any,
    shift: Any,
    output: Path | None,
    certified: bool,
    as_json: bool,
) -> None:
    """Optimal scales of many formats on many densities, as a table or as a file for other programs."""
    if certified:
        if output is not None or model != "exact" or shift != 0:
            raise ValueError("--certified prints rows of the shipped table: leave --output, --model and --shift out")
        _certified(grids, densities, rounding, as_json)
        return
    if output is not None:
        check_path(output)
    options = {"model": model, "rounding": rounding, "shift": shift, "progress": with_progress}
    found = qe.scale_table(grids or None, densities or None, **options)
    if output is not None:
        found.save(output)
    if as_json:
        rows = [{**dataclasses.asdict(row), "sqnr_db": row.sqnr_db} for row in found.rows]
        print_json("table", rows, model=found.model, shift=found.shift)
    elif output is None:
        click.echo(repr(found))
    else:
        say(f"{len(found.rows)} scales written to {plain(str(output))}")


def _certified(grids: Sequence[str], densities: Sequence[str], roundings: Sequence[Any], as_json: bool) -> None:
    shipped = qe.load_table()
    asked = itertools.product(grids or shipped.grids, densities or shipped.densities, roundings)
    found = [shipped.certified(grid, density, rounding=rounding) for grid, density, rounding in asked]
    rows = [
        {
            **{key: getattr(one.row, key) for key in ("grid", "density", "rounding")},
            **{key: getattr(one, key) for key in ("scale", "mse", "unique", "copies", "scale_digits", "mse_digits")},
        }
        for one in found
    ]
    if as_json:
        print_json("table", rows, model=shipped.model, shift=shipped.shift)
        return
    for row in rows:
        unique, copies = "unique" if row["unique"] else "tied", f", {row['copies']} copies" if row["copies"] else ""
        click.echo(f"{row['grid']} on {row['density']}, {row['rounding']}: {unique}{copies}")
        click.echo(f"  scale {row['scale']}  table: {row['scale_digits']} digits\n  MSE   {row['mse']}")
    if any(row["copies"] for row in rows):
        say("copies: other minima less than 1e-12 above; the table may have their scale")


@click.command(epilog=examples("qerror audit", "qerror audit aciq laplace", "qerror audit 2.83", "qerror audit --json"))
@click.argument("words", metavar="[WORD...]", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits instead of tables.")
def audit(words: tuple[str, ...], as_json: bool) -> None:
    """Recompute the published constants: which digits are right, and how many dB each constant loses.

    With WORDs those alone whose name, source, claim or printed digits have all of them.

    In brackets how the constant was seen: read in the text or code of its source (seen), printed by its code (ran),
    attributed to it by another source (second-hand), or recalled (memory). Of a codebook the worst level is shown.
    """
    chosen = [entry for entry in literature.entries() if literature.mentions(entry, words)]
    if not chosen:
        raise ValueError(f"no published constant has the words {listed(words)}; without words all are shown")
    rows = [row for entry in with_progress(chosen) for row in audit_rows(entry)]
    if as_json:
        print_json("audit", rows)
        return
    for name, of_entry in itertools.groupby(rows, key=lambda row: row["name"]):
        group = list(of_entry)
        title = f"{name} [{group[0]['seen']}]\n{group[0]['source']}\n{group[0]['claim']}"
        columns = ["item", "printed", "exact", "relative_error", "lost_db", "verdict"]
        print_table(title, group, [c for c in columns if any(row[c] is not None for row in group)])
    counts = collections.Counter(row["verdict"] for row in rows)
    for verdict in literature.Verdict:
        if not words or counts[verdict.name.lower()]:
            say(f"{counts[verdict.name.lower()]:4d} {verdict.name.lower()}: {verdict.value}", indent=" " * 6)


@click.command(
    epilog=examples(
        "qerror figures",
        "qerror figures uniform_error floating_levels -o paper --as pdf",
    )
)
@click.argument("names", metavar="[NAME...]", nargs=-1, type=FIGURE_NAMES, callback=each)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("figures"),
    show_default=True,
    help="The folder to write to; made where it does not exist.",
)
@click.option(
    *("--as", "endings"),
    type=click.Choice(["svg", "png", "pdf"]),
    multiple=True,
    default=["svg", "png"],
    show_default=True,
    help="The kinds of files to write; again for each.",
)
def figures(names: tuple[str, ...], output: Path, endings: tuple[str, ...]) -> None:
    """Draw the figures of the notebooks as .svg and .png (or .pdf): all, or those of the given NAMEs."""
    # Imported here: matplotlib is for this command only.
    from ..plotting import FIGURES, draw, save_figure
    from ..plotting.figures import check_figure

    chosen = list(names or FIGURES)
    for name in chosen:
        check_figure(name)
    output.mkdir(exist_ok=True)
    for name in with_progress(chosen):
        drawn = draw(name)
        for ending in dict.fromkeys(endings):
            save_figure(drawn, output / f"{name}.{ending}", title=name)
    say(f"{len(chosen)} figures written to {plain(str(output))}")
