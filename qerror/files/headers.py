"""JSON out of files that anyone may have written."""

import json
from typing import Any

from .._check import plain, shown


def parse_json(content: bytes | str) -> Any:
    """Parse JSON in UTF-8 whose objects name nothing twice.

    Raises
    ------
    ValueError
        In few words, for everything that is wrong with the text.

    Examples
    --------
    >>> parse_json(b'{"a": [1, 2]}')
    {'a': [1, 2]}
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None
    except ValueError as error:
        raise ValueError(plain(str(error), 100)) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"twice the name {shown(name)}")
        table[name] = value
    return table
