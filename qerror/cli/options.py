"""Options that several commands share."""

import textwrap

import click

# Of a line of an example, so that it fits 80 columns with its margin and what says that it goes on.
_WIDTH = 74


def examples(*lines: str) -> str:
    """Text below a command's options; the backspace keeps click from joining its lines."""
    commands = (textwrap.wrap(line, _WIDTH, break_long_words=False, break_on_hyphens=False) for line in lines)
    return "\n".join(["\b", "Examples:", *("  " + " \\\n      ".join(parts) for parts in commands)])


def _parse_shift(ctx: click.Context, param: click.Parameter, value: str) -> float | str:
    """Turn the option's text into a number where it is none of the words that `optimal_scale` understands."""
    if value in ("mean", "optimal"):
        return value
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"--shift must be a number, mean or optimal, got {value!r}") from None


shift_option = click.option(
    "--shift",
    callback=_parse_shift,
    default="0",
    show_default=True,
    metavar="Z",
    help="Added to scale * levels: a number, mean (that of the data), or optimal (searched along with the scale).",
)


def _parse_loss(ctx: click.Context, param: click.Parameter, value: str) -> float | str:
    """Turn the option's text into a number where it is no name of a loss."""
    if value in ("squared", "absolute"):
        return value
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"--loss must be squared, absolute or a power from 1 to 4, got {value!r}") from None


loss_option = click.option(
    "--loss",
    callback=_parse_loss,
    default="squared",
    show_default=True,
    metavar="P",
    help="What an error e counts: squared, absolute, or |e|^P for a power P from 1 to 4.",
)


certify_option = click.option(
    "--certify",
    is_flag=True,
    default=None,
    flag_value=True,
    help="Prove every minimum global, also where that takes longer than finding it (wide floating formats).",
)
