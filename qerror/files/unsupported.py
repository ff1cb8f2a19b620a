"""Files that are not read: what they are, and what their owner can do."""

import difflib
import json
from pathlib import Path

# How a file of another kind begins, and what its owner can do.
_FOREIGN = {
    b"GGUF": "a GGUF file; use the .safetensors file that it was made from",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file; save its arrays with numpy.savez",
    b"version https://git-lfs.github.com/spec": "a Git LFS pointer, not the file itself; run `git lfs pull`",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
}
PICKLED = (
    "a pickle, which is never loaded because it can run any code; in a place that you trust load it "
    "and save its tensors with safetensors.torch.save_file or numpy.savez"
)


def first_bytes(file: Path) -> bytes:
    """Read how a file begins, or say why that is not possible."""
    if file.is_dir():
        inside = sorted(entry.name for entry in file.iterdir() if entry.suffix in (".safetensors", ".npy", ".npz"))
        hint = f"name one file in it, such as {inside[0]!r}" if inside else "name a file"
        raise ValueError(f"path is the folder {str(file)!r}; {hint}")
    try:
        with file.open("rb") as stream:
            return stream.read(64)
    except FileNotFoundError:
        near = difflib.get_close_matches(file.name, _names_beside(file), n=3)
        hint = f"near it are {', '.join(map(repr, near))}" if near else "check the path"
        raise ValueError(f"there is no file {str(file)!r}; {hint}") from None
    except OSError as error:
        raise ValueError(f"{str(file)!r} cannot be read: {error.strerror}") from None


def _names_beside(file: Path) -> list[str]:
    return [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []


def foreign_kind(file: Path, start: bytes) -> str:
    """Say what a file is that is none of ours, and what to do."""
    if not start:
        return "empty; fetch it again"
    for magic, kind in _FOREIGN.items():
        if start.startswith(magic):
            return kind
    if start[0] == 0x80 and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return PICKLED
    shards = _shards(file) if start.lstrip().startswith(b"{") else []
    if shards:
        return f"an index of {len(shards)} files; open one of them, such as {shards[0]!r}"
    return f"no .safetensors, .npy or .npz file (it begins with {start[:8]!r}), or it is truncated; give one of these"


def _shards(file: Path) -> list[str]:
    """Names of the files that a model.safetensors.index.json divides a model into."""
    try:
        return sorted(set(json.loads(file.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
