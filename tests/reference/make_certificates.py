"""Certify the shipped table and write qerror/data/certificates.jsonl.gz: ten minutes on one core.

    python tests/reference/make_certificates.py [--all]

Shipped certificates that the checker proves are kept, unless --all asks to prove every row anew.
"""

from __future__ import annotations

import sys

import qerror as qe
from qerror.certify import Certificate, certify, verify
from qerror.certify.shipped import PACKAGED, certificates, write_certificates


def holds(certificate: Certificate) -> bool:
    try:
        verify(certificate.content)
    except ValueError:
        return False
    return True


def main(everything: bool) -> None:
    known = {} if everything else certificates()
    proven = []
    for row in qe.load_table().rows:
        key = row.grid, row.density, row.rounding
        kept = key in known and holds(known[key])
        proven.append((key, known[key] if kept else certify(row.density, row.grid, rounding=row.rounding)))
        print("kept  " if kept else "proven", *key, proven[-1][1].scale, flush=True)
    write_certificates(PACKAGED, proven)


if __name__ == "__main__":
    main(sys.argv[1:] == ["--all"])
