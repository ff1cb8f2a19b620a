"""What lies beside the tensors of a checkpoint: its configuration, its tokenizer, licences and code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from .._check import shown
from .._files import atomic_open
from .headers import parse_json
from .mapping import Checkpoint
from .sources import LocalFile

_CONFIG = "config.json"
# Files of tensors, of this checkpoint or of others beside it, and their indices.
_TENSORS = (".safetensors", ".gguf", ".npz", ".npy", ".onnx", ".pt", ".pth", ".bin", ".h5", ".msgpack", ".index.json")
# Written anew, or about a quantization that is no more.
_OWN = (_CONFIG, "qerror_export.json", "hf_quant_config.json", "quantize_config.json", "quant_config.json")


def home_of(checkpoint: Checkpoint) -> Path | None:
    """The folder of a model: that of all its files, if it was named or has a config.json; else None."""
    folders = {file.path.parent if isinstance(file, LocalFile) else None for file in checkpoint.files}
    home = folders.pop() if len(folders) == 1 else None
    named = home is not None and ((home / _CONFIG).exists() or Path(checkpoint.path).is_dir())
    return home if named else None


def read_config(home: Path | None) -> dict[str, Any]:
    """What config.json says; empty where there is none.

    Raises
    ------
    ValueError
        If it is no JSON object.
    """
    file = None if home is None else home / _CONFIG
    if file is None or not file.exists():
        return {}
    try:
        config = parse_json(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{shown(file)} is no JSON ({error}); mend it first") from None
    if not isinstance(config, dict):
        raise ValueError(f"{shown(file)} is no JSON object; mend it first")
    return config


def copy_companions(home: Path | None, folder: Path) -> None:
    """Copy what is neither tensors nor hidden, nor about their quantization."""
    for file in sorted(home.iterdir()) if home is not None else ():
        if not file.is_file() or file.name.startswith(".") or file.name.endswith(_TENSORS) or file.name in _OWN:
            continue
        with file.open("rb") as source, atomic_open(folder / file.name) as out:
            shutil.copyfileobj(source, out, 1 << 20)


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write config.json, which makes a folder of tensors a model: last of all."""
    with atomic_open(folder / _CONFIG, "w") as out:
        out.write(json.dumps(config, indent=2) + "\n")
