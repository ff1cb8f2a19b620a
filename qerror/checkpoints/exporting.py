"""`export`: a checkpoint whose weights are quantized, as files that runtimes load."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import plain, shown
from .._version import __version__
from ..files.checkpoint import Where, open_checkpoint
from ..files.elements import TensorInfo, is_real
from ..files.encodings import Encoding, Layout, stored_elements
from ..files.mapping import Checkpoint
from ..files.quantized_weights import dequantized
from ..files.runtimes import layout_named
from ..files.scales import check_apart
from ..files.shards import Entry
from ..files.weight_formats import KEEP, PLAIN, weight_format
from ..rules import as_rule
from .assignment import assigned, check_format, formats_of
from .encoding import Encoder, Part, content
from .export_folder import PARTS, ExportedTensor, alone, begin, finish
from .fitting import Largest, stored_size
from .globs import grouped_names
from .pieces import DEFAULT_MEMORY, bits_of
from .planning import Plan
from .recipe import Recipe
from .tasks import absolute
from .weights import Weights

# Elements of a tensor that is copied or cast, at a time.
_PIECE = 1 << 22


def export(
    model: Where,
    output: str | os.PathLike[str],
    *,
    layout: str = "compressed-tensors",
    plan: str | os.PathLike[str] | Plan | Mapping[str, str] | None = None,
    format: str | None = None,
    rule: str = "optimal",
    sign: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    together: Sequence[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    memory: float = DEFAULT_MEMORY,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[ExportedTensor]:
    """Write a checkpoint with quantized weights that a runtime loads.

    Scales are fitted to be stored: the best of those that the layout can hold, with codes for the scales as they are
    stored, so that what the runtime computes is what `qerror.dequantize` gives. Tensors that keep their format are
    copied bit for bit. Rows by rows a weight becomes a part in `output`, which is not made again: the same call resumes
    one that was interrupted or killed, and while one process is at it another is refused. Files appear when they are
    whole, config.json last. Weights that are quantized already (`qerror.files.quantized_weights`) are dequantized
    first.

    Parameters
    ----------
    model : path-like or sequence
        As in `qerror.files.open_checkpoint`.
    output : path-like
        A folder: new, empty, or of the same export.
    layout : {"compressed-tensors", "modelopt", "gguf", "onnx-qdq", "npz"}
        What runtimes call it: for vLLM and transformers the first, for llama.cpp (of a model in GGUF) the third, for
        ONNX Runtime (of a model in ONNX) the fourth. The last are NumPy's arrays.
    plan : path-like or mapping, optional
        A plan of `qerror plan` (JSON), or the format of each tensor by name.
    format : str, optional
        Instead of a plan: one for all weights but embeddings, heads, routers and norms (`include` names others), as in
        int4_g128, int8:axis=0, e4m3fn:axis=0, nvfp4, mxfp4.
    rule : str
        How scales are chosen; see `qerror.fit`.
    sign : {"positive", "either"}, optional
        Whether scales of integers may be negative, which reaches the eighth step of int4 on either side. None: as the
        layout's own quantizer has it. transformers loads such files exactly; kernels of GPUs have not been tried.
    include, exclude : sequence of str
        Patterns of tensors to quantize, and to keep.
    together : sequence of str, optional
        Patterns of weights that a runtime fuses: one format, and of NVFP4 one tensor scale. None: those of the layout.
    weights : path-like, optional
        Importance of a tensor's columns: a file with NAME or NAME.weights, or an imatrix in GGUF.
    memory : float
        Bytes that may be used.
    progress : callable, optional
        Called as progress(tensor, bytes done since, bytes in all).

    Returns
    -------
    list of ExportedTensor

    Raises
    ------
    ValueError
        Before anything is computed: if a weight cannot be stored so, or fused weights differ.

    Examples
    --------
    >>> import tempfile, qerror as qe
    >>> folder = Path(tempfile.mkdtemp())
    >>> done = export(qe.files.example_checkpoint(), folder, format="int8:axis=0", include=["layers.*.weight"])
    >>> [(each.info.name, each.format, round(each.bits, 2)) for each in done][:2]
    [('layers.0.weight', 'int8:axis=0', 8.52), ('layers.0.bias', 'keep', 32.0)]
    >>> qe.files.list_tensors(folder)[0]
    TensorInfo(name='layers.0.weight_packed', shape=(96, 16), dtype='I32')
    """
    target, kind = Path(output), layout_named(layout)
    as_rule(rule)
    if format is not None:
        check_format(format)
    chosen = None if plan is None else formats_of(plan)
    patterns = tuple(kind.together if together is None else together)
    weigh = None if weights is None else Weights(str(absolute(weights)))
    with open_checkpoint(model) as opened:
        checkpoint = dequantized(opened)
        check_apart(target, checkpoint.files)
        formats = assigned(
            checkpoint.tensors, plan=chosen, format=format, include=include, exclude=exclude, suffix=kind.suffix
        )
        encodings = _encodings(checkpoint, kind, formats, patterns, sign)
        if weigh is not None and not weigh.names(list(encodings)):
            raise ValueError(f"weights {shown(weights)} has none for any tensor to quantize")
        kinds = {name: each.kind for name, each in encodings.items()}
        kept = [
            dataclasses.replace(info, dtype=_tag(info, formats))
            for info in checkpoint.tensors
            if info.name not in kinds
        ]
        _check_names([*kept, *(info for each in encodings.values() for info in each.stored)])
        kind.check(checkpoint, kept, kinds)
        scaled = [name for name, each in encodings.items() if Recipe((each.grid,)).full_scale(each.grid) is not None]
        largest = Largest(checkpoint, scaled, Recipe((), together=patterns))
        encoder = Encoder(checkpoint, target / PARTS, rule, largest, weigh, memory)
        encoder.check(encodings)
        said = {"version": 1, "qerror": __version__, "layout": layout, "rule": rule, "sign": sign}
        said |= {"together": list(patterns), "weights": weigh and weigh.stamp, "formats": formats}
        said["files"] = _stamps(checkpoint)
        known = begin(target, said)
        if known is not None:
            return known
        with alone(target):
            # It may have been finished since.
            known = begin(target, said)
            if known is not None:
                return known
            return _make(checkpoint, target, kind, formats, encodings, encoder, said, progress)


def _encodings(
    checkpoint: Checkpoint, layout: Layout, formats: Mapping[str, str], patterns: Sequence[str], sign: str | None
) -> dict[str, Encoding]:
    """How each quantized weight is stored; all that cannot be is said before anything is computed."""
    for names in set(grouped_names([i.name for i in checkpoint.tensors if len(i.shape) > 1], patterns).values()):
        different = next((name for name in names if formats[name] != formats[names[0]]), None)
        if different is not None:
            both = [f"{shown(name, 60)} is {formats[name]}" for name in (names[0], different)]
            raise ValueError(
                f"{' and '.join(both)}: runtimes make one matrix of them; plan with --together, or give one format"
            )
    found = {}
    for name, text in formats.items():
        info = checkpoint.info(name)
        if text == KEEP or text in PLAIN:
            if not is_real(info.dtype) and text in PLAIN:
                raise ValueError(f"{shown(name, 60)} has element type {plain(info.dtype, 20)}, not {text}; keep it")
            continue
        try:
            found[name] = layout.encoding(info, weight_format(text), sign)
        except ValueError as error:
            raise ValueError(
                f"{shown(name, 60)} cannot be stored: {error}; leave it out (--exclude; in a plan --keep)"
            ) from None
    return found


def _make(
    checkpoint: Checkpoint,
    target: Path,
    layout: Layout,
    formats: Mapping[str, str],
    encodings: Mapping[str, Encoding],
    encoder: Encoder,
    said: Mapping[str, Any],
    progress: Callable[[str, int, int], None] | None,
) -> list[ExportedTensor]:
    total = sum(stored_size(checkpoint.info(name)) for name in encodings)
    entries: list[Entry] = []
    done: list[ExportedTensor] = []
    for info in checkpoint.tensors:
        encoding = encodings.get(info.name)
        if encoding is None:
            tag = _tag(info, formats)
            entries.append(_copied(checkpoint, info, tag))
            done.append(ExportedTensor(info, formats[info.name], float(bits_of(TensorInfo("", (), tag)))))
            continue
        heard = functools.partial(_heard, progress, info.name, total)
        parts = encoder.parts(info, encoding, heard)
        entries += [Entry(each, functools.partial(content, parts, encoding, each.name)) for each in encoding.stored]
        done.append(_measured(info, formats[info.name], encoding, parts))
    _check_unchanged(checkpoint, said["files"])
    layout.write(target, entries, checkpoint, {name: each.kind for name, each in encodings.items()})
    _check_unchanged(checkpoint, said["files"])
    finish(target, said, done)
    return done


def _stamps(checkpoint: Checkpoint) -> list[str]:
    return sorted({checkpoint.stamp(info.name) for info in checkpoint.tensors})


def _check_unchanged(checkpoint: Checkpoint, stamps: Sequence[str]) -> None:
    if _stamps(checkpoint) != list(stamps):
        raise ValueError(f"{shown(checkpoint.path)} has changed while it was read; export it again")


def _check_names(infos: Sequence[TensorInfo]) -> None:
    """Refuse two tensors of one name."""
    twice = [name for name, count in Counter(info.name for info in infos).items() if count > 1]
    if twice:
        raise ValueError(f"{shown(twice[0], 60)} is there already, and what belongs to a quantized weight is called so")


def _tag(info: TensorInfo, formats: Mapping[str, str]) -> str:
    """Element type of a tensor that is not quantized."""
    return PLAIN.get(formats[info.name], info.dtype)


def _heard(progress: Callable[[str, int, int], None] | None, name: str, total: int, size: int) -> None:
    if progress is not None:
        progress(name, size, total)


def _measured(info: TensorInfo, text: str, encoding: Encoding, parts: Sequence[Part]) -> ExportedTensor:
    weight = math.fsum(part.weight for part in parts)
    power, mse = (math.fsum(getattr(part, name) for part in parts) / weight for name in ("power", "mse"))
    return ExportedTensor(info, text, encoding.bits / info.size, power, mse)


def _copied(checkpoint: Checkpoint, info: TensorInfo, tag: str) -> Entry:
    """A tensor as it is, or as elements of another type."""

    def pieces() -> Iterator[NDArray[Any]]:
        for start in range(0, info.size, _PIECE):
            end = min(start + _PIECE, info.size)
            if tag == info.dtype:
                yield checkpoint.raw(info.name, start, end)
            else:
                yield np.asarray(stored_elements(checkpoint.part(info.name, start, end), tag))

    return Entry(TensorInfo(info.name, info.shape, tag), pieces)
