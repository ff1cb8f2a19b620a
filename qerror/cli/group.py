"""How commands fail: one line that says what is wrong, exit status 2, no traceback."""

import contextlib
import importlib
import itertools
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from .._text import near_names, plain, suggest


class _EnoughError(Exception):
    """The reader of a pipe has enough (`qerror formats | head`); click would end a broken pipe with status 1."""


@contextlib.contextmanager
def _until_enough() -> Iterator[None]:
    """Print, and write what is still buffered."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        raise _EnoughError from None


class OneLineErrors(click.Group):
    """A group of commands that turns bad input, from click or from the library, into one line and status 2."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run, and leave the process with a status."""
        extra["standalone_mode"] = False
        try:
            status = super().main(*args, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            # The message of this one is the help text.
            click.echo(error.format_message())
            sys.exit(0)
        except click.ClickException as error:
            _fail(error.format_message())
        except ValueError as error:
            # The library's own words: they name the argument, show the value and say what to do.
            _fail(str(error))
        except (click.Abort, KeyboardInterrupt):
            sys.exit(130)
        except _EnoughError:
            # What is still buffered cannot be written either, so that Python must not try when it ends.
            sys.stdout = None
            sys.exit(0)
        except OSError as error:
            # No right to write, a full disk.
            name = plain(str(error.filename or "a file"))
            _fail(f"{name}: {error.strerror or error}; check its permissions and the space left")
        sys.exit(status if isinstance(status, int) else 0)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the command line, and print help if it asks for that."""
        with _until_enough():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _until_enough():
            return super().invoke(ctx)

    def find(self, name: str) -> click.Command | None:
        """A command from elsewhere."""
        return None

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Find a command, or name the one that is spelled most like it."""
        command = self.find(cmd_name) or super().get_command(ctx, cmd_name)
        if command is None:
            names = self.list_commands(ctx)
            hint = suggest(cmd_name, near_names(cmd_name, names)[:1]) or f"; there are {', '.join(names)}"
            raise click.UsageError(f"there is no command {cmd_name!r}{hint}")
        return command


class LazyCommands(OneLineErrors):
    """Commands that are imported when they are called; their names and short helps are known without."""

    def __init__(self, *args: Any, places: dict[str, tuple[str, str]], **extra: Any) -> None:
        super().__init__(*args, **extra)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return sorted({*self._places, *super().list_commands(ctx)})

    def find(self, name: str) -> click.Command | None:
        """Import a command."""
        if name not in self._places:
            return None
        module, said = self._places[name]
        found: click.Command = getattr(importlib.import_module(f".{module}", __package__), name)
        found.short_help = said
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them as click does, without importing one."""
        rows = [(name, said) for name, (_, said) in sorted(self._places.items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class ManyValues(click.Command):
    """A command whose repeatable options take several values at once: ``--grids int4 e2m1``.

    Those with a `flag_value` may stand alone, before another option or at the end.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write ``--grids a b`` as ``--grids a --grids b``, which click understands."""
        many = {name: option for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        spread: list[str] = []
        current = None
        for word, after in itertools.zip_longest(args, args[1:], fillvalue="-"):
            if word.startswith("-"):
                current = word if word in many else None
            elif current is not None and spread[-1] != current:
                spread.append(current)
            spread.append(word)
            alone = getattr(many.get(word), "flag_value", None)
            if isinstance(alone, str) and after.startswith("-"):
                spread.append(alone)
        return super().parse_args(ctx, spread)


class OptionalWords(click.Command):
    """A command whose options with a `flag_value` may stand alone: the next word is theirs only if it looks it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write ``--zero-point FILE`` as ``--zero-point integer FILE``, which click understands."""
        words = {name: option for option in self.params if isinstance(option, click.Option) for name in option.opts}
        spread: list[str] = []
        for word, after in itertools.zip_longest(args, args[1:]):
            spread.append(word)
            option = words.get(word)
            if option and isinstance(option.flag_value, str) and not _takes(option, after):
                spread.append(option.flag_value)
        return super().parse_args(ctx, spread)


def _takes(option: click.Option, word: str | None) -> bool:
    """Whether a word is an option's own: one of its choices; of patterns one that has something to match."""
    if isinstance(option.type, click.Choice):
        return word in option.type.choices
    return word is not None and (word == option.flag_value or any(mark in word for mark in "*?[{"))


def _fail(message: str) -> NoReturn:
    # In a pipe one line; rich, which the other commands print with, takes a tenth of a second to load.
    line = "qerror: " + " ".join(message.split())
    if sys.stderr.isatty():
        line = textwrap.fill(line, max(40, shutil.get_terminal_size().columns), break_on_hyphens=False)
    click.echo(line, err=True)
    sys.exit(2)
