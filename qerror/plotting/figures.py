"""The figures of the notebooks by name."""

from __future__ import annotations

import html
import inspect
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from .._check import suggest
from . import blocks, certificates, coded, floating, limits, models, tensors, uniform
from .style import style

FIGURES: dict[str, Callable[[], Figure]] = {
    "uniform_error": uniform.error_of_integers,
    "uniform_clip": uniform.clip_against_bits,
    "uniform_integers": uniform.which_integer_grid,
    "uniform_octav": uniform.octav_curve,
    "floating_levels": floating.statqat_levels,
    "floating_sqnr": floating.statqat_sqnr,
    "floating_landscapes": floating.fp8_landscapes,
    "floating_fp8_study": floating.fp8_study,
    "floating_best_split": floating.best_split,
    "codebooks_bits": coded.codebooks_against_bits,
    "codebooks_formats": coded.formats_of_four_bits,
    "blocks_conventions": blocks.mxfp4_conventions,
    "blocks_tensor_scale": blocks.nvfp4_tensor_scale,
    "blocks_codebooks": blocks.codebooks_by_block_size,
    "blocks_bits": blocks.formats_by_bits,
    "limits_ladders": limits.ladders_of_formats,
    "limits_formats": limits.formats_below_the_limit,
    "limits_coded": limits.coded_formats,
    "tensors_theory": tensors.theory_against_data,
    "tensors_rules": tensors.rules_on_tensors,
    "tensors_report": tensors.tensors_report,
    "certificates_pieces": certificates.pieces_of_scales,
    "models_error": models.model_errors,
    "models_lost": models.lost_by_models,
    "models_simulated": models.predictions_and_simulations,
    "models_audit": models.audit_picture,
}


def draw(name: str) -> Figure:
    """Draw one figure.

    Parameters
    ----------
    name : str
        One of `FIGURES`.

    Raises
    ------
    ValueError
        If there is no such figure; near matches are shown.

    Examples
    --------
    >>> len(draw("uniform_clip").axes)
    1
    """
    check_figure(name)
    with style():
        return FIGURES[name]()


def check_figure(name: str) -> None:
    """Raise unless there is a figure of that name."""
    if name not in FIGURES:
        raise ValueError(f"there is no figure {name!r}{suggest(name, FIGURES) or '; there are ' + ', '.join(FIGURES)}")


@dataclass(frozen=True)
class FigureCode:
    """The function that draws a figure, as a page shows it: folded."""

    name: str
    source: str

    def __repr__(self) -> str:
        drawing = FIGURES[self.name]
        return f"{self.name}: {drawing.__module__}.{drawing.__name__}"

    def _repr_html_(self) -> str:
        return f"<details><summary>{self!r}</summary><pre>{html.escape(self.source)}</pre></details>"


def code_of(name: str) -> FigureCode:
    """The code of one figure.

    Parameters
    ----------
    name : str
        One of `FIGURES`.

    Raises
    ------
    ValueError
        If there is no such figure.

    Examples
    --------
    >>> code_of("uniform_clip")
    uniform_clip: qerror.plotting.uniform.clip_against_bits
    """
    check_figure(name)
    return FigureCode(name, inspect.getsource(FIGURES[name]))
