"""Files that are not read: what they are, and what their owner can do."""

from pathlib import Path

from .._check import listed, near_names, shown
from .headers import parse_json

# How a file of another kind begins, and what its owner can do.
_FOREIGN = {
    b"GGUF": "a GGUF file; use the .safetensors file that it was made from",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file; save its arrays with numpy.savez",
    b"version https://git-lfs.github.com/spec": "a Git LFS pointer, not the file itself; run `git lfs pull`",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
}
# Far above the index of the largest model; a file that is none should not be read into memory to see that.
_LONGEST_INDEX = 100_000_000
PICKLED = (
    "a pickle, which is never loaded because it can run any code; in a place that you trust load it "
    "and save its tensors with safetensors.torch.save_file or numpy.savez"
)


def first_bytes(file: Path) -> bytes:
    """Read how a file begins, or say why that is not possible."""
    try:
        folder = file.is_dir()
        if not folder:
            with file.open("rb") as stream:
                return stream.read(64)
    except FileNotFoundError:
        near = near_names(file.name, _names_in(file.parent))
        hint = f"near it are {listed(near)}" if near else "check the path"
        raise ValueError(f"there is no file {shown(file)}; {hint}") from None
    except OSError as error:
        raise ValueError(f"{shown(file)} cannot be read: {error.strerror}") from None
    except ValueError:
        # Zero bytes and half surrogates: the operating system has no such names.
        raise ValueError(f"path must be the name of a file, got {shown(file)}") from None
    inside = sorted(name for name in _names_in(file) if name.endswith((".safetensors", ".npy", ".npz")))
    hint = f"name one file in it, such as {shown(inside[0])}" if inside else "name a file"
    raise ValueError(f"path is the folder {shown(file)}; {hint}")


def _names_in(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []


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
        return f"an index of {len(shards)} files; open one of them, such as {shown(shards[0])}"
    return f"no .safetensors, .npy or .npz file (it begins with {start[:8]!r}), or it is truncated; give one of these"


def _shards(file: Path) -> list[str]:
    """Names of the files that a model.safetensors.index.json divides a model into."""
    try:
        if file.stat().st_size > _LONGEST_INDEX:
            return []
        return sorted(set(parse_json(file.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
