"""What the commands compute on: a named density, or one tensor of a file."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import qerror as qe

from .._check import plain, shown
from ..files import Checkpoint, TensorInfo, open_checkpoint
from .render import say
from .words import DENSITIES, TENSORS


@dataclass(frozen=True)
class Source:
    """A density, the words for it in titles, and the tensor that it is of."""

    density: Any
    title: str
    tensor: NDArray[Any] | None = None


@dataclass(frozen=True)
class Request:
    """What every computing command is asked: on what, by which model and rounding, for whom to read."""

    source: Source
    model: str
    rounding: str
    as_json: bool


_SOURCE = [
    click.option(
        "--density",
        metavar="NAME",
        type=DENSITIES,
        help="A density by name and parameters: gaussian (the default), laplace, student-t:df=5, ...",
    ),
    click.option(
        "--data", metavar="FILE", type=click.Path(path_type=Path), help="A .safetensors, .npy or .npz file instead."
    ),
    click.option(
        "--tensor", metavar="NAME", type=TENSORS, help="The tensor in FILE; may be left out if there is only one."
    ),
]
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits instead of a table.")


def on_source(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a density or a tensor, as `source`, and `as_json`."""

    @functools.wraps(command)
    def with_source(*args: Any, density: str | None, data: Path | None, tensor: str | None, **own: Any) -> None:
        command(*args, source=load_source(density, data, tensor), **own)

    options = [*_SOURCE, _JSON]
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), with_source)


def computes(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that all computing commands share; it receives them as one `request`."""

    @functools.wraps(command)
    def with_request(
        *args: Any,
        density: str | None,
        data: Path | None,
        tensor: str | None,
        model: str,
        rounding: str,
        as_json: bool,
        **own: Any,
    ) -> None:
        command(*args, request=Request(load_source(density, data, tensor), model, rounding, as_json), **own)

    options = [
        *_SOURCE,
        click.option(
            "--model",
            type=click.Choice(["exact", "high_resolution"]),
            default="exact",
            show_default=True,
            help="The true integrals, or the approximation by step^2/12 (StatQAT, ACIQ).",
        ),
        click.option("--rounding", type=click.Choice(["nearest", "stochastic"]), default="nearest", show_default=True),
        _JSON,
    ]
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), with_request)


def load_source(density: str | None, data: Path | None, tensor: str | None) -> Source:
    """Make the density that the options ask for.

    Raises
    ------
    ValueError
        If the options contradict one another, or name something that is not there.
    """
    if data is None:
        if tensor is not None:
            raise ValueError(f"--tensor needs the file that holds it: --data FILE --tensor {tensor}")
        named = qe.density(density or "gaussian")
        return Source(named, f"{named.name}: mean {float(named.mean):.6g}, std {float(named.std):.6g}")
    if density is not None:
        raise ValueError(f"give --density or --data, not both; got --density {density} and --data {shown(data)}")
    with open_checkpoint(data) as checkpoint:
        info = _choose(checkpoint, tensor)
        values = _values(checkpoint, info)
        sample = qe.Empirical(values.ravel())
    shape = "x".join(map(str, info.shape)) or "scalar"
    words = f"{plain(data.name)} {plain(info.name)} ({info.dtype}, {shape})"
    return Source(sample, f"{words}: mean {float(sample.mean):.6g}, std {float(sample.std):.6g}", values)


def _values(checkpoint: Checkpoint, info: TensorInfo) -> NDArray[Any]:
    """Elements of a tensor; float16 stays so, because its few distinct values are counted instead of sorted."""
    return checkpoint.bits(info.name).view(np.float16) if info.dtype == "F16" else checkpoint[info.name]


def _choose(checkpoint: Checkpoint, name: str | None) -> TensorInfo:
    if name is not None:
        return checkpoint.info(name)
    if len(checkpoint.tensors) == 1:
        return checkpoint.tensors[0]
    names = [plain(info.name) for info in checkpoint.tensors]
    width = max(map(len, names), default=0)
    for name_shown, info in zip(names, checkpoint.tensors, strict=True):
        shape = "x".join(map(str, info.shape)) or "scalar"
        click.echo(f"{name_shown:<{width}}  {plain(info.dtype, 40):<8}  {shape}", err=True)
    for member, reason in checkpoint.skipped.items():
        say(f"{plain(member)} is left out: {reason}", err=True)
    raise ValueError(f"--tensor must name one of the {len(checkpoint)} tensors of {shown(checkpoint.path)}")
