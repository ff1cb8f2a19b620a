"""Differential entropy by quadrature: -E[log2 f(x)] of a density of which only the pdf is known."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from .._types import Array
from .panels import resolve

# Doublings of a power law's tail, whose f log f falls off slowly.
_DOUBLINGS = 60
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


class _Density(Protocol):
    """What is read of a density; see `base.Density`."""

    tail_doublings: int
    power_law: bool

    @property
    def support(self) -> tuple[Any, Any]: ...
    @property
    def kinks(self) -> Array: ...
    def panels(self) -> Array: ...
    def pdf(self, x: Any) -> Array: ...
    def decay_length(self, x: Array, sign: Array) -> Array: ...


def entropy_by_quadrature(density: _Density) -> float:
    """-E[log2 f(x)] in bits of one density without point masses.

    Examples
    --------
    >>> import qerror as qe
    >>> round(entropy_by_quadrature(qe.Laplace()), 12), round(float(qe.Laplace().entropy), 12)
    (1.942695040889, 1.942695040889)
    """
    x, weight = gauss_nodes(entropy_panels(density))
    return -math.fsum((weight * _surprise(density, x)).ravel())


def entropy_panels(density: _Density) -> Array:
    """Ascending edges between which a few Gauss-Legendre nodes resolve f log f."""

    def size(x: Any) -> Array:
        return np.asarray(density.pdf(x)) + np.abs(_surprise(density, x))

    # Where there is next to nothing, nothing is resolved.
    edges, _ = resolve(size, _edges(density), relative=1e-9, absolute=1e-14, floor=1e-15)
    return edges


def gauss_nodes(edges: Array) -> tuple[Array, Array]:
    """Nodes and weights, each (panels, nodes), of a Gauss-Legendre rule between neighbouring edges.

    Examples
    --------
    >>> x, weight = gauss_nodes(np.array([0.0, 1.0, 2.0]))
    >>> x.shape, round(float((weight * x**3).sum()), 12)
    ((2, 16), 4.0)
    """
    half = 0.5 * np.diff(edges)[:, None]
    return edges[:-1, None] + half * (_NODES + 1), half * _WEIGHTS


def _surprise(density: _Density, x: Any) -> Array:
    f = np.asarray(density.pdf(x))
    return f * np.log2(np.where(f > 0, f, 1.0))


def _edges(density: _Density) -> Array:
    """Panels, jumps, and the doubling panels of infinite tails."""
    panels = density.panels()
    edges = [panels, np.ravel(density.kinks)]
    doublings = max(density.tail_doublings, _DOUBLINGS if density.power_law else 0) + 1
    for sign, end in ((-1.0, panels[0]), (1.0, panels[-1])):
        if math.isinf(density.support[sign > 0]):
            length = float(density.decay_length(np.array([end]), np.array([sign]))[0])
            edges.append(end + sign * 2 * length * (2.0 ** np.arange(doublings) - 1))
    return np.unique(np.concatenate(edges))
