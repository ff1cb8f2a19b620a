"""Words of errors and tables: values and names on one line, and what a misspelled one may have meant."""

from __future__ import annotations

import difflib
import html
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any


def html_table(rows: Iterable[Sequence[object]], header: Sequence[str] = (), caption: str = "") -> str:
    """An HTML table for notebooks; the first cell of a row names it.

    Examples
    --------
    >>> html_table([("mse", 0.5)], caption="a < b")
    '<table><caption>a &lt; b</caption><tr><th>mse</th><td>0.5</td></tr></table>'
    """
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    head = "".join(f"<th>{html.escape(word)}</th>" for word in header)
    lines = [f"<tr>{head}</tr>"] if header else []
    for name, *cells in rows:
        texts = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
        lines.append(f"<tr><th>{html.escape(str(name))}</th>{texts}</tr>")
    return f"<table>{title}{''.join(lines)}</table>"


def suggest(name: str, candidates: Iterable[str]) -> str:
    """Return a clause that lists the near matches of a name, for the end of an error text.

    Examples
    --------
    >>> suggest("gausian", ["gaussian", "laplace"])
    "; did you mean 'gaussian'?"
    """
    near = near_names(name.lower(), candidates)
    return f"; did you mean {listing(near)}?" if near else ""


def near_names(name: str, candidates: Iterable[str]) -> list[str]:
    """At most three of the candidates, those that are spelled most like a name.

    The comparison takes as long as two lengths multiplied: names of more than 200 characters resemble nothing.

    Examples
    --------
    >>> near_names("a.weigth", ["a.weight", "b.bias"])
    ['a.weight']
    """
    short = [known for known in candidates if len(known) <= 200]
    return difflib.get_close_matches(name, short, n=3, cutoff=0.6) if len(name) <= 200 else []


def listing(words: Sequence[str]) -> str:
    """Words in quotes, the last one after "or"."""
    quoted = [repr(word) for word in words]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]


def shown(value: Any, limit: int = 60) -> str:
    r"""Return the repr of a value on one line and short, for an error text.

    Names of tensors and files come from strangers; their repr escapes what a terminal would obey. Of texts longer than
    `limit` (of paths: 90) both ends are kept, because the last part tells names apart; of other values the beginning.

    Examples
    --------
    >>> shown([0, 1, 2])
    '[0, 1, 2]'
    >>> print(shown("layers." + 60 * "0" + "\x1b.weight", 30))
    'layers.0...000000\x1b.weight'
    """
    if isinstance(value, str):
        return _ends(repr(value), limit)
    if isinstance(value, PurePath):
        return _ends(repr(str(value)), 90)
    try:
        text = " ".join(repr(value).split())
    except Exception:  # Lists too deep, integers too long, objects of others: what is wrong with them is said here.
        text = object.__repr__(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def plain(text: str, limit: int = 100) -> str:
    r"""Return a text as it is where it is short and every character of it printable, else as `shown`.

    For names in tables and lists, and for the words of other libraries in error texts.

    Examples
    --------
    >>> print(plain("layers.0.weight"), plain("red\x1b[31m"), plain(""))
    layers.0.weight 'red\x1b[31m' ''
    """
    return text if text and text.isprintable() and len(text) <= limit else shown(text, limit)


def listed(names: Iterable[str], room: int = 120) -> str:
    """Return the first names, as `shown`: as many as there is room for, and at least one.

    Examples
    --------
    >>> listed(["a.weight", "b.weight", "c.weight"], room=25)
    "'a.weight', 'b.weight'"
    """
    text = ""
    for name in map(shown, names):
        if text and len(text) + 2 + len(name) > room:
            break
        text += f", {name}" if text else name
    return text


def _ends(text: str, limit: int) -> str:
    end = 3 * limit // 5
    return text if len(text) <= limit else f"{text[: limit - 3 - end]}...{text[-end:]}"
