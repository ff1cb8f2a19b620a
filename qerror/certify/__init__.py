"""Proofs: optimal quantizers and their errors as theorems, each with a certificate that a small program verifies.

Needs python-flint (``pip install 'qerror[certify]'``) but to read certificates. `certify` proves the globally optimal
scale in ball arithmetic, `certify_codebook` Lloyd-Max quantizers, `certify_pair` scale and shift together,
`certify_block_error` expected errors of block formats. `verify` proves each again from its `content` alone. The file
``checker.py``, where it and every lemma with its proof stand, imports nothing of qerror: ``python checker.py FILE...``
is all that a stranger needs.

A certificate is JSON with the fields ``format``, ``schema``; what it is about: ``density``, ``levels``, ...; what it
states, as balls in decimals: ``mse``, ..., with so many ``digits``; and the proof, as the docstrings of the checkers
tell. Of a scale it states ``scale``, ``mse``, ``unique``, ``minima`` (the other local minima up to 1e-12 above the
least) for ``density``, ``levels``, ``shift`` and ``rounding``; the proof has ``cuts`` between the pieces of (0, inf),
``kinds`` (a letter a piece: s, x, m, v, z or p, as the lemmas name them), ``roots`` (a minimum lies within one unit of
the last digit of each), ``order`` of the Taylor polynomials and ``bits`` of the arithmetic.
"""

from __future__ import annotations

from typing import Any

from .. import _lazy

_attribute, __dir__, __all__ = _lazy.attach(__name__, __file__)


def __getattr__(name: str) -> Any:
    try:
        return _attribute(name)
    except ModuleNotFoundError as error:
        if error.name != "flint":
            raise
        raise ImportError(f"qerror.certify needs python-flint: pip install 'qerror[certify]' ({error})") from error
