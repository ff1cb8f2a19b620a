"""The command that prints derivations."""

from typing import Any

import click

from .options import examples
from .render import print_json, say
from .words import DENSITIES, GRIDS


@click.command(
    epilog=examples(
        "qerror derive clipping --density laplace",
        "qerror derive optimum --density gaussian --grid 2 --markdown",
        "qerror derive mse --density student-t:df=5,std=1 --grid e2m1 --python",
    )
)
@click.argument("quantity", type=click.Choice(["clipping", "rounding", "mse", "optimum"]))
@click.option(
    "--density",
    metavar="NAME",
    type=DENSITIES,
    default="gaussian",
    show_default=True,
    help="A density by name; parameters that are not said stay symbols. 'empirical' is a sorted sample x[1..n].",
)
@click.option(
    "--grid", metavar="NAME|N", type=GRIDS, help="A format by name, how many uniform levels, or N: any even number."
)
@click.option(
    "--model",
    type=click.Choice(["exact", "high_resolution"]),
    default="exact",
    show_default=True,
    help="The true integrals, or the approximation by step^2/12 (StatQAT, ACIQ).",
)
@click.option("--rounding", type=click.Choice(["nearest", "stochastic"]), default="nearest", show_default=True)
@click.option("--latex", "form", flag_value="latex", help="Print an align* environment.")
@click.option("--markdown", "form", flag_value="markdown", help="Print Markdown with displayed formulas.")
@click.option("--python", "form", flag_value="python", help="Print NumPy source of the error (optimum: of d MSE / ds).")
@click.option("--json", "form", flag_value="json", help="Print JSON: each step as text and as LaTeX.")
def derive(quantity: str, density: str, grid: str | None, model: str, rounding: str, form: str | None) -> None:
    """Derive an error, or the scale that makes it smallest, step by step from the definition."""
    # SymPy takes half a second to load: only this command does.
    import sympy

    from .. import symbolic

    levels: Any = int(grid) if grid is not None and grid.isdecimal() else grid
    if grid == "N":
        levels = sympy.Symbol("N", even=True, positive=True)
    found = symbolic.derivation(quantity, density, levels, model=model, rounding=rounding)
    if form == "json":
        rows = [
            {"step": step.name, "equation": f"{step.left} = {step.right}", "latex": step.latex(), "note": step.note}
            for step in found.steps
        ]
        asked = {"quantity": quantity, "density": density, "grid": grid, "model": model, "rounding": rounding}
        print_json("derive", rows, title=found.title, **asked)
    elif form == "python":
        folded = found["integral"].right
        if quantity == "optimum":
            scale = sympy.Symbol("s", positive=True)
            folded = symbolic.stationarity(density, levels, scale, model, rounding=rounding)
        click.echo(symbolic.to_numpy(folded, name=quantity).source, nl=False)
    elif form == "latex":
        click.echo(found.latex())
    elif form == "markdown":
        click.echo(found.markdown(), nl=False)
    else:
        say(str(found), indent=" " * 4)
