"""What quantization costs the weights of a network: measured, and predicted from their distributions."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import nn

from .._types import Array
from ..densities.parametric import Gaussian
from ..errors.quantization import quantization_error
from ..grids.grid import Grid
from ..samples.empirical import Empirical
from ..tensors.fitting import evaluate
from .exporting import weights_of

_CELLS = 1 << 20


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """Signal to quantization noise of one weight, dB.

    Attributes
    ----------
    name : str
        Of the parameter.
    grid, rule : str
    measured_db : float
        From the tensors that the network uses.
    empirical_db : float
        Predicted from the weights' distribution, exactly, at the scales in use; of 16-bit parameters with the
        representable values rounded to 16 bits, as the network has them.
    gaussian_db : float
        Predicted from a Gaussian of the mean and the standard deviation of each group, at the same scales.
    optimal_db : float
        With the best scales instead.
    """

    name: str
    grid: str
    rule: str
    measured_db: float
    empirical_db: float
    gaussian_db: float
    optimal_db: float

    @property
    def gaussian_error_db(self) -> float:
        """By how much the Gaussian prediction is too high."""
        return self.gaussian_db - self.measured_db


def weight_report(model: nn.Module) -> list[LayerReport]:
    """Predicted and measured SQNR of every quantized weight of a prepared network.

    SQNR = 10 log10(sum w^2 / sum (Q(w) - w)^2) over the whole weight.

    Parameters
    ----------
    model : nn.Module
        Of `prepare`.

    Returns
    -------
    list of LayerReport
        In the order of the layers.

    Examples
    --------
    >>> import torch
    >>> from qerror.training import FakeQuantize, prepare
    >>> _ = torch.manual_seed(0)
    >>> row = weight_report(prepare(torch.nn.Linear(64, 64), weight=FakeQuantize("int4", rule="minmax")))[0]
    >>> abs(row.measured_db - row.empirical_db) < 0.001
    True
    """
    rows = []
    for name, (weight, quantizer) in weights_of(model).items():
        training = quantizer.training
        with torch.no_grad():
            rounded = quantizer.eval()(weight)
        quantizer.train(training)
        x, y = (t.detach().double().cpu().numpy() for t in (weight, rounded))
        layout, grid = quantizer.layout, quantizer.grid
        scale = quantizer.used_scale().detach().double().cpu().numpy()
        shift = np.zeros(()) if quantizer.shift is None else quantizer.shift.double().cpu().numpy()
        # A block format brings its block size.
        size, at = None if quantizer.form else layout.block_size, layout.block_axis
        found = evaluate(x, quantizer.form or grid, scale, shift, axis=layout.axis, block_size=size, block_axis=at)
        measured = _db(np.square(x).sum(), np.square(x - y).sum())
        s, z = (np.concatenate(found.groups.split(value)) for value in (scale, shift))
        parts = found.groups.rows(x)
        gaussian = _gaussian_db(parts, s, z, grid)
        best = float(found.total.sqnr_db) + found.total_excess_db
        empirical = float(found.total.sqnr_db) if weight.itemsize > 2 else _narrow_db(parts, s, z, grid, weight.dtype)
        said = str((quantizer.form or grid).name or grid)
        rows.append(LayerReport(name, said, quantizer.rule, measured, empirical, gaussian, best))
    return rows


def _narrow_db(parts: list[Array], scale: Array, shift: Array, grid: Grid, dtype: torch.dtype) -> float:
    """SQNR where the representable values are rounded to 16 bits: second moments of the cells about these values."""
    power = mse = 0.0
    first = 0
    for part in parts:
        # Rows of which the cells fill some tens of megabytes.
        for rows in np.array_split(part, -(-len(part) * len(grid) // _CELLS)):
            s, z = (each[first : first + len(rows)] for each in (scale, shift))
            # Sorted: the scales of signed formats may be negative.
            values = z + np.sort(s * grid.levels[:, None], axis=0)
            rounded = torch.from_numpy(values.astype(np.float32)).to(dtype).double().numpy()
            edges = np.pad(z + np.sort(s * grid.thresholds[:, None], axis=0), ((1, 1), (0, 0)), constant_values=np.inf)
            edges[0] = -np.inf
            mse += Empirical(rows, axis=0).moments(edges[:-1], edges[1:], rounded)[2].sum() * rows.shape[1]
            power += np.square(rows).sum()
            first += len(rows)
    return _db(power, mse)


def _gaussian_db(parts: list[Array], scale: Array, shift: Array, grid: Grid) -> float:
    means, stds, sizes = (
        np.concatenate([f(part) for part in parts])
        for f in (lambda p: p.mean(axis=1), lambda p: p.std(axis=1), lambda p: np.full(len(p), p.shape[1]))
    )
    used = (stds > 0) & (scale != 0)
    if not used.any():
        return float("nan")
    # A negative scale, whose shift is 0, turns the density around; blocks of scale 0 lose all they are.
    gaussian = Gaussian(means[used] * np.sign(scale[used]), stds[used])
    error = quantization_error(gaussian, grid, np.abs(scale[used]), shift[used])
    gone = (np.square(means) + np.square(stds))[scale == 0] @ sizes[scale == 0]
    return _db((error.power * sizes[used]).sum() + gone, (error.mse * sizes[used]).sum() + gone)


def _db(power: float, mse: float) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(10 * np.log10(np.float64(power) / np.float64(mse)))
