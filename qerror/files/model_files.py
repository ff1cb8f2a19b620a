"""Which files make up a checkpoint: of a folder, an index, several paths, a pattern or a URL."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from .._check import listed, near_names, shown
from .headers import parse_json
from .sources import LocalFile, RemoteFile, Source, is_url, source_of

# What a folder is searched for, the first kind of which there is one; pickles only where there is nothing else.
_KINDS = (".safetensors", ".gguf", ".npz", ".npy", ".onnx", ".pt", ".pth", ".bin")
_INDEX = ".index.json"
_SHARD = re.compile(r"(.*)\d{5}-of-(\d{5}\.\w+)", re.DOTALL)
# What a folder behind a URL is asked for where it cannot be listed.
_USUAL = ("model.safetensors.index.json", "model.safetensors")
# Far above the index of the largest model; a file that is none should not be read into memory to see that.
_LONGEST_INDEX = 100_000_000


@dataclasses.dataclass(frozen=True)
class Model:
    """The files of a checkpoint.

    Attributes
    ----------
    path : Path or str
        What was asked for.
    files : tuple of Source
    index : mapping of str to str
        Which file has which tensor, where an index says so.
    single : bool
        Whether one file was asked for.
    """

    path: Path | str
    files: tuple[Source, ...]
    index: Mapping[str, str] = dataclasses.field(default_factory=dict)
    single: bool = False


def find_files(path: Any) -> Model:
    """The files that a path means; see `open_checkpoint`.

    Raises
    ------
    ValueError
        If there are none, or it is not clear which.
    """
    if not isinstance(path, str | os.PathLike):
        return _several(path)
    if isinstance(path, str) and is_url(path):
        return _behind_url(path)
    file = Path(path)
    try:
        return _on_disk(file)
    except OSError as error:
        raise ValueError(f"{shown(file)} cannot be read: {error.strerror}") from None
    except ValueError as error:
        # Zero bytes and half surrogates: the operating system has no such names.
        if isinstance(error, UnicodeError) or "null byte" in str(error) or "null character" in str(error):
            raise ValueError(f"path must be the name of a file, got {shown(file)}") from None
        raise


def _on_disk(file: Path) -> Model:
    if file.is_dir():
        return _in_folder(file)
    if not file.exists():
        if glob.has_magic(str(file)):
            return _matching(str(file))
        raise _missing(file)
    with file.open("rb") as stream:
        start = stream.read(1)
    found = _index(file, LocalFile(file)) if start == b"{" and file.stat().st_size <= _LONGEST_INDEX else None
    return Model(file, (LocalFile(file),), single=True) if found is None else found


def _missing(file: Path) -> ValueError:
    near = near_names(file.name, _names_in(file.parent))
    hint = f"near it are {listed(near)}" if near else "check the path"
    return ValueError(f"there is no file {shown(file)}; {hint}")


def _several(paths: Iterable[Any]) -> Model:
    models = [find_files(path) for path in paths]
    if not models:
        raise ValueError("path must name at least one file, got an empty list")
    if len(models) == 1:
        return models[0]
    index: dict[str, str] = {}
    for model in models:
        index.update(model.index)
    names = ", ".join(PurePosixPath(str(model.path)).name for model in models)
    return Model(names, tuple(dict.fromkeys(file for model in models for file in model.files)), index)


def _matching(pattern: str) -> Model:
    names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - a Path has no patterns from the root
    if not names:
        raise ValueError(f"no file matches {shown(pattern)}; check the pattern")
    return Model(pattern, _several(names).files)


def _in_folder(folder: Path) -> Model:
    names = sorted(_names_in(folder))
    indices = [name for name in names if name.endswith(_INDEX)]
    # Of the same tensors those that are no pickles.
    chosen = [name for name in indices if name.endswith(".safetensors" + _INDEX)] or indices
    if len(chosen) > 1:
        raise ValueError(
            f"{shown(folder)} has several indices, {listed(chosen[:4], room=110)}; name the one that you mean"
        )
    if chosen:
        found = _index(folder, LocalFile(folder / chosen[0]))
        if found is None:
            raise ValueError(f"{shown(folder / chosen[0])} is no index: it has no weight_map of texts; fetch it again")
        return found
    for kind in _KINDS:
        inside = [name for name in names if name.endswith(kind)]
        if inside:
            _check_shards(folder, inside)
            return Model(folder, tuple(LocalFile(folder / name) for name in inside))
    below = next((name for name in names if (folder / name).is_dir()), None)
    hint = f"name a folder in it, such as {shown(below)}" if below else "name a file"
    raise ValueError(f"path is the folder {shown(folder)}, which has no checkpoint; {hint}")


def _check_shards(folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder where some are missing of files that say how many they are: half a model looks like a whole."""
    found = Counter(match.expand(r"\1*-of-\2") for name in names if (match := _SHARD.fullmatch(name)))
    for pattern, there in found.items():
        wanted = int(pattern.rpartition("-of-")[2].partition(".")[0])
        if there < wanted:
            raise ValueError(
                f"{shown(folder)} has {there} of {wanted} files {shown(pattern, 60)}; fetch the others, or name the "
                "files that you mean"
            )


def _index(path: Path | str, source: Source) -> Model | None:
    """What an index names, the files beside it; None where it is none."""
    try:
        entries = parse_json(source.read(0, source.size).tobytes())["weight_map"]
        files = sorted(set(entries.values()))
        sound = bool(files) and all(isinstance(name, str) for name in files)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if not sound:
        return None
    bad = next((name for name in files if PurePosixPath(name).name != name or "\\" in name or name in ("", "..")), None)
    if bad is not None:
        raise ValueError(
            f"the index {shown(source.name)} names {shown(bad, 60)}, which is no file beside it; fetch it again"
        )
    base = (
        source.name[: -len(PurePosixPath(source.name.partition("?")[0]).name)] if isinstance(source, RemoteFile) else ""
    )
    beside: Sequence[Source] = [RemoteFile(base + name) for name in files]
    if isinstance(source, LocalFile):
        beside = [LocalFile(source.path.parent / name) for name in files]
        gone = [file.path.name for file in beside if isinstance(file, LocalFile) and not file.path.exists()]
        if gone:
            count = f"{len(gone)} of {len(files)} files that {shown(source.path)} names are not there"
            raise ValueError(f"{count}, such as {shown(gone[0], 60)}; fetch them")
    return Model(path, tuple(beside), entries)


def _behind_url(url: str) -> Model:
    if glob.has_magic(url.partition("?")[0]) and "?" not in url:
        return _matching_url(url)
    if url.endswith("/"):
        for name in _USUAL:
            try:
                return _behind_url(url + name)
            except ValueError:
                continue
        raise ValueError(f"{shown(url)} has neither {' nor '.join(_USUAL)}; name a file or an index")
    source = source_of(url)
    if url.partition("?")[0].endswith(".json") and source.size <= _LONGEST_INDEX:
        found = _index(url, source)
        if found is not None:
            return found
    return Model(url, (source,), single=True)


def _matching_url(pattern: str) -> Model:
    source = RemoteFile(pattern)
    fs, path = source._place
    names = sorted(fs.glob(path))
    if not names:
        raise ValueError(f"no file matches {shown(pattern)}; check the pattern")
    return Model(pattern, tuple(RemoteFile(fs.unstrip_protocol(name)) for name in names))


def _names_in(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
