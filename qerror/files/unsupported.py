"""Files that are not read: what they are, and what their owner can do."""

from .sources import Source

# How a file of another kind begins, and what its owner can do.
_FOREIGN = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file; save its arrays with numpy.savez",
    b"version https://git-lfs.github.com/spec": "a Git LFS pointer, not the file itself; run `git lfs pull`",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
}
PICKLED = (
    "a pickle, which is never loaded because it can run any code; with pip install 'qerror[torch]' its tensors are "
    "read without running any, or load it in a place that you trust and save them with safetensors.torch.save_file"
)
_TEXTS = {
    b"<!DOCTYPE": "a web page: the download was answered with one; fetch the file itself",
    b"<html": "a web page: the download was answered with one; fetch the file itself",
    b"{": "a JSON file without the weight_map of an index; give the index or the tensors' file",
}


def first_bytes(file: Source) -> bytes:
    """Read how a file begins."""
    return file.read(0, min(64, file.size)).tobytes()


def is_pickle(start: bytes) -> bool:
    """Whether a file begins as pickles do: the mark of a protocol."""
    return start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def foreign_kind(file: Source, start: bytes) -> str:
    """Say what a file is that is none of ours, and what to do."""
    if not start:
        return "empty; fetch it again"
    for magic, kind in (*_FOREIGN.items(), *_TEXTS.items()):
        if start.lstrip()[: len(magic)].lower() == magic.lower() if magic in _TEXTS else start.startswith(magic):
            return kind
    known = ".safetensors, .npy, .npz, .gguf or .onnx"
    return f"no {known} file (it begins with {start[:8]!r}), or it is truncated; give one of these"
