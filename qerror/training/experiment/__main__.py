"""Run the experiment in a terminal: ``python -m qerror.training.experiment [--quick]``."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console
from rich.progress import track

from .networks import digits
from .study import run_study, settings, step_times
from .summary import MEASURES, against_minmax, format_table


@click.command()
@click.option("--quick", is_flag=True, help="A small part of it in less than a minute: one network, two formats.")
@click.option("--workers", default=2, show_default=True, help="Processes of one thread each.")
def main(quick: bool, workers: int) -> None:
    """Train small networks on digits under every scale rule, and compare the rules with minmax."""
    try:
        digits()
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    begin = time.perf_counter()
    console = Console(stderr=True)

    def progress(items: Iterable[Any], total: int) -> Iterable[Any]:
        return track(items, "training", total, console=console, disable=not console.is_terminal, transient=True)

    records = run_study(**settings(quick=quick, workers=workers), progress=progress)
    rules = sorted({record.case.rule for record in records} - {"minmax", "none"})
    rows = [(rule, *(against_minmax(records, rule, measure)[:2] for measure in MEASURES)) for rule in rules]
    click.echo("Above minmax, mean over cases +- standard error over seeds (points, dB, dB, log ratio, log ratio):")
    click.echo(format_table(("rule", *MEASURES), rows))
    times = step_times(steps=10 if quick else 40)
    click.echo("Milliseconds of a training step, int4 weights and activations:")
    click.echo(format_table(("rule", "ms"), times.items()))
    click.echo(f"{len(records)} cases in {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
