"""Names on the command line: several in one word, cut at commas, and what a shell completes them to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.shell_completion import CompletionItem

import qerror as qe

from ..densities.named import DensityName
from ..files import open_checkpoint
from ..rules import RULES
from ..rules.block_rules import NAMES

_SHAPED = ("student-t:df=", "generalized-gaussian:beta=", "mixture(", "rectified(")
# A comma begins a new name, unless what follows is an option of the one before ("df=5,std=2") or another of its numbers
# ("constants=1,1.5"), and outside of brackets.
_NEXT = re.compile(r"\s*[A-Za-z](?![\w-]*=)")


def split(text: str) -> list[str]:
    """The names in a word.

    Examples
    --------
    >>> split("int4,e2m1"), split("student-t:df=5,std=2,laplace"), split("best_of:constants=1,1.5")
    (['int4', 'e2m1'], ['student-t:df=5,std=2', 'laplace'], ['best_of:constants=1,1.5'])
    >>> split("histogram:counts=[1,2],edges=[0,1,3]")
    ['histogram:counts=[1,2],edges=[0,1,3]']
    """
    return _cut(text, [at for at in _commas(text) if _NEXT.match(text, at + 1)])


def split_globs(text: str) -> list[str]:
    """The patterns in a word.

    Examples
    --------
    >>> split_globs("*.{q,k}_proj.weight,lm_head.*"), split_globs("*embed*=int8:axis=0")
    (['*.{q,k}_proj.weight', 'lm_head.*'], ['*embed*=int8:axis=0'])
    """
    return _cut(text, _commas(text))


def _cut(text: str, commas: Sequence[int]) -> list[str]:
    ends = [*commas, len(text)]
    return [text[begin:end].strip() for begin, end in zip([0, *(end + 1 for end in ends)], ends, strict=False)]


def _commas(text: str) -> list[int]:
    """Where commas stand outside of brackets."""
    found, depth = [], 0
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            found.append(at)
    return found


# To checkers it has a type of values; older versions of click do not.
if TYPE_CHECKING:
    _Text = click.ParamType[str]
else:
    _Text = click.ParamType


class Names(_Text):
    """A name, or several with commas between them; `known` says what a shell offers."""

    name = "text"

    def __init__(self, known: Callable[[click.Context], Iterable[str]]) -> None:
        self._known = known

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """What the last name may become; nothing where that cannot be found out."""
        ends = [at + 1 for at in _commas(incomplete) if _NEXT.match(incomplete + "x", at + 1)]
        begin = max(ends, default=0)
        start, last = incomplete[:begin], incomplete[begin:]
        try:
            known = list(self._known(ctx))
        except (ValueError, OSError):
            return []
        return [CompletionItem(start + name) for name in known if name.startswith(last)]


def _formats(ctx: click.Context) -> list[str]:
    return [*qe.formats(), *qe.block_formats()]


def _tensors(ctx: click.Context) -> list[str]:
    with open_checkpoint(Path(ctx.params["data"])) as checkpoint:
        return [info.name for info in checkpoint.tensors]


def _figures(ctx: click.Context) -> list[str]:
    # Imported here: matplotlib is for this command only.
    from ..plotting.figures import FIGURES

    return list(FIGURES)


FORMATS = Names(_formats)
GRIDS = Names(lambda ctx: qe.formats())
DENSITIES = Names(lambda ctx: [*get_args(DensityName), *_SHAPED])
RULE_NAMES = Names(lambda ctx: [*RULES, *NAMES])
TENSORS = Names(lambda ctx: _tensors(ctx) if ctx.params.get("data") else [])
FIGURE_NAMES = Names(_figures)


def each(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """All names of words that may hold several."""
    return tuple(name for word in values for name in split(word))


def several(*names: str, kind: Names, **options: Any) -> Callable[..., Any]:
    """An option that takes one or more names, repeated or with commas; its last name is that of the parameter."""
    return click.option(*names, type=kind, multiple=True, callback=each, **options)


def globs(*names: str, **options: Any) -> Callable[..., Any]:
    """An option that takes patterns of names of tensors, repeated or with commas."""

    def spread(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
        return tuple(glob for word in values for glob in split_globs(word))

    return click.option(*names, multiple=True, callback=spread, **options)
