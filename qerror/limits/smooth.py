"""High rates of smooth densities: a channel whose reproduction has the density itself, between few nodes.

With Y of density f and the kernel exp(-(x - y)^2 / (2 v)), Z(x) is f smoothed: the channel is within O(v^2) of
Shannon's bound, and its integrals are as smooth as f, whatever the width. The lattice of `channels` has as many nodes
as the range has widths: a hundred thousand for heavy tails.
"""

from __future__ import annotations

import math

import numpy as np

from ..densities.base import Density
from ..densities.entropy import entropy_panels, gauss_nodes
from .source import ENTROPY

# Places y around each node, in widths; every other one of them checks how smooth the density is on this scale.
_STEP, _REACH = 0.25, 8.5
# Mean relative change of Z and of its second moment with half of the places: more than what all of them leave open.
_SMOOTH = 1e-7
# Edges of panels around a place where the density may not be smooth, in widths.
_AROUND = np.array([-8.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0, 8.0])
_PEAK = math.sqrt(2 * math.pi)


class SmoothChannels:
    """Rates and distortions of these channels for one density.

    Parameters
    ----------
    density : Density
        Of shape (), without point masses.

    Examples
    --------
    >>> import qerror as qe
    >>> rate, mse = SmoothChannels(qe.Gaussian()).at(0.01)
    >>> round(rate + 0.5 * math.log(mse), 7), round(mse / 0.01**2, 5)
    (0.0, 1.0)
    >>> SmoothChannels(qe.Laplace()).at(0.1) is None
    True
    """

    def __init__(self, density: Density) -> None:
        self._density = density
        self._edges = entropy_panels(density)
        # Where the density may have a cusp, the smoothed one bends within a few widths.
        self._cusps = np.concatenate([density.panels(), np.ravel(density.kinks)])

    def at(self, width: float) -> tuple[float, float] | None:
        """Rate in nats and mse of the channel of this width, no less than they are: what its sums leave open is added.

        None where the density is not smooth on its scale.
        """
        around = np.clip(self._cusps[:, None] + width * _AROUND, self._edges[0], self._edges[-1])
        x, weight = gauss_nodes(np.unique(np.append(self._edges, around)))
        mass = weight * np.asarray(self._density.pdf(x))
        x, mass = x[mass > 0], mass[mass > 0]
        sums, coarse = np.zeros((2, x.size)), np.zeros((2, x.size))
        for step, offset in enumerate(np.arange(-_REACH, _REACH + _STEP / 2, _STEP)):
            part = _STEP / _PEAK * math.exp(-0.5 * offset**2) * np.asarray(self._density.pdf(x + offset * width))
            sums += [part, offset**2 * part]
            coarse += [2 * part, 2 * offset**2 * part] if step % 2 else 0.0
        z, square = sums
        unsure = float((mass * np.abs(coarse - sums) / z).sum())
        if unsure > _SMOOTH:
            return None
        # The kernel is normalized here: its peak is 1 in the formula of `channels`.
        moment = math.fsum(mass * square / z)
        logs = math.fsum(mass * np.log(z)) + math.log(_PEAK * width)
        return unsure + ENTROPY - logs - 0.5 * moment, width**2 * (moment + unsure)
