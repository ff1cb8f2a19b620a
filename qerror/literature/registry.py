"""The registry of published constants: what was printed, by whom, and what it is said to be."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .._check import check_choice

KINDS = (
    *("optimum", "rule", "clip-by-moments", "dot-product", "lloyd-max", "panter-dite", "quantiles", "block-maximum"),
    *("block-end", "second-end", "crest-factor", "norm"),
    "unchecked",
)
SEEN = ("seen", "ran", "second-hand", "memory")


@dataclass(frozen=True)
class Entry:
    """Numbers of one source that make one claim; `constants.toml` explains the fields.

    Attributes
    ----------
    name, source, claim : str
    seen : {"seen", "ran", "second-hand", "memory"}
        Read in the text or code of the source, printed by its code, attributed to it by another source, or recalled.
    kind : str
        How the numbers are recomputed.
    at : tuple
        The cases: levels, bits, grids, degrees of freedom or block sizes.
    printed : tuple of str
        The text printed for each.
    """

    name: str
    source: str
    claim: str
    seen: str
    kind: str
    at: tuple[Any, ...]
    printed: tuple[str, ...]
    quantity: str = "clip"
    density: str = "gaussian"
    grid: str = "{}"
    used_on: str = ""
    model: str = "exact"
    achieved: bool = False
    rule: str = ""
    criterion: str = ""
    signed: bool = False
    zero_added: bool = False


@cache
def entries() -> tuple[Entry, ...]:
    """Every entry of the registry.

    Examples
    --------
    >>> [entry.seen for entry in entries() if entry.name == "NF4"]
    ['seen']
    """
    text = (Path(__file__).parent / "constants.toml").read_text(encoding="utf-8")
    return tuple(_entry(fields) for fields in tomllib.loads(text)["entry"])


def mentions(entry: Entry, words: Iterable[str]) -> bool:
    """Whether name, source, claim, cases or printed digits have all of the words, in any case.

    Examples
    --------
    >>> [entry.name for entry in entries() if mentions(entry, ["aciq", "5.03"])]
    ['ACIQ Laplace: constants in use']
    """
    text = " ".join([entry.name, entry.source, entry.claim, entry.density, *map(str, entry.at), *entry.printed]).lower()
    return all(word.lower() in text for word in words)


def _entry(fields: dict[str, Any]) -> Entry:
    entry = Entry(**{**fields, "at": tuple(fields["at"]), "printed": tuple(fields["printed"])})
    check_choice("kind", entry.kind, KINDS)
    check_choice("seen", entry.seen, SEEN)
    if len(entry.at) != len(entry.printed):
        raise ValueError(f"at and printed of {entry.name!r} must be of one length")
    return entry
