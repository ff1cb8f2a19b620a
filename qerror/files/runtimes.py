"""The layouts that there are, by name."""

from __future__ import annotations

from .._check import check_choice
from .compressed_tensors import CompressedTensors
from .encodings import Layout
from .gguf_writing import Gguf
from .modelopt import ModelOpt
from .npz_writing import Npz
from .onnx_writing import OnnxQdq

_EVERY: tuple[Layout, ...] = (CompressedTensors(), ModelOpt(), Gguf(), OnnxQdq(), Npz())
LAYOUTS = {layout.name: layout for layout in _EVERY}


def layout_named(name: str) -> Layout:
    """The layout of a name.

    Raises
    ------
    ValueError
        If there is none.
    """
    return LAYOUTS[check_choice("layout", name, tuple(LAYOUTS))]
