"""Proofs: the globally optimal scale and its error as theorems, each with a certificate that a small program verifies.

Needs python-flint (``pip install 'qerror[certify]'``); nothing else in the library does. `certify` proves in ball
arithmetic and gives a `Certificate`; `verify.py`, which imports nothing of qerror, proves it again from the file alone:
its docstring has every lemma.

A certificate is JSON with these fields: ``format`` and ``schema``; what it is about: ``density``, ``levels``, ``shift``,
``rounding``; what it states, as balls in decimals: ``scale``, ``mse``, ``unique``, ``minima`` (the other local minima
up to 1e-12 above the least), ``digits``; and the proof: ``cuts`` between the pieces of (0, inf), ``kinds`` (a letter a
piece: s, x, m, v, z or p, as the lemmas of `verify` name them), ``roots`` (a minimum lies within one unit of the last
digit of each), ``order`` of the Taylor polynomials and ``bits`` of the arithmetic.
"""

try:
    import flint as _flint  # noqa: F401
except ImportError as error:
    raise ImportError(f"qerror.certify needs python-flint: pip install 'qerror[certify]' ({error})") from error

from .certificate import Certificate
from .pieces import OpenError
from .proof import certify

__all__ = ["Certificate", "OpenError", "certify"]
