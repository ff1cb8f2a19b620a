"""Reading tensors from files: exact values, nothing read that was not asked for, and clear words for bad files."""

import difflib
import io
import json
import os
import pickle
import random
import re
import struct
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import qerror as qe
from qerror import _files
from qerror.checkpoints import recipe
from qerror.files import example_checkpoint, list_tensors, open_checkpoint, read_quantized, read_tensor, zipped
from qerror.files.scales import read_scales

FLOAT8 = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}
REAL_DATA = Path(os.environ.get("QERROR_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_real_data = pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason="the folder of real data is not there; QERROR_DATA names it"
)


def write_raw(path, tensors, *, header=None, cut=0, extra=b""):
    """Write a .safetensors file byte by byte, so that it may be wrong in every way."""
    entries, data = {}, b""
    for name, (tag, shape, content) in tensors.items():
        entries[name] = {"dtype": tag, "shape": list(shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(entries if header is None else header).encode() if not isinstance(header, bytes) else header
    whole = struct.pack("<Q", len(text)) + text + data + extra
    path.write_bytes(whole[: len(whole) - cut])
    return path


def assert_same_bits(actual, expected):
    """Equal values with the sign of zero, NaN equal to NaN."""
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(np.signbit(actual)[~np.isnan(expected)], np.signbit(expected)[~np.isnan(expected)])


# -- values ------------------------------------------------------------------------------------------------------------


def test_the_usual_types_agree_with_the_safetensors_library(tmp_path):
    rng = np.random.default_rng(1)
    arrays = {
        "a": rng.standard_normal((3, 5)),
        "b": rng.standard_normal((2, 0, 4)).astype(np.float32),
        "c": rng.standard_normal((7,)).astype(np.float16),
        "d": np.array(2.5, dtype=np.float32),
        "e": np.arange(6, dtype=np.int64).reshape(2, 3),
    }
    safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors", metadata={"made": "here"})
    with open_checkpoint(tmp_path / "x.safetensors") as checkpoint:
        assert dict(checkpoint.metadata) == {"made": "here"}
        assert sorted(checkpoint) == sorted(arrays)
        assert len(checkpoint) == 5
        for name in "abcd":
            values = checkpoint[name]
            assert values.dtype == (np.float64 if name == "a" else np.float32)
            assert values.shape == arrays[name].shape == checkpoint.info(name).shape
            np.testing.assert_array_equal(values, arrays[name])
        assert checkpoint.info("e").dtype == "I64"
        np.testing.assert_array_equal(checkpoint.bits("e"), arrays["e"])


def test_every_bfloat16_is_exact(tmp_path):
    bits = np.arange(65536, dtype=np.uint16)
    path = write_raw(tmp_path / "x.safetensors", {"w": ("BF16", (256, 256), bits.tobytes())})
    values = read_tensor(path, "w")
    assert values.dtype == np.float32
    assert_same_bits(values.ravel(), bits.view(ml_dtypes.bfloat16).astype(np.float32))
    # The low half is zero, which is how samples of bfloat16 are recognized and counted.
    assert not np.any(values.view(np.uint32) & 0xFFFF)
    with open_checkpoint(path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.bits("w").ravel(), bits)


def test_every_float16_is_exact(tmp_path):
    bits = np.arange(65536, dtype=np.uint16)
    path = write_raw(tmp_path / "x.safetensors", {"w": ("F16", (65536,), bits.tobytes())})
    assert_same_bits(read_tensor(path), bits.view(np.float16).astype(np.float32))
    with open_checkpoint(path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.bits("w").view(np.float16), bits.view(np.float16))


@pytest.mark.parametrize("tag", FLOAT8)
def test_every_float8_is_exact(tmp_path, tag):
    codes = np.arange(256, dtype=np.uint8)
    path = write_raw(tmp_path / "x.safetensors", {"w": (tag, (16, 16), codes.tobytes())})
    values = read_tensor(path, "w")
    assert values.dtype == np.float32
    assert_same_bits(values.ravel(), codes.view(FLOAT8[tag]).astype(np.float32))


def test_tensors_off_their_alignment(tmp_path):
    """A tensor behind one of odd length."""
    values = np.array([1.5, -2.5], dtype=np.float32)
    path = write_raw(tmp_path / "x.safetensors", {"u": ("U8", (1,), b"x"), "w": ("F32", (2,), values.tobytes())})
    assert read_tensor(path, "w").flags.aligned
    np.testing.assert_array_equal(read_tensor(path, "w"), values)


@pytest.mark.parametrize("kind", ["npy", "npz", "npz compressed"])
@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", ">f4"])
def test_numpy_files(tmp_path, kind, dtype):
    values = np.random.default_rng(2).standard_normal((4, 3)).astype(dtype)
    path = tmp_path / f"x.{kind[:3]}"
    if kind == "npy":
        np.save(path, np.asfortranarray(values))
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(path, x=values)
    (info,) = list_tensors(path)
    assert (info.name, info.shape, info.dtype) == ("x", (4, 3), f"F{8 * values.itemsize}")
    read = read_tensor(path)
    assert read.dtype == (np.float64 if dtype == "<f8" else np.float32)
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, values)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.bits("x").dtype == f"u{values.itemsize}"


def test_numpy_shapes_without_elements(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((0, 3), np.float32))
    assert read_tensor(tmp_path / "x.npy").shape == (0, 3)
    np.save(tmp_path / "y.npy", np.float32(1.5))
    assert read_tensor(tmp_path / "y.npy") == np.float32(1.5)


def members(path, **contents):
    """Write a zip file; __ in a name is a dot, arrays are written as NumPy does."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name.replace("__", "."), content if isinstance(content, bytes) else npy(content))
    return path


def npy(*arrays):
    file = io.BytesIO()
    for array in arrays:
        np.save(file, array)
    return file.getvalue()


def test_members_that_are_no_arrays_are_left_out(tmp_path):
    x, y = np.arange(6.0).reshape(2, 3), np.float32([1.5])
    path = members(tmp_path / "x.npz", a__npy=x, readme__txt=b"hello", b=y, empty=b"", c__npy=b"no array at all")
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("folder")
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint) == ["a", "b"]
        np.testing.assert_array_equal(checkpoint["a"], x)
        np.testing.assert_array_equal(checkpoint["b"], y)
        assert checkpoint.skipped == {
            "readme.txt": "no NumPy array",
            "empty": "empty",
            "c.npy": "no NumPy array",
            "folder/": "a folder",
        }
    # An encrypted member (bit 0 of the flags in its directory entry): one that may be an array is never left out.
    for name in ("readme.txt", "a.npy"):
        content = bytearray(path.read_bytes())
        entry = content.rindex(name.encode()) - 46
        assert content[entry : entry + 4] == b"PK\x01\x02"
        content[entry + 8] |= 1
        (tmp_path / name).write_bytes(content)
    assert open_checkpoint(tmp_path / "readme.txt").skipped["readme.txt"] == "not readable"
    with pytest.raises(ValueError, match=r"member 'a.npy' of '.*' is not a sound NumPy array file \(.*password"):
        open_checkpoint(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_several_arrays_in_one_file(tmp_path, kind):
    """As repeated calls of np.save write them, Equinox among others."""
    arrays = [np.arange(5, dtype=np.int8), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.float32(2.5)]
    arrays += [np.zeros((0, 2), np.float32), np.arange(3, dtype=">f4"), np.arange(4000.0)]
    if kind == "npy":
        path = tmp_path / "m.eqx"
        path.write_bytes(npy(*arrays))
    else:
        path = members(tmp_path / "x.npz", m__npy=npy(*arrays))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint) == ["m", "m.1", "m.2", "m.3", "m.4", "m.5"]
        np.testing.assert_array_equal(checkpoint.bits("m"), arrays[0])
        for name, expected in list(zip(checkpoint, arrays, strict=True))[1:]:
            assert checkpoint[name].shape == expected.shape
            assert checkpoint[name].flags.aligned
            np.testing.assert_array_equal(checkpoint[name], expected)
        # The first starts on its alignment, the others behind its five bytes do not.
        assert np.shares_memory(checkpoint.bits("m"), checkpoint.bits("m")) == (kind == "npy")


def test_one_array_is_a_memory_map(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(9.0))
    values = read_tensor(tmp_path / "x.npy")
    assert not values.flags.writeable
    while values.base is not None and not isinstance(values, np.memmap):
        values = values.base
    assert isinstance(values, np.memmap)


def test_metadata_may_be_null(tmp_path):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = {"__metadata__": None, "w": entry}
    path = write_raw(tmp_path / "x.safetensors", {"w": ("F32", (1,), bytes(4))}, header=header)
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint) == ["w"]
        assert dict(checkpoint.metadata) == {}


# -- laziness ----------------------------------------------------------------------------------------------------------


def test_a_mapped_tensor_is_a_read_only_view_that_outlives_its_checkpoint():
    with open_checkpoint(example_checkpoint()) as checkpoint:
        weight = checkpoint["layers.0.weight"]
        again = checkpoint["layers.0.weight"]
    assert np.shares_memory(weight, again)
    assert not weight.flags.writeable
    assert weight.sum() == again.sum()


def test_listing_reads_only_headers(tmp_path):
    """A file whose tensors take a hundred sparse gigabytes is listed at once."""
    size = 10**11
    text = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + size)
    assert list_tensors(path)[0].size == size


def test_reading_after_the_end():
    with open_checkpoint(example_checkpoint()) as checkpoint:
        pass
    with pytest.raises(ValueError, match=r"the checkpoint '.*' is closed; open it again"):
        checkpoint["layers.0.weight"]


def test_checkpoint_is_a_mapping():
    with open_checkpoint(example_checkpoint()) as checkpoint:
        assert "labels" in checkpoint
        assert "nothing" not in checkpoint
        assert checkpoint.get("nothing") is None
        assert re.fullmatch(r"<Checkpoint '.*': 13 tensors>", repr(checkpoint))


def test_names_that_are_missing_cost_one_look_up(tmp_path, monkeypatch):
    """Work is counted: comparisons of names, and looking for near ones, which is for errors that are read."""
    compared = []

    class Counted(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(other)
            return str.__eq__(self, other)

    monkeypatch.setattr(difflib, "get_close_matches", lambda *args, **options: pytest.fail("looks for near names"))
    path = write_raw(tmp_path / "x.safetensors", {f"{i}.scale": ("F32", (), bytes(4)) for i in range(20_000)})
    with open_checkpoint(path) as checkpoint:
        for i in range(20_000):
            assert checkpoint.get(Counted(f"{i}.shift"), 0.0) == 0.0
            assert Counted(f"{i}.shift") not in checkpoint
            assert Counted(f"{i}.scale") in checkpoint
    # One for each that is there, and the few whose hashes meet in the table.
    assert 20_000 <= len(compared) <= 21_000


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_missing_tensor_names_its_neighbours():
    path = example_checkpoint()
    words = r"tensor 'layers.0.weigth' is not in '.*'; near it are 'layers.0.weight'"
    with pytest.raises(ValueError, match=words) as caught:
        read_tensor(path, "layers.0.weigth")
    # Its words are made late, also in another process.
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(ValueError, match=r"near it are 'layers.2.weight', 'layers.2.bias'"):
        read_tensor(path, "layers.2")
    with pytest.raises(ValueError, match=r"it has 13 tensors, 'layers.0.weight' to 'labels'; list_tensors names them"):
        read_tensor(path, "zzz")
    with pytest.raises(ValueError, match=r"name must be given: '.*' has 13 tensors"):
        read_tensor(path)


@pytest.mark.parametrize("tag", ["I64", "U8", "BOOL", "C64"])
def test_types_that_are_no_real_numbers(tmp_path, tag):
    width = {"I64": 8, "U8": 1, "BOOL": 1, "C64": 8}[tag]
    path = write_raw(tmp_path / "x.safetensors", {"w": (tag, (4,), bytes(4 * width))})
    assert list_tensors(path)[0].dtype == tag
    with pytest.raises(ValueError, match=rf"tensor 'w' of '.*' has element type {tag}, which is none of F64.*give"):
        read_tensor(path, "w")


def damaged_files(folder):
    """Yield (path, expected words)."""
    four = np.arange(4, dtype=np.float32).tobytes()
    good = {"w": ("F32", (4,), four)}
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    safe = {
        "cut data": ({"cut": 3}, "is truncated: its tensors need 16 bytes and 13 are there; fetch it again"),
        "cut header": ({"cut": 30}, "is truncated: its header should have"),
        "extra": ({"extra": b"more"}, "4 bytes follow its last tensor"),
        "not json": ({"header": b'{"w": '}, "its header is not valid JSON"),
        "twice": (
            {"header": b'{"w":' + json.dumps(entry).encode() + b',"w":' + json.dumps(entry).encode() + b"}"},
            "twice the name 'w'",
        ),
        "no dtype": ({"header": {"w": {"shape": [4]}}}, "the entry of tensor 'w' lacks a dtype"),
        "no table": ({"header": {"w": 3}}, "the entry of tensor 'w' lacks a dtype"),
        "bad dtype": ({"header": {"w": entry | {"dtype": "F7"}}}, "tensor 'w' has the unknown element type 'F7'"),
        "bad shape": ({"header": {"w": entry | {"shape": [-4]}}}, "are no counts"),
        "true shape": ({"header": {"w": entry | {"shape": [True]}}}, "are no counts"),
        "wrong size": ({"header": {"w": entry | {"shape": [5]}}}, "needs 20 bytes, not 16"),
        "hole": ({"header": {"w": entry | {"data_offsets": [4, 20]}}, "extra": four}, "starts at byte 4 of the data"),
        "metadata": ({"header": {"__metadata__": {"a": 1}, "w": entry}}, "its '__metadata__' is not a table of texts"),
        "metadata list": ({"header": {"__metadata__": [], "w": entry}}, "its '__metadata__' is not a table of texts"),
        "deep": ({"header": b'{"w": ' + b"[" * 100_000}, "its header is not valid JSON .*nested too deeply"),
        "axes": ({"header": {"w": entry | {"shape": [1] * 65}}}, "are no counts"),
        "no array": ({"header": {"w": entry | {"shape": [0, 2**62], "data_offsets": [0, 0]}}}, "are no counts"),
        "long shape": ({"header": {"w": entry | {"shape": [[4] * 500]}}}, "are no counts"),
        "long numbers": ({"header": {"w": entry | {"data_offsets": [0, 10**4000]}}}, "are no counts"),
    }
    for case, (change, words) in safe.items():
        yield write_raw(folder / f"{case}.safetensors", good, **change), words

    def write(case, content, words):
        path = folder / case
        path.write_bytes(content)
        return path, words

    np.save(folder / "good.npy", np.arange(9.0))
    content = (folder / "good.npy").read_bytes()
    yield write("cut.npy", content[:-5], "is truncated: it needs 72 bytes of data and has 67; fetch it again")
    yield write("head.npy", content[:20], "is not a sound NumPy array file")
    yield write("more.npy", content + b"more", "has 4 bytes behind its last array that are none; fetch it")
    yield write("magic.npy", content + b"\x93NUMPY", "is not a sound NumPy array file")
    yield write("version.npy", content[:6] + b"\x04" + content[7:], r"its format has version 4.0")
    huge = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + content[10:]
    yield write("huge header.npy", huge, "is not a sound NumPy array file")
    for case, old, new, words in [
        ("token", b"(9,)", b"((9,", "is not a sound NumPy array file"),
        ("type", b"'<f8'", b"[{}] ", "is not a sound NumPy array file"),
        ("keys", b"'descr'", b"1234567", "is not a sound NumPy array file"),
        ("escapes", b"'<f8'", b"'\x1b[m'", "is not a sound NumPy array file"),
        ("minus", b"(9,), ", b"(-9,),", r"no array can have the shape \(-9,\)"),
        ("true", b"(9,), }   ", b"(True,), }", r"no array can have the shape \(True,\)"),
        ("claim", b"(9,), }" + 15 * b" ", b"(1000000000000000,), }", "needs 8000000000000000 bytes of data and has 72"),
    ]:
        changed = content.replace(old, new)
        assert changed != content
        yield write(f"{case}.npy", changed, words)
        with zipfile.ZipFile(folder / f"{case}.npz", "w") as archive:
            archive.writestr("a.npy", changed)
        yield folder / f"{case}.npz", words
    with zipfile.ZipFile(folder / "twice.npz", "w") as archive:
        archive.writestr("a.npy", content)
        archive.writestr("a", content)
    yield folder / "twice.npz", "has twice the name 'a'"
    np.savez(folder / "good.npz", a=np.arange(9.0))
    yield write(
        "cut.npz", (folder / "good.npz").read_bytes()[:-30], "is a truncated or damaged zip file; fetch it again"
    )
    yield write("empty.safetensors", b"", "is empty; fetch it again")
    yield write("model.gguf", b"GGUF" + bytes(40), "is no sound GGUF file: its version is 0, none of 2 and 3")
    yield write("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(40), "is an HDF5 file; save its arrays with numpy.savez")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    yield write("lfs.safetensors", pointer, "is a Git LFS pointer, not the file itself; run `git lfs pull`")
    yield write(
        "words.txt",
        b"just words, many of them",
        r"is no .safetensors, .npy, .npz, .gguf or .onnx file \(it begins with b'just wor",
    )
    yield write("tiny", b"abc", "is no .safetensors, .npy, .npz, .gguf or .onnx file")
    index = json.dumps({"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}).encode()
    yield write(
        "index.json", index, "2 of 2 files that .* names are not there, such as 'part-1.safetensors'; fetch them"
    )
    with zipfile.ZipFile(folder / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    yield folder / "other.zip", "is a zip file, but not one of numpy.savez; unpack it first"


def test_damaged_and_foreign_files(tmp_path):
    for path, words in damaged_files(tmp_path):
        with pytest.raises(ValueError, match=words) as caught:
            open_checkpoint(path)
        assert path.name in str(caught.value)
        assert len(str(caught.value)) < 300
        assert str(caught.value).isprintable()


class Bomb:
    """Marks the folder it is unpickled in."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def pickled_files(folder, bomb):
    for protocol in (2, 3, 4, 5):
        path = folder / f"{protocol}.pt"
        path.write_bytes(pickle.dumps(bomb, protocol=protocol))
        yield path
    with zipfile.ZipFile(folder / "torch.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(bomb))
        archive.writestr("archive/data/0", bytes(16))
    yield folder / "torch.pt"
    objects = np.array([bomb], dtype=object)
    np.save(folder / "objects.npy", objects, allow_pickle=True)
    np.savez(folder / "objects.npz", objects=objects)
    yield folder / "objects.npy"
    yield folder / "objects.npz"


def test_pickles_are_never_loaded(tmp_path):
    for path in pickled_files(tmp_path, Bomb(tmp_path / "exploded")):
        with pytest.raises(ValueError, match=r"pickle.*can run any code.*save") as caught:
            read_tensor(path)
        assert path.name in str(caught.value)
    with open_checkpoint(tmp_path / "objects.npz") as checkpoint:
        assert checkpoint.info("objects").dtype == "object"
        with pytest.raises(ValueError, match="holds pickled Python objects"):
            checkpoint.bits("objects")
    assert not (tmp_path / "exploded").exists()


def test_missing_files_and_folders(tmp_path):
    np.save(tmp_path / "weights.npy", np.ones(2))
    with pytest.raises(ValueError, match=r"there is no file '.*wieghts.npy'; near it are 'weights.npy'"):
        list_tensors(tmp_path / "wieghts.npy")
    with pytest.raises(ValueError, match=r"there is no file '.*zzz'; check the path"):
        list_tensors(tmp_path / "nowhere" / "zzz")
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"the folder '.*', which has no checkpoint; name a folder in it, .* 'inner'"):
        list_tensors(tmp_path / "outer")
    with pytest.raises(ValueError, match=r"the folder '.*', which has no checkpoint; name a file"):
        list_tensors(tmp_path / "outer" / "inner")


NAMES = {
    "markup": "[red]a[/red][link=x]:heart:",
    "escapes": "\x1b[31m\x07\x00\x7f\x9b",
    "lines": "a\nb\r\nc\u2028d",
    "right to left": "a\u202eb",
    "half a character": "a\udc80b",
    "long": "[red]" + 10_000 * "a",
    "long lines": 5_000 * "\n\x1b",
    "none": "",
}


def is_clear(error):
    """A text of one line that a terminal only shows."""
    assert 0 < len(str(error)) < 300, error
    assert str(error).isprintable(), error


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_are_shown_escaped_and_short(tmp_path, name):
    """In every text that names a tensor: they come from files of strangers, in folders of any depth."""
    tmp_path = tmp_path / ("folder" * 30)
    tmp_path.mkdir()
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    headers = [
        {name: {"shape": [4]}},
        {name: entry | {"shape": [name]}},
        {name: entry | {"dtype": name}},
        {name: entry | {"shape": [5] * 60}},
        {name: entry | {"data_offsets": [4, 20]}},
        {name: entry | {"data_offsets": [0, 10**4000]}},
        json.dumps({name: entry}).encode()[:-1] + b"," + json.dumps({name: entry}).encode()[1:],
    ]
    raised = []

    def refused(function, *args):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the table above has the words
            function(*args)
        raised.append(caught.value)

    for number, header in enumerate(headers):
        refused(open_checkpoint, write_raw(tmp_path / f"{number}", {"w": ("F32", (4,), bytes(16))}, header=header))
    odd = write_raw(tmp_path / "odd", {name: ("I64", (1,), bytes(8)), name + "b": ("C64", (1,), bytes(8))})
    with open_checkpoint(odd) as checkpoint:
        refused(checkpoint.__getitem__, name)
        refused(checkpoint.bits, name + "b")
        refused(checkpoint.info, name + "c")
    refused(read_tensor, odd, name * 2 + "c")
    many = write_raw(tmp_path / "many", {f"{name}{i}": ("U8", (1,), b"x") for i in range(9)})
    refused(read_tensor, many, "\x1b")
    refused(read_tensor, many, name + "c")
    for content in ({"tensors": {name: "x"}}, {"tensors": {name: [[1], [2, 3]]}}, {name: 1}, [name], {"tensors": name}):
        (tmp_path / "s.json").write_text(json.dumps(content))
        refused(read_scales, tmp_path / "s.json")
    if name and "\udc80" not in name and len(name) < 60_000:
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr(zipfile.ZipInfo(name + ".npy"), npy(np.ones(3))[:-1])
        # zipfile ends names at a zero byte.
        if "\0" not in name:
            refused(open_checkpoint, tmp_path / "x.npz")
    for function in (open_checkpoint, read_scales, read_quantized, qe.load_table):
        refused(function, tmp_path / f"{name}.json")
        refused(function, tmp_path / f"{name}.nothing" / "x.csv")
    for error in raised:
        is_clear(error)


# -- files of chance ---------------------------------------------------------------------------------------------------

TOKEN = re.compile(rb"""\w+|"[^"]*"|'[^']*'|[][{}(),:]""")
# What is put in place of a word of a header; the long ones take long to parse and come seldom.
HOSTILE = [
    *(b"1000000000000000", b"-1", b"0", b"4", b"True", b"null", b"None", b"NaN", b"1e999", b"1j", b"L", b"", b"   "),
    *(
        b"{}",
        b"[]",
        b"()",
        b"[[]]",
        b"{[]}",
        b"((",
        b"]",
        b"'",
        b'"',
        b"#",
        b"\\",
        b"\n",
        b"\x00",
        b"\xff",
        b"lambda:0",
    ),
    *(b"'O'", b"'<f4'", b"'>f2'", b"'V0'", b"'U9999999'", b"'<f8,<f8'", b"[('a', '<f8', (2,))]", b"('<f8', (3,))"),
    *(b"'?'", b'"F4"', b'"F8_E5M2"', b'"BOOL"', b'"\\u001b[31m"', b'"\\ud800"', b"'\x1b'"),
]
LONG = [
    *(b"(" * 300, b"[" * 3000, b"[" * 900 + b"]" * 900, b"9" * 4000, b"9" * 5000, b"-" * 2000 + b"1", b"'a':" * 100),
    *(b'"' + 5000 * b"x" + b'"', b"'" + 900 * b"\x1b" + b"'"),
]


def edited(chance, text):
    """One or two words of a header replaced."""
    for _ in range(chance.randint(1, 2)):
        word = chance.choice(list(TOKEN.finditer(text)) or [re.match(b"", text)])
        text = text[: word.start()] + chance.choice(HOSTILE if chance.randrange(40) else LONG) + text[word.end() :]
    return text


def damaged(chance, content):
    """A few bytes flipped, put in, left out, doubled or cut off."""
    content = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        begin = chance.randrange(len(content) + 1)
        end = begin + chance.randint(1, 40)
        match chance.randrange(6):
            case 0 if begin < len(content):
                content[begin] ^= 1 << chance.randrange(8)
            case 1 if begin < len(content):
                content[begin] = chance.randrange(256)
            case 2:
                content[begin:begin] = chance.randbytes(chance.randint(1, 20))
            case 3:
                del content[begin:end]
            case 4:
                content[begin:begin] = content[begin:end]
            case _:
                del content[begin:]
    return bytes(content)


def edited_safetensors(chance, sound):
    end = 8 + struct.unpack("<Q", sound[:8])[0]
    text = edited(chance, sound[8:end])
    return struct.pack("<Q", len(text)) + text + sound[end:]


def edited_npy(chance, sound):
    end = 10 + struct.unpack("<H", sound[8:10])[0]
    text = edited(chance, sound[10:end].rstrip()) + b"\n"
    if len(text) % 2:
        return sound[:8] + struct.pack("<H", len(text)) + text + sound[end:]
    return sound[:6] + b"\x02\0" + struct.pack("<I", len(text)) + text + sound[end:]


def edited_npz(chance, sound):
    """Sound zip files of unsound members; and claims of sizes that the members do not have."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for name in ("a.npy", "b"):
            change = chance.choice([edited_npy, damaged, lambda chance, content: content])
            archive.writestr(zipfile.ZipInfo(name), change(chance, npy(np.arange(12.0), np.ones((2, 3), np.float32))))
        if chance.randrange(4) == 0:
            archive.filelist[0].file_size = chance.choice([0, 7, 2**31, 8 * 10**15])
    return file.getvalue()


def sound_files(folder):
    """Yield ending, content, how its header is edited, and what reads it."""
    tensors = {
        "a": ("F32", (2, 3), bytes(24)),
        "b": ("BF16", (4,), bytes(8)),
        "c": ("F8_E4M3", (2,), b"xy"),
        "d": ("F4", (2,), b"x"),
    }
    yield "safetensors", write_raw(folder / "x", tensors).read_bytes(), edited_safetensors, read_all
    yield "npy", npy(np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(3.0)), edited_npy, read_all
    yield (
        "npz",
        members(folder / "x", a__npy=np.arange(6.0), b=np.ones(3), c=b"text").read_bytes(),
        edited_npz,
        read_all,
    )
    table = qe.scale_table(["int2"], ["uniform"])
    for ending in ("json", "csv"):
        table.save(folder / f"table.{ending}")
        yield f"table.{ending}", (folder / f"table.{ending}").read_bytes(), edited, qe.load_table
    scales = {"metadata": {"grid": "int4"}, "tensors": {"w.scale": [[0.5], [0.25]], "w.shift": 0, "v.scale": 1e-3}}
    yield "scales.json", json.dumps(scales).encode(), edited, read_scales
    grid = {"name": "", "levels": [-1.0, 0.0, 1.0], "codes": [0, 1, 2], "bits": 2}
    layout = {"grid": grid, "axis": [0], "block_size": None, "block_axis": -1}
    said = {"format": "qerror quantized tensors", "weights": {"w": layout}, "inputs": {}}
    parts = {"w.codes": ("I8", (2, 2), bytes(4)), "w.scale": ("F32", (2, 1), bytes(8)), "b": ("F16", (1,), bytes(2))}
    path = write_raw(folder / "q", parts)
    head = json.loads(path.read_bytes()[8:-14])
    write_raw(path, parts, header={"__metadata__": {"qerror": json.dumps(said)}, **head})

    def edited_quantized(chance, sound):
        changed = edited(chance, json.dumps(said).encode()).decode("latin1")
        return write_raw(path, parts, header={"__metadata__": {"qerror": changed}, **head}).read_bytes()

    yield "quantized", path.read_bytes(), edited_quantized, read_quantized


def read_all(path):
    with open_checkpoint(path) as checkpoint:
        for name in checkpoint:
            for read in (checkpoint.__getitem__, checkpoint.bits):
                try:
                    read(name)
                except ValueError as error:
                    is_clear(error)


FORMATS = ["safetensors", "npy", "npz", "table.json", "table.csv", "scales.json", "quantized"]


@pytest.mark.nightly
@pytest.mark.parametrize("kind", FORMATS)
def test_damage_of_every_kind_ten_thousand_times(tmp_path, kind):
    hold_damage(tmp_path, kind, 10_000)


@pytest.mark.parametrize("kind", FORMATS)
def test_damage_of_every_kind_is_read_or_refused_in_clear_words(tmp_path, kind):
    hold_damage(tmp_path, kind, 2_500)


def hold_damage(tmp_path, kind, rounds):
    chance = random.Random(f"qerror {kind}")
    sound, edit, read = next(found[1:] for found in sound_files(tmp_path) if found[0] == kind)
    path = tmp_path / f"x.{kind}"
    path.write_bytes(sound)
    read(path)
    refused = 0
    tracemalloc.start()
    with path.open("r+b") as file:
        for number in range(rounds):
            file.seek(0)
            file.truncate()
            file.write((damaged if number % 2 else edit)(chance, sound))
            file.flush()
            try:
                read(path)
            except ValueError as error:
                is_clear(error)
                refused += 1
            if number == 1000:
                # No header is believed that claims more than there is: the levels of all named formats, with which an
                # unknown one is compared, take 17 MB. (Counting every byte takes its time.)
                assert tracemalloc.get_traced_memory()[1] < 30e6
                tracemalloc.stop()
    # Both happen.
    assert 1_000 < refused < 9_990


# -- the file that is shipped ------------------------------------------------------------------------------------------


def test_shipped_activations_follow_from_the_shipped_weights():
    """Each layer's input is the ReLU of the layer before: weights and activations belong together."""
    # The stored activations are float64 sums rounded to float32: half a unit in the last place, 6e-8, with room.
    rounding = 1e-7
    with open_checkpoint(example_checkpoint()) as checkpoint:
        tensors = {name: checkpoint[name].astype(np.float64) for name in checkpoint if name != "labels"}
        labels = checkpoint.bits("labels")
        accuracy = float(checkpoint.metadata["test_accuracy"].split()[0])
    for layer in range(3):
        output = (
            tensors[f"layers.{layer}.input"] @ tensors[f"layers.{layer}.weight"].T + tensors[f"layers.{layer}.bias"]
        )
        if layer < 2:
            expected = np.maximum(output, 0)
            np.testing.assert_allclose(tensors[f"layers.{layer + 1}.input"], expected, rtol=rounding, atol=rounding)
    # 200 of the 360 images that the accuracy was measured on: three standard errors are 2.4%.
    assert abs(np.mean(output.argmax(axis=1) == labels) - accuracy) < 0.024


def test_shipped_bfloat16_copies_are_the_rounded_weights():
    with open_checkpoint(example_checkpoint()) as checkpoint:
        for layer in range(3):
            weight = checkpoint[f"layers.{layer}.weight"]
            expected = weight.astype(ml_dtypes.bfloat16).astype(np.float32)
            np.testing.assert_array_equal(checkpoint[f"layers.{layer}.weight.bf16"], expected)


# -- real models -------------------------------------------------------------------------------------------------------


@needs_real_data
def test_real_files_are_listed_whole():
    # Counts of tensors and values from the data folder's own README.
    known = {
        "activations_dev": (15, 234016),
        "g2p_gru": (12, 834890),
        "silero_vad_16k": (15, 309633),
        "stories260k": (47, 260032),
        "stories260k_bf16": (47, 260032),
        "stories260k_f16": (47, 260032),
    }
    for name, (count, size) in known.items():
        infos = list_tensors(REAL_DATA / f"{name}.safetensors")
        assert (len(infos), sum(info.size for info in infos)) == (count, size)


@needs_real_data
@pytest.mark.parametrize(("suffix", "dtype"), [("bf16", ml_dtypes.bfloat16), ("f16", np.float16)])
def test_real_casts_are_casts_of_the_real_weights(suffix, dtype):
    with (
        open_checkpoint(REAL_DATA / "stories260k.safetensors") as exact,
        open_checkpoint(REAL_DATA / f"stories260k_{suffix}.safetensors") as cast,
    ):
        for name in exact:
            np.testing.assert_array_equal(cast[name], exact[name].astype(dtype).astype(np.float32))


# -- writing -----------------------------------------------------------------------------------------------------------


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "x.txt"
    with _files.atomic_open(path, "w") as file:
        file.write("one\n")
        assert not path.exists()
    assert path.read_bytes() == b"one\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail():
        with _files.atomic_open(path) as file:
            file.write(b"half of the ne")
            raise RuntimeError("full disk")

    with pytest.raises(RuntimeError, match="full disk"):
        fail()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]


def test_a_full_disk_is_named(tmp_path):
    """A write that finds the disk full does not say where."""
    full = OSError(28, "No space left on device")

    def write():
        with _files.atomic_open(tmp_path / "x") as file:
            file.write(b"half")
            raise full

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="permissions of a POSIX system")
def test_permissions_are_those_of_open(tmp_path):
    (tmp_path / "plain").touch()
    with _files.atomic_open(tmp_path / "new"):
        pass
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "new").chmod(0o640)
    with _files.atomic_open(tmp_path / "new"):
        pass
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.name != "posix", reason="permissions of a POSIX system")
def test_threads_that_write_at_once_leave_the_process_its_umask(tmp_path, monkeypatch):
    umask = os.umask

    def slow(mask):
        old = umask(mask)
        time.sleep(0.01)
        return old

    before = umask(0o22)
    try:
        monkeypatch.setattr(os, "umask", slow)
        with ThreadPoolExecutor(4) as executor:
            modes = list(executor.map(lambda name: _files._mode_for(tmp_path / name), "abcdefgh"))
        assert set(modes) == {0o644}
        assert umask(0o22) == 0o22
    finally:
        umask(before)


def test_refused_targets(tmp_path):
    for path, mode, words in [
        (tmp_path, "wb", "path must name a file, got the folder"),
        (tmp_path / "no" / "x", "wb", "does not exist; make it first"),
        (tmp_path / "x", "a", "mode must be 'wb' or 'w', got 'a'"),
    ]:
        with pytest.raises(ValueError, match=words), _files.atomic_open(path, mode):
            pass


# -- parts of compressed members ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_parts_of_archives_are_those_of_the_whole(tmp_path, monkeypatch, save):
    monkeypatch.setattr(zipped, "_BLOCK", 100)
    monkeypatch.setattr(zipped, "_KEPT", 3)
    rng = np.random.default_rng(5)
    arrays = {"a": rng.normal(size=(30, 20)), "b": rng.normal(size=400).astype(np.float32), "c": np.array(2.0)}
    arrays |= {"f": np.asfortranarray(rng.normal(size=(7, 9))), "big": rng.normal(size=50).astype(">f4")}
    save(tmp_path / "x.npz", **arrays)
    with open_checkpoint(tmp_path / "x.npz") as checkpoint:
        for _ in range(60):
            name = rng.choice(list(arrays))
            begin, end = sorted(rng.integers(0, arrays[name].size + 1, 2))
            np.testing.assert_array_equal(checkpoint.part(name, begin, end), arrays[name].ravel()[begin:end])
        with ThreadPoolExecutor(4) as threads:
            parts = list(threads.map(lambda i: checkpoint.part("a", 20 * i, 20 * i + 20), range(30)))
    np.testing.assert_array_equal(np.stack(parts), arrays["a"])
    with pytest.raises(ValueError, match="is closed"):
        checkpoint.part("a", 0, 1)


def test_a_compressed_tensor_is_decompressed_once(tmp_path, monkeypatch):
    """However many pieces it is fitted in: each from the beginning would take time by the square of its size."""
    monkeypatch.setattr(zipped, "_BLOCK", 1 << 12)
    monkeypatch.setattr(recipe, "PIECE", 1 << 12)
    x = np.random.default_rng(1).normal(size=(256, 256)).astype(np.float32)
    np.savez_compressed(tmp_path / "x.npz", c=x, f=np.asfortranarray(x))
    opened, whole = [], zipfile.ZipFile.open
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *args: opened.append(args[1].filename) or whole(*args))
    found = qe.checkpoints.fit(tmp_path / "x.npz", "int4", axis=0)
    # Once for the header, once for the values.
    assert sorted(opened) == ["c.npy", "c.npy", "f.npy", "f.npy"]
    assert [fit.mse["optimal"] for fit in found] == pytest.approx([qe.fit(x, "int4", axis=0).total.mse] * 2, rel=1e-12)


def test_the_sum_of_a_member_is_checked_where_its_parts_are_read(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.arange(1000.0))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[4000] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    with open_checkpoint(tmp_path / "x.npz") as checkpoint:
        for _ in range(2):
            with pytest.raises(ValueError, match=r"member 'x\.npy' of .* is not a sound NumPy array file \(Bad CRC"):
                checkpoint.part("x", 0, 1000)
