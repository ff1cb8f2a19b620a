"""The certificates that come with the package: those of the shipped table, by grid, density and rounding."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from .._files import atomic_open
from .certificate import Certificate

PACKAGED = Path(__file__).parent.parent / "data" / "certificates.jsonl.gz"
Key = tuple[str, str, str]


@functools.cache
def certificates(path: Path = PACKAGED) -> dict[Key, Certificate]:
    """The certificates of a file by grid, density and rounding."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {tuple(row["row"]): Certificate(row["certificate"]) for row in rows}


def write_certificates(path: Path, rows: Iterable[tuple[Key, Certificate]]) -> None:
    """Write such a file: a JSON object a line, compressed; it appears only when it is complete."""
    text = "".join(json.dumps({"row": key, "certificate": proven.content}) + "\n" for key, proven in rows)
    with atomic_open(path) as file:
        # Without the time of writing: the same rows are the same bytes.
        file.write(gzip.compress(text.encode(), 9, mtime=0))
