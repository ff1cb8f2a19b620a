"""Certify the shipped table and write qerror/data/certificates.jsonl.gz: about twenty minutes on one core.

    python tests/reference/make_certificates.py [lines.jsonl ...]

Lines that an earlier run wrote need not be proven again: each is verified and taken.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import qerror as qe
from qerror.certify import Certificate, certify, verify
from qerror.certify.shipped import PACKAGED, write_certificates


def main(earlier: list[str]) -> None:
    known = {}
    for name in earlier:
        for line in Path(name).read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            known[tuple(found["row"])] = Certificate(found["certificate"])
    proven = []
    for row in qe.load_table().rows:
        key = row.grid, row.density, row.rounding
        if key in known:
            verify(known[key].content)
        proven.append((key, known.get(key) or certify(row.density, row.grid, rounding=row.rounding)))
        print(*key, proven[-1][1].scale, flush=True)
    write_certificates(PACKAGED, proven)


if __name__ == "__main__":
    main(sys.argv[1:])
