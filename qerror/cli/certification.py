"""The command that proves an optimal scale, and verifies such proofs."""

from pathlib import Path
from typing import Any

import click

import qerror as qe

from .._check import plain
from ..certify.certificate import Certificate, Proof
from ..errors.exact import ROUNDINGS
from .group import ManyValues
from .options import examples
from .render import print_json, say, with_progress
from .words import DENSITIES, GRIDS


@click.command(
    cls=ManyValues,
    epilog=examples(
        "qerror certify int8",
        "qerror certify e4m3fn --density laplace --rounding stochastic -o proof.json",
        "qerror certify --check proof.json",
    ),
)
@click.argument("grid", required=False, type=GRIDS)
@click.option(
    "--density", metavar="NAME", type=DENSITIES, default="gaussian", show_default=True, help="A density by name."
)
@click.option("--shift", metavar="Z", type=float, default=0.0, show_default=True, help="Added to scale * levels.")
@click.option("--rounding", type=click.Choice(ROUNDINGS), default="nearest", show_default=True)
@click.option("--digits", metavar="N", type=int, default=30, show_default=True, help="Digits of scale and MSE.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write the certificate there.")
@click.option("--check", "files", metavar="FILE...", multiple=True, help="Verify certificates instead of making one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def certify(grid: str | None, files: tuple[str, ...], output: Path | None, as_json: bool, **asked: Any) -> None:
    """Prove the globally optimal scale of GRID and its error, in ball arithmetic (extra `certify`).

    Every digit is proven, and that no other scale is as good. The certificate is verified again by --check, or by
    qerror/certify/checker.py, a file that needs nothing else of qerror. Exit status 1: a certificate proves nothing.
    """
    if (grid is None) == (not files):
        raise ValueError("give one GRID to prove, or --check with certificates to verify")
    # python-flint is optional, and loads only here.
    from .. import certify as proofs

    try:
        prove, verify = proofs.certify, proofs.verify
    except ImportError as error:
        raise ValueError(str(error)) from None
    if files:
        _check([Path(file) for file in files], verify, as_json)
        return
    density = asked.pop("density")
    proven = prove(density, str(grid), **asked)
    if output is not None:
        proven.save(output)
    if as_json:
        print_json("certify", [proven.statement()], grid=grid, density=density, **asked)
        return
    words = "the only best" if proven.unique else "not told apart from others"
    say(f"{grid} on {qe.density(density).name}, {asked['rounding']} rounding, shift {asked['shift']:g}: proven")
    click.echo(f"scale  {proven.scale}  {words}\nMSE    {proven.mse}")
    if proven.minima[1:]:
        click.echo(f"other local minima, their MSE less than 1e-12 above: {len(proven.minima) - 1}")
    for scale, mse in proven.minima[1:]:
        click.echo(f"  scale {scale}\n  MSE   {mse}")
    if output is not None:
        say(f"certificate written to {plain(str(output))}")


def _check(files: list[Path], verify: Any, as_json: bool) -> None:
    certificates = [(file, Certificate.load(file)) for file in files]
    rows = []
    for file, proven in with_progress(certificates):
        try:
            verify(proven.content)
            error = None
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as found:
            error = plain(str(found) or type(found).__name__, 200)
        stated = {} if error else proven.statement()
        rows.append({"file": str(file), "proven": error is None, "error": error, **stated})
    if as_json:
        print_json("certify", rows)
    for row, (_, proven) in zip([] if as_json else rows, certificates, strict=False):
        said = f"not proven: {row['error']}" if row["error"] else f"proven: {_statement(proven)}"
        say(f"{plain(row['file'])}: {said}")
    if not all(row["proven"] for row in rows):
        raise click.exceptions.Exit(1)


def _statement(proven: Proof) -> str:
    content = proven.content
    words = [content["density"]["family"], f"{len(content['levels'])} levels", *content.get("rounding", "").split()]
    return "\n  ".join([", ".join(words), *proven.said()])
