"""What other packages bring: GGUF and ONNX files, files behind URLs, Dask clusters. Run by `make test-interop`."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner, Result

import qerror as qe
from qerror.checkpoints import scan
from qerror.cli.commands import qerror_command
from qerror.files import open_checkpoint, read_tensor

RNG = np.random.default_rng(3)


def needs(module: str) -> Any:
    return pytest.importorskip(module, reason=f"{module} is not installed; `make test-interop` has it")


def run(*args: Any, status: int = 0) -> Result:
    result = CliRunner().invoke(qerror_command, list(map(str, args)))
    assert result.exit_code == status, (result.output, result.exception)
    return result


# -- GGUF --------------------------------------------------------------------------------------------------------------


def gguf_file(path: Path, tensors: dict[str, tuple[np.ndarray[Any, Any], Any]]) -> Path:
    """Written by the package gguf: arrays with their types, packed where these are blocks."""
    gguf = needs("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.name", "made up")
    writer.add_array("tokenizer.ggml.tokens", [f"t{i}" for i in range(5000)])
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_every_type_that_gguf_dequantizes(tmp_path: Path) -> None:
    gguf = needs("gguf")
    kinds = [kind for kind in gguf.quants._type_traits if kind != gguf.GGMLQuantizationType.BF16]
    tensors, expected = {}, {}
    for kind in kinds:
        width = gguf.GGML_QUANT_SIZES[kind][1]
        raw = RNG.integers(0, 256, (3, 2 * width), np.uint8)
        # Half floats of chance would be NaN: their highest bits are cleared.
        raw[:, 1::2] &= 0x3B
        tensors[kind.name] = raw, kind
        with np.errstate(all="ignore"):
            expected[kind.name] = gguf.quants.dequantize(raw, kind)
    path = gguf_file(tmp_path / "m.gguf", tensors)
    with open_checkpoint(path) as checkpoint, np.errstate(all="ignore"):
        assert set(checkpoint) == set(expected)
        for name, values in expected.items():
            assert checkpoint.info(name).dtype == name
            assert checkpoint[name].shape == values.shape == checkpoint.info(name).shape
            np.testing.assert_array_equal(checkpoint[name], values)
            row = values.shape[1]
            for begin, end in ((row, 2 * row), (5, row + 9)):
                np.testing.assert_array_equal(checkpoint.part(name, begin, end), values.ravel()[begin:end])


def test_plain_types_and_fits_of_gguf(tmp_path: Path) -> None:
    gguf = needs("gguf")
    kinds = gguf.GGMLQuantizationType
    x = RNG.standard_normal((6, 64)).astype(np.float32)
    tensors = {
        "f": (x, None),
        "h": (x.astype(np.float16), None),
        "b": (x.astype(ml_dtypes.bfloat16).view(np.uint8), kinds.BF16),
        "q": (gguf.quants.quantize(x, kinds.Q8_0), kinds.Q8_0),
        "i": (np.arange(6, dtype=np.int32).reshape(2, 3), None),
    }
    path = gguf_file(tmp_path / "m.gguf", tensors)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.metadata["general.name"] == "made up"
        np.testing.assert_array_equal(checkpoint["f"], x)
        np.testing.assert_array_equal(checkpoint["h"], x.astype(np.float16))
        np.testing.assert_array_equal(checkpoint["b"], x.astype(ml_dtypes.bfloat16).astype(np.float32))
    fits = {fit.info.name: fit for fit in qe.checkpoints.fit(tmp_path, "int4", axis=0)}
    own = qe.fit(gguf.quants.dequantize(tensors["q"][0], kinds.Q8_0), "int4", axis=0)
    assert fits["q"].mse["optimal"] == pytest.approx(float(own.total.mse), rel=1e-12)
    assert fits["i"].skipped == "element type I32"
    content = path.read_bytes()
    for cut in (10, 60, 2000, len(content) - 16):
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"m\.gguf' is (truncated|no sound GGUF file)"):
            open_checkpoint(path)


# -- ONNX --------------------------------------------------------------------------------------------------------------


def test_initializers_of_onnx(tmp_path: Path) -> None:
    onnx = needs("onnx")
    x = RNG.standard_normal((8, 12)).astype(np.float32)
    kinds = {
        "f": (x, x),
        "d": (x.astype(np.float64), x),
        "h": (x.astype(np.float16), x.astype(np.float16)),
        "b": (x.astype(ml_dtypes.bfloat16), x.astype(ml_dtypes.bfloat16)),
        "e": (x.astype(ml_dtypes.float8_e4m3fn), x.astype(ml_dtypes.float8_e4m3fn)),
        "four": (x.astype(ml_dtypes.float4_e2m1fn), x.astype(ml_dtypes.float4_e2m1fn)),
    }
    initializers = [onnx.numpy_helper.from_array(array, name) for name, (array, _) in kinds.items()]
    initializers.append(onnx.helper.make_tensor("typed", onnx.TensorProto.FLOAT, [3], [1.0, 2.0, 4.0]))
    initializers.append(onnx.numpy_helper.from_array(np.arange(4), "whole"))
    graph = onnx.helper.make_graph([], "g", [], [], initializers)
    model = onnx.helper.make_model(graph)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())

    def check() -> None:
        with open_checkpoint(path) as checkpoint:
            for name, (array, values) in kinds.items():
                expected = values.astype(np.float64 if array.dtype == np.float64 else np.float32)
                np.testing.assert_array_equal(checkpoint[name], expected)
                np.testing.assert_array_equal(checkpoint.part(name, 5, 30), expected.ravel()[5:30])
            np.testing.assert_array_equal(checkpoint["typed"], [1.0, 2.0, 4.0])
            assert checkpoint.info("whole").dtype == "I64"

    check()
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert (tmp_path / "m.data").exists()
    check()
    (tmp_path / "m.data").write_bytes((tmp_path / "m.data").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"m\.data' is truncated: .* ends behind it; fetch it again"):
        open_checkpoint(path)
    (tmp_path / "m.data").unlink()
    with pytest.raises(ValueError, match=r"needs 'm\.data' beside it, which is not there"):
        open_checkpoint(path)
    for place in ("../secret", "/etc/passwd"):
        for each in model.graph.initializer:
            for entry in each.external_data:
                if entry.key == "location":
                    entry.value = place
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ValueError, match="outside of its folder"):
            open_checkpoint(path)
    path.write_bytes(b"\x08\x07 this is no model")
    with pytest.raises(ValueError, match=r"is no sound ONNX model: .*; fetch it again"):
        open_checkpoint(path)


# -- URLs --------------------------------------------------------------------------------------------------------------


class Ranges(SimpleHTTPRequestHandler):
    """Serves a folder, ranges of bytes too, and counts what it sends."""

    sent: list[int]

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin, end = (int(asked[1]), int(asked[2] or len(content) - 1) + 1) if asked else (0, len(content))
        part = content[begin:end]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(part) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{len(content)}-{file.stat().st_mtime_ns}"')
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        # Counted before the client can have it.
        self.sent.append(len(part))
        self.wfile.write(part)

    def do_HEAD(self) -> None:
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(file.stat().st_size))
        self.send_header("ETag", f'"{file.stat().st_size}-{file.stat().st_mtime_ns}"')
        self.end_headers()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str, list[int]]]:
    """A folder, the URL that it is served at, and the bytes of every answer."""
    needs("fsspec")
    needs("aiohttp")
    folder = tmp_path / "served"
    folder.mkdir()
    counted: list[int] = []

    class Here(Ranges):
        sent = counted

        def __init__(self, *args: Any, **extra: Any) -> None:
            super().__init__(*args, directory=str(folder), **extra)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Here)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}", counted
    server.shutdown()
    server.server_close()


def shards(folder: Path) -> None:
    index = {}
    for number in (1, 2):
        tensors = {f"l.{number}.{name}": RNG.standard_normal((300, 200)).astype(np.float16) for name in ("a", "b")}
        file = f"model-0000{number}-of-00002.safetensors"
        safetensors.numpy.save_file(tensors, folder / file)
        index |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def test_a_checkpoint_behind_a_url_is_read_in_ranges(served: tuple[Path, str, list[int]]) -> None:
    folder, url, sent = served
    shards(folder)
    with open_checkpoint(f"{url}/model.safetensors.index.json") as checkpoint:
        headers = sum(sent)
        assert headers < 2000
        np.testing.assert_array_equal(checkpoint["l.2.a"], read_tensor(folder, "l.2.a"))
        np.testing.assert_array_equal(checkpoint.part("l.1.b", 7, 19), read_tensor(folder, "l.1.b").ravel()[7:19])
    # Index, two lengths, two headers, a tensor and twelve elements of another.
    assert len(sent) == 7
    assert sum(sent) - headers == 300 * 200 * 2 + 12 * 2
    assert len(list(open_checkpoint(f"{url}/"))) == 4


def test_fits_and_sketches_of_a_url_are_those_of_the_files(served: tuple[Path, str, list[int]], tmp_path: Path) -> None:
    folder, url, _ = served
    shards(folder)
    there, here = f"{url}/model.safetensors.index.json", folder / "model.safetensors.index.json"
    expected = json.loads(run("fit", here, "--grid", "int4", "--axis", 0, "-o", tmp_path / "here", "--json").stdout)
    found = json.loads(run("fit", there, "--grid", "int4", "--axis", 0, "-o", tmp_path / "there", "--json").stdout)
    assert found == expected
    for file in ("scales-00001-of-00001.safetensors", "report.json"):
        assert (tmp_path / "here" / file).read_bytes() == (tmp_path / "there" / file).read_bytes()
    one, two = scan(there), scan(here)
    assert all(np.array_equal(one[name].content.counts, two[name].content.counts) for name in two)
    np.savez(folder / "x.npz", a=np.ones((2, 3)))
    np.save(folder / "y.npy", np.arange(6.0))
    np.testing.assert_array_equal(read_tensor(f"{url}/x.npz"), np.ones((2, 3)))
    np.testing.assert_array_equal(read_tensor(f"{url}/y.npy"), np.arange(6.0))


def test_what_is_wrong_behind_a_url(served: tuple[Path, str, list[int]]) -> None:
    folder, url, _ = served
    (folder / "page.safetensors").write_text("<!DOCTYPE html><title>Sign in</title>")
    with pytest.raises(ValueError, match="is a web page: the download was answered with one"):
        open_checkpoint(f"{url}/page.safetensors")
    for missing in (f"{url}/nothing.safetensors", "http://127.0.0.1:9/x.safetensors"):
        with pytest.raises(ValueError, match=r"there is no file|cannot be read") as caught:
            open_checkpoint(missing)
        assert len(str(caught.value)) < 300
    with pytest.raises(ValueError, match="cannot be read"):
        open_checkpoint("nosuchscheme://x/y.safetensors")


# -- Dask --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = needs("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options, silence_logs="CRITICAL") as found:
        yield found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shards(tmp_path)
    return tmp_path


ignores = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@ignores
def test_a_dask_cluster_gives_the_same_bytes(cluster: Any, model: Path, tmp_path: Path) -> None:
    args = ("fit", model, "--grid", "int8", "--axis", 0)
    run(*args, "-o", tmp_path / "here")
    run(*args, "-o", tmp_path / "there", "--engine", f"dask:{cluster.scheduler_address}")
    assert content(tmp_path / "here") == content(tmp_path / "there")
    run("scan", model, "-o", tmp_path / "here.safetensors")
    run("scan", model, "-o", tmp_path / "there.safetensors", "--engine", f"dask:{cluster.scheduler_address}")
    assert (tmp_path / "here.safetensors").read_bytes() == (tmp_path / "there.safetensors").read_bytes()


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.glob("[rs]*") if file.is_file()}


@ignores
def test_a_worker_of_dask_may_die(cluster: Any, model: Path, tmp_path: Path) -> None:
    distributed = needs("distributed")
    qe.checkpoints.fit(model, "int8", axis=0, output=tmp_path / "here")
    with distributed.Client(cluster, set_as_default=False) as client:
        pids = list(client.run(os.getpid).values())

        def kill() -> None:
            while not list((tmp_path / "there").glob("claims/*")):
                time.sleep(0.01)
            os.kill(pids[0], signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        executor = client.get_executor(pure=False, retries=3)
        qe.checkpoints.fit(model, "int8", axis=0, output=tmp_path / "there", executor=executor, stale_after=2.0)
    assert content(tmp_path / "here") == content(tmp_path / "there")


@ignores
def test_tasks_undo_what_the_nanny_does_to_the_allocator(cluster: Any) -> None:
    from qerror.checkpoints.malloc import keep_freed_memory

    distributed = needs("distributed")
    with distributed.Client(cluster, set_as_default=False) as client:
        assert set(client.run(os.environ.get, "MALLOC_TRIM_THRESHOLD_").values()) == {"65536"}
        assert set(client.run(keep_freed_memory).values()) == {True}
    assert "MALLOC_TRIM_THRESHOLD_" in os.environ or not keep_freed_memory()


@ignores
def test_no_scheduler_costs_one_line(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("distributed")
    monkeypatch.setattr("qerror.checkpoints.engines._TIMEOUT", 1)
    address = "dask:tcp://127.0.0.1:9"
    words = run("fit", model, "--grid", "int4", "-o", tmp_path / "run", "--engine", address, status=2).stderr
    assert "no scheduler of Dask answers at 'tcp://127.0.0.1:9'" in words.splitlines()[-1]
