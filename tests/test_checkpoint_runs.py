"""Fits in a folder: the same bytes however they are made, resumed after any death, shared without a scheduler."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner, Result

import qerror as qe
from qerror.checkpoints import Recipe, claims, collecting, folder, part_files, pieces, recipe, running, scanning, tasks
from qerror.checkpoints.moments import joined, moments_of
from qerror.checkpoints.recipe import cut
from qerror.checkpoints.running import Shard
from qerror.cli.commands import qerror_command
from qerror.files import TensorInfo, open_checkpoint, read_tensor, sources

SUM_ORDER = 1e-12
LAYERS = ("q_proj", "k_proj", "v_proj", "up_proj")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards with an index: eight weights in four types, norms."""
    place = tmp_path_factory.mktemp("model")
    rng, index = np.random.default_rng(7), {}
    for number in (1, 2):
        tensors: dict[str, Any] = {f"l.{number}.norm.weight": np.ones(64, np.float32)}
        for name, rows in zip(LAYERS, (96, 32, 32, 250), strict=True):
            x = rng.standard_t(6, (rows, 64)).astype(np.float32) * np.exp(0.3 * rng.standard_normal((rows, 1)))
            tensors[f"l.{number}.{name}.weight"] = x.astype(np.float16 if name != "up_proj" else np.float32)
        file = f"model-0000{number}-of-00002.safetensors"
        safetensors.numpy.save_file(tensors, place / file)
        index |= dict.fromkeys(tensors, file)
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return place


def results(path: Path) -> dict[str, bytes]:
    """What a run leaves, but for its parts and its plan (which has the times of the input)."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.parent.name not in ("parts", "claims") and file.name != "plan.json"
    }


def parts(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (path / "parts").iterdir()}


def run(*args: Any, status: int = 0) -> Result:
    result = CliRunner().invoke(qerror_command, list(map(str, args)))
    assert result.exit_code == status, (result.output, result.exception)
    return result


@pytest.fixture(autouse=True)
def each_in_a_file_of_its_own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensors of these tests are small, and would share a file."""
    if "batch" not in request.node.name:
        monkeypatch.setattr(folder, "_SMALL", -1)


# -- the same bytes ----------------------------------------------------------------------------------------------------

FITS: list[dict[str, Any]] = [
    {"grid": "int8", "block_size": 32},
    {"grid": "int4", "axis": 0, "rule": ["minmax", "optimal"], "codes": True},
    {"grid": ["nvfp4", "int4"], "rule": "minmax", "together": ["*.{q,k,v}_proj.weight"]},
]


def test_the_total_is_the_sum_over_the_files(model: Path) -> None:
    def told(place: Path) -> dict[str, Any]:
        return json.loads(run("fit", place, "--grid", "int4", "--axis", 0, "--json").stdout)

    whole, files = told(model), [told(file) for file in sorted(model.glob("*.safetensors"))]
    assert len(files) > 1
    sizes = [math.prod(part["total"]["shape"]) for part in files]
    assert whole["total"]["shape"] == [sum(sizes)]
    assert [row["tensor"] for part in files for row in part["rows"]] == [row["tensor"] for row in whole["rows"]]
    error = sum(n * part["total"]["mse"]["optimal"] for n, part in zip(sizes, files, strict=True))
    assert whole["total"]["mse"]["optimal"] == pytest.approx(error / sum(sizes), rel=1e-12)


@pytest.mark.parametrize("options", FITS, ids=lambda o: str(o["grid"]))
def test_any_division_and_any_engine_give_the_same_bytes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(recipe, "PIECE", 2048)
    whole = qe.checkpoints.fit(model, output=tmp_path / "whole", **options)
    expected = results(tmp_path / "whole")
    assert "report.json" in expected
    monkeypatch.setattr(tasks, "TASK_BYTES", 4096)
    again = qe.checkpoints.fit(model, output=tmp_path / "small", **options)
    assert len(parts(tmp_path / "small")) > len(parts(tmp_path / "whole")) or options["grid"] != "int8"
    assert results(tmp_path / "small") == expected
    assert again == whole
    with ThreadPoolExecutor(3) as executor:
        qe.checkpoints.fit(model, output=tmp_path / "threads", executor=executor, **options)
    assert results(tmp_path / "threads") == expected
    for index in (2, 1):
        assert qe.checkpoints.fit(model, output=tmp_path / "shards", shard=(index, 2), **options) == []
    qe.checkpoints.collect(tmp_path / "shards")
    assert results(tmp_path / "shards") == expected
    monkeypatch.setenv("QERROR_NUM_THREADS", "1")
    qe.checkpoints.fit(model, output=tmp_path / "one", **options)
    assert results(tmp_path / "one") == expected


def test_weights_of_experts_are_cut_like_them_and_not_written_out() -> None:
    info = TensorInfo("w", (3, 64, 128), "F32")
    how = cut(info, Recipe(("int4_g32",)))
    assert how.leading == 2
    for shape in ((3, 1, 128), (1, 64, 1), (3, 64, 128)):
        weights = np.random.default_rng(1).uniform(size=shape)
        own = recipe.piece_weights(weights, info, how, (60, 70))
        np.testing.assert_array_equal(own, np.broadcast_to(weights, info.shape).reshape(192, 128)[60:70])
        assert own.base is None or own.base.size <= own.size


@pytest.mark.parametrize(
    ("options", "codes", "needed"),
    [({"axis": 0}, False, ""), ({"axis": 0}, True, ""), ({}, False, ""), ({"axis": 1}, False, "48"), ({}, True, "4")],
    ids=str,
)
def test_memory_of_scales_along_columns_and_of_codes_is_asked_for(
    options: dict[str, Any], codes: bool, needed: str
) -> None:
    """All rows are read at once for them, also of types whose bit patterns could be counted."""
    info = TensorInfo("w", (50_000, 40_000), "BF16")
    asked = Recipe(("int4",), options=options, codes=codes)
    fitting = pieces.Fitting(None, asked, lambda name: 1.0, memory=3e8)  # type: ignore[arg-type]
    if not needed:
        fitting.check_memory(info, cut(info, asked))
    else:
        with pytest.raises(MemoryError, match=f"groups that reach over 2000 million values take about {needed}"):
            fitting.check_memory(info, cut(info, asked))


def test_codes_are_put_together_without_a_tensor_of_them_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "TASK_BYTES", 1 << 20)
    monkeypatch.setattr(part_files, "_CODES", 1 << 16)
    x = np.random.default_rng(2).standard_normal((512, 8192)).astype(np.float16)
    safetensors.numpy.save_file({"w": x}, tmp_path / "m.safetensors")
    job = tasks.Job(str(tmp_path / "m.safetensors"), Recipe(("int4",), ("minmax",), {"axis": 0}, codes=True))
    running.run(job, tmp_path / "run")
    tracemalloc.start()
    collecting.collect(tmp_path / "run")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All codes together would be 4 MB; the copy of a file has two buffers of one.
    assert peak < 2.6e6
    with open_checkpoint(tmp_path / "run") as found:
        codes, scale = found.bits("w.codes").view(np.int8), found["w.scale"]
    np.testing.assert_array_equal(codes, qe.quantize(x, "int4", scale))


def test_processes_of_an_executor(model: Path, tmp_path: Path) -> None:
    expected = qe.checkpoints.fit(model, "int4", axis=0, output=tmp_path / "here")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        found = qe.checkpoints.fit(model, "int4", axis=0, output=tmp_path / "there", executor=executor)
    assert found == expected
    assert results(tmp_path / "there") == results(tmp_path / "here")


@pytest.mark.parametrize("n", [64, 7, 1])
@pytest.mark.parametrize(
    ("grid", "layout"), [("int8", {"block_size": 128}), ("int8", {"axis": 0}), ("e4m3fn", {"axis": 0})], ids=str
)
def test_the_scales_of_rows_do_not_depend_on_the_rows_beside_them(n: int, grid: str, layout: dict[str, int]) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_t(5, (96 if grid == "int8" else 24, 1024)).astype(np.float32)
    whole = qe.fit(x, grid, measure=False, **layout).scale
    cut_up = [qe.fit(x[i : i + n], grid, measure=False, **layout).scale for i in range(0, len(x), n)]
    np.testing.assert_array_equal(np.concatenate(cut_up), whole)


# -- what it says ------------------------------------------------------------------------------------------------------


def test_the_folder_says_what_one_file_says(model: Path, tmp_path: Path) -> None:
    args = ("fit", model, "--grid", "int4", "--axis", 0, "--rule", "minmax")
    file = json.loads(run(*args, "--json").stdout)
    run(*args, "-o", tmp_path / "s.safetensors")
    there = json.loads(run(*args, "-o", tmp_path / "run", "--json").stdout)
    assert there == json.loads((tmp_path / "run" / "report.json").read_text())
    for one, two in zip(there["rows"], file["rows"], strict=True):
        assert one["mse"] == two["mse"]
        assert one["kurtosis"] == two["kurtosis"]
        assert one["scales"] == pytest.approx(two["scales"], rel=1e-7)
    with open_checkpoint(tmp_path / "run") as found, open_checkpoint(tmp_path / "s.safetensors") as expected:
        assert set(found) == set(expected)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
        shape = found.info("l.1.up_proj.weight.scale").shape
    assert shape == (250, 1)


def test_several_formats_are_those_one_by_one(model: Path) -> None:
    both = qe.checkpoints.fit(model, ["int4", "mxfp4", "e2m1"], rule=["minmax", "ocp", "optimal"], include=["*.q_*"])
    alone = [
        fit
        for grid in ("int4", "mxfp4", "e2m1")
        for fit in qe.checkpoints.fit(model, grid, rule=["minmax", "ocp", "optimal"], include=["*.q_*"])
    ]
    # Moments are added up in other parts where a format needs the whole tensor.
    one, two = ({(f.info.name, f.grid): (f.mse, f.scales, f.power, f.groups) for f in fits} for fits in (both, alone))
    assert one == two
    out = run("fit", model, "--grid", "int4", "--grid", "e2m1", "--include", "*.q_*").stdout
    assert "format" in out.splitlines()[1]


def test_tensors_that_are_fused_share_their_tensor_scale(model: Path, tmp_path: Path) -> None:
    names = [f"l.1.{name}.weight" for name in LAYERS[:3]]
    run("fit", model, "--grid", "nvfp4", "--together", "*.{q,k,v}_proj.weight", "-o", tmp_path / "run")
    joint = np.concatenate([read_tensor(model, name) for name in names])
    expected = qe.fit(joint, "nvfp4")
    assert expected.tensor_scale is not None
    with open_checkpoint(tmp_path / "run") as found:
        units = {name: float(found[f"{name}.tensor_scale"]) for name in [*names, "l.1.up_proj.weight"]}
        scales = np.concatenate([found[f"{name}.scale"] for name in names])
    assert {units[name] for name in names} == {expected.tensor_scale}
    assert units["l.1.up_proj.weight"] != expected.tensor_scale
    np.testing.assert_array_equal(scales, expected.scale.astype(np.float32))


def test_weights_of_columns(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    importance = {"l.1.q_proj.weight": rng.uniform(0.5, 2, 64), "l.2.q_proj.weight.weights": rng.uniform(0.5, 2, 64)}
    np.savez(tmp_path / "w.npz", **importance)
    found = qe.checkpoints.fit(model, "int4", axis=0, weights=tmp_path / "w.npz", include=["*.q_*", "*.k_*"])
    for fit in found:
        name = fit.info.name
        weights = importance.get(name, importance.get(f"{name}.weights"))
        own = qe.fit(read_tensor(model, name), "int4", axis=0, weights=weights)
        assert fit.mse["optimal"] == pytest.approx(float(own.total.mse), rel=SUM_ORDER)
        assert fit.scales[0] == pytest.approx(own.scale.min(), rel=SUM_ORDER)
    np.savez(tmp_path / "other.npz", other=np.ones(64))
    with pytest.raises(ValueError, match=r"has none for any tensor to fit, such as 'l\.1\.k_proj\.weight'"):
        qe.checkpoints.fit(model, "int4", weights=tmp_path / "other.npz", include=["*.k_*"])
    np.savez(tmp_path / "short.npz", **{"l.1.q_proj.weight": np.ones(63)})
    (failed,) = qe.checkpoints.fit(model, "int4", weights=tmp_path / "short.npz", include=["l.1.q_*"])
    assert "must broadcast to its shape (96, 64): one for each column" in failed.failed


def test_weights_of_elements_are_read_as_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "PIECE", 1 << 17)
    monkeypatch.setenv("QERROR_NUM_THREADS", "1")
    rng = np.random.default_rng(6)
    x, w = rng.standard_normal((1024, 2048)).astype(np.float16), rng.uniform(0.5, 2, (1024, 2048)).astype(np.float32)
    safetensors.numpy.save_file({"x": x}, tmp_path / "m.safetensors")
    safetensors.numpy.save_file({"x": w}, tmp_path / "w.safetensors")
    args: dict[str, Any] = {"rule": "minmax", "axis": 0, "weights": tmp_path / "w.safetensors"}
    qe.checkpoints.fit(tmp_path / "m.safetensors", "int4", output=tmp_path / "first", **args)
    tracemalloc.start()
    (found,) = qe.checkpoints.fit(tmp_path / "m.safetensors", "int4", output=tmp_path / "run", **args)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All of them would be 16 MB, and half as much again while they are made; a piece takes 7.
    assert peak < 12e6
    whole = qe.fit(x, "int4", rule="minmax", axis=0, weights=w)
    assert found.mse["minmax"] == pytest.approx(whole.total.mse, rel=SUM_ORDER)
    args["axis"] = None
    (found,) = qe.checkpoints.fit(tmp_path / "m.safetensors", "int4", **args)
    assert found.mse["minmax"] == pytest.approx(qe.fit(x, "int4", rule="minmax", weights=w).total.mse, rel=SUM_ORDER)
    info = TensorInfo("x", (40_000, 1_000), "F16")
    fitting = pieces.Fitting(None, Recipe(("int4",)), lambda name: 1.0, lambda info: None, memory=1e9)  # type: ignore[arg-type]
    with pytest.raises(MemoryError, match=r"take about 2\.1 GB"):
        fitting.check_memory(info, cut(info, Recipe(("int4",))))


def test_weights_that_have_changed_are_fitted_anew(model: Path, tmp_path: Path) -> None:
    """In whichever of several files they are."""
    (tmp_path / "w").mkdir()
    rng, found = np.random.default_rng(0), []
    for name in ("l.1.k_proj.weight", "l.2.k_proj.weight"):
        np.save(tmp_path / "w" / f"{name}.npy", np.ones(64))
    for _ in range(2):
        found += [qe.checkpoints.fit(model, "int4", weights=tmp_path / "w", include=["*.k_*"], output=tmp_path / "run")]
        np.save(tmp_path / "w" / "l.2.k_proj.weight.npy", rng.uniform(0.5, 2, 64))
        os.utime(tmp_path / "w" / "l.2.k_proj.weight.npy", (1, 1))
    assert found[0][0] == found[1][0]
    assert found[0][1].mse != found[1][1].mse


@pytest.mark.parametrize("dtype", ["<f2", "<u2"])
def test_one_scale_for_many_values_of_few_bits(tmp_path: Path, dtype: str) -> None:
    """Counted, not sorted, and the same to the bit."""
    x = np.random.default_rng(1).standard_t(6, (150, 200)).astype(np.float32)
    stored = x.astype("<f2") if dtype == "<f2" else (x.view(np.uint32) >> 16).astype("<u2")
    text = json.dumps(
        {"w": {"dtype": "F16" if dtype == "<f2" else "BF16", "shape": [150, 200], "data_offsets": [0, 60000]}}
    )
    (tmp_path / "m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text.encode() + stored.tobytes())
    values = read_tensor(tmp_path / "m.safetensors")
    for grid in ("int4", "int8", "e4m3fn", "nf4"):
        (fit,) = qe.checkpoints.fit(tmp_path / "m.safetensors", grid)
        own = qe.fit(values, grid)
        assert fit.scales == (float(own.scale),) * 3
        assert fit.mse["optimal"] == pytest.approx(float(own.total.mse), rel=SUM_ORDER)
    run("fit", tmp_path / "m.safetensors", "--grid", "int4", "--codes", "-o", tmp_path / "c.safetensors")
    codes = safetensors.numpy.load_file(tmp_path / "c.safetensors")["w.codes"]
    np.testing.assert_array_equal(codes, qe.fit(values, "int4").quantize(values))


LAYOUTS: list[tuple[tuple[int, ...], dict[str, Any], tuple[int, int]]] = [
    ((64, 128), {"axis": 0}, (64, 1)),
    ((64, 128), {"block_size": 32}, (64, 1)),
    ((64, 128), {"block_size": 32, "block_axis": 0}, (64, 32)),
    ((256, 128), {"block_size": (128, 128)}, (256, 128)),
    ((3, 64, 128), {"axis": 0}, (3, 1)),
    ((3, 64, 128), {"axis": (0, 1)}, (192, 1)),
    ((3, 64, 128), {"block_size": 32}, (192, 1)),
    ((64, 128), {"axis": 1}, (1, 1)),
    ((64, 128), {}, (1, 1)),
    ((64,), {"block_size": 16}, (64, 16)),
    ((16, 1), {"block_size": 32}, (16, 1)),
    ((4, 1, 8), {"block_size": 32, "block_axis": 1}, (4, 1)),
    ((1, 4, 8), {"block_size": 32, "block_axis": 0}, (1, 1)),
    ((5, 3, 4, 8), {"block_size": 2, "block_axis": -2}, (15, 1)),
    ((5, 3, 4, 8), {"block_size": (2, 4), "block_axis": (2, 3)}, (15, 1)),
]


@pytest.mark.parametrize(("shape", "options", "expected"), LAYOUTS, ids=str)
def test_pieces_hold_whole_groups(
    shape: tuple[int, ...],
    options: dict[str, Any],
    expected: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """What is put together of pieces is what the whole tensor gives."""
    monkeypatch.setattr(recipe, "PIECE", 1)
    how = cut(TensorInfo("w", shape, "F32"), Recipe(("int4",), options=options))
    assert (how.rows, how.step) == expected
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    np.save(tmp_path / "w.npy", x)
    own = qe.fit(x, "int4", rule="minmax", **options)
    fits = qe.checkpoints.fit(
        tmp_path / "w.npy", "int4", rule="minmax", output=tmp_path / "run", one_dimensional=True, codes=True, **options
    )
    assert fits[0].mse["minmax"] == pytest.approx(float(own.total.mse), rel=SUM_ORDER)
    with open_checkpoint(tmp_path / "run") as found:
        np.testing.assert_array_equal(found["w.scale"], np.asarray(own.scale, np.float32))
        np.testing.assert_array_equal(found.bits("w.codes").view(np.int8), own.quantize(x))


@pytest.mark.parametrize("shape", [(16, 1), (8, 4, 1, 1)], ids=str)
def test_blocks_along_an_axis_of_one_do_not_reach_over_rows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Kernels of 1 by 1."""
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    np.save(tmp_path / "w.npy", x)
    for grid, options in (("mxfp4", {}), ("int4", {"block_size": 32})):
        (fit,) = qe.checkpoints.fit(tmp_path / "w.npy", grid, rule="minmax", **options)  # type: ignore[arg-type]
        own = qe.fit(x, grid, rule="minmax", **options)  # type: ignore[arg-type]
        assert fit.groups == x.size
        assert fit.mse["minmax"] == pytest.approx(float(own.total.mse), rel=SUM_ORDER)


def test_a_rule_that_pools_all_groups_sees_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "PIECE", 1)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((40, 64)), rng.laplace(size=(40, 64))]).astype(np.float32)
    np.save(tmp_path / "w.npy", x)
    (fit,) = qe.checkpoints.fit(tmp_path / "w.npy", "int4", axis=0, rule="analytic:family=auto")
    own = qe.fit(x, "int4", axis=0, rule="analytic:family=auto")
    assert fit.mse["analytic:family=auto"] == pytest.approx(float(own.total.mse), rel=SUM_ORDER)


def test_given_scales_are_cut_like_their_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "PIECE", 1)
    x = np.random.default_rng(0).standard_normal((75, 40)).astype(np.float32)
    np.save(tmp_path / "w.npy", x)
    for layout, options in (
        (("--axis", 0), {"axis": 0}),
        (("--block", 32, "--block-axis", 0), {"block_size": 32, "block_axis": 0}),
    ):
        scale = qe.fit(x, "int4", rule="minmax", **options).scale.astype(np.float32)
        np.savez(tmp_path / "s.npz", **{"w.scale": scale})
        found = json.loads(
            run("fit", tmp_path / "w.npy", "--grid", "int4", *layout, "--scales", tmp_path / "s.npz", "--json").stdout
        )
        own = qe.evaluate(x, "int4", scale, **options)
        assert found["rows"][0]["mse"]["given"] == pytest.approx(float(own.total.mse), rel=SUM_ORDER)


def test_a_nan_beside_a_shared_tensor_scale_is_named(tmp_path: Path) -> None:
    bad = np.ones((2, 16), np.float32)
    bad[1, 3] = np.nan
    good = np.ones((2, 16), np.float32)
    safetensors.numpy.save_file({"l.q.w": bad, "l.k.w": good, "m.q.w": good}, tmp_path / "m.safetensors")
    result = run("fit", tmp_path / "m.safetensors", "--grid", "nvfp4", "--together", "*.{q,k}.w", status=1)
    words = result.stderr.splitlines()
    assert "not fitted: l.k.w: 'l.q.w', which shares the tensor scale, has NaN; leave it out or mend it" in words
    assert any(line.startswith("not fitted: l.q.w: x must be finite, got 1 NaN of 32 values") for line in words)
    assert "m.q.w" in result.stdout


def test_progress_names_the_tensor_and_moves_within_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "PIECE", 1024)
    for output in (None, tmp_path / "run", tmp_path / "run"):
        heard: list[tuple[str, int, int]] = []

        def listen(name: str, size: int, total: int, heard: list[tuple[str, int, int]] = heard) -> None:
            heard.append((name, size, total))

        qe.checkpoints.fit(model, "int4", axis=0, rule="minmax", output=output, progress=listen)
        assert {name for name, _, _ in heard} == {f"l.{n}.{name}.weight" for n in (1, 2) for name in LAYERS}
        (total,) = {said[2] for said in heard}
        assert sum(size for _, size, _ in heard) == total == 2 * ((96 + 32 + 32) * 64 * 2 + 250 * 64 * 4)
        if not (tmp_path / "run").exists():
            assert len(heard) > 30


def test_moments_of_parts_are_those_of_the_whole() -> None:
    x = np.random.default_rng(4).gamma(2.0, size=1000)
    whole = moments_of(x)
    halves = [moments_of(part) for part in np.split(x, [1, 10, 700])]
    np.testing.assert_allclose(joined(halves), whole, rtol=1e-12)
    away = x - x.mean()
    assert whole.kurtosis == pytest.approx((away**4).mean() / (away**2).mean() ** 2 - 3, rel=1e-12)


def test_a_limit_of_memory_is_kept_or_said(model: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((2000, 2000)).astype(np.float32)
    np.save(tmp_path / "w.npy", x)
    args = ("fit", tmp_path / "w.npy", "--grid", "int4", "--memory", "235MB")
    result = run(*args, "--rule", "octav", status=1)
    assert "groups that reach over 4 million values take about 0.2 GB; allow them, as in --memory 1GB" in result.stderr
    run(*args, "--axis", 0, "--rule", "minmax")
    # The best scale of float32 values is found with few of them in memory.
    little = json.loads(run(*args, "--json").stdout)["rows"][0]
    much = json.loads(run(*args[:4], "--json").stdout)["rows"][0]
    assert little["mse"]["optimal"] == pytest.approx(much["mse"]["optimal"], rel=1e-11)
    assert little["scales"] == pytest.approx(much["scales"], rel=1e-11)
    assert little["kurtosis"] == pytest.approx(much["kurtosis"], rel=1e-11)
    words = run("fit", model, "--grid", "int4", "--memory", "100MB", status=2).stderr
    assert "memory must be 230MB at least, got 100MB" in words
    assert "--memory must be a size" in run("fit", model, "--grid", "int4", "--memory", "lots", status=2).stderr


# -- resuming, and what may die ----------------------------------------------------------------------------------------


def test_what_is_there_is_not_done_again(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qe.checkpoints.fit(model, "int4", axis=0, output=tmp_path / "run")
    before = results(tmp_path / "run")
    monkeypatch.setattr(running, "compute", lambda *args: pytest.fail("does it again"))
    qe.checkpoints.fit(model, "int4", axis=0, output=tmp_path / "run")
    assert results(tmp_path / "run") == before


def test_another_input_is_fitted_anew_and_another_plan_is_refused(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m.safetensors"
    copy.write_bytes((model / "model-00001-of-00002.safetensors").read_bytes())
    run("fit", copy, "--grid", "int4", "--axis", 0, "-o", tmp_path / "run")
    tensors = safetensors.numpy.load_file(copy)
    safetensors.numpy.save_file({name: 2 * x for name, x in tensors.items()}, copy)
    os.utime(copy, (1, 1))
    run("fit", copy, "--grid", "int4", "--axis", 0, "-o", tmp_path / "run")
    run("fit", copy, "--grid", "int4", "--axis", 0, "-o", tmp_path / "new")
    assert results(tmp_path / "run") == results(tmp_path / "new")
    words = run("fit", copy, "--grid", "int8", "--axis", 0, "-o", tmp_path / "run", status=2).stderr
    assert "holds another fit (grids ['int4'], not ['int8']); name another folder" in words
    words = run("fit", copy, "--grid", "int4", "-o", tmp_path / "run", status=2).stderr
    assert "holds another fit (axis 0, not None)" in words


def test_a_worker_that_sees_another_input_says_so(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"w": np.ones((4, 8), np.float32)}, tmp_path / "m.safetensors")
    job = tasks.Job(str(tmp_path / "m.safetensors"), Recipe(("int4",), options={"axis": 0}))
    _, _, (task,), _ = running.prepare(job, tmp_path / "run")
    os.utime(tmp_path / "m.safetensors", (1, 1))
    with pytest.raises(ValueError, match="'w' has changed since the work was planned, or this worker has another"):
        running.work_on(job, str(tmp_path / "run"), folder.Batch((task,)))


def test_what_could_not_be_fetched_is_no_answer(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that fails for a moment: the next run tries again."""

    def broken(*args: Any) -> Any:
        raise sources.ReadError("'s3://bucket/m' cannot be read: ServerDisconnectedError")

    args = ("fit", model, "--grid", "int4", "--axis", 0, "--include", "*.k_*", "-o", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(pieces.Fitting, "_piece", broken)
        words = run(*args, status=2).stderr
    assert words == "qerror: 's3://bucket/m' cannot be read: ServerDisconnectedError\n"
    assert parts(tmp_path / "run") == {}
    assert "not fitted" not in run(*args).stderr


def test_a_file_that_is_replaced_while_it_is_read_gives_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "m.safetensors", running.compute
    safetensors.numpy.save_file({"w": np.ones((4, 8), np.float32)}, path)

    def replaced(*args: Any) -> Any:
        safetensors.numpy.save_file({"w": np.full((4, 8), 2, np.float32)}, path)
        os.utime(path, (1, 1))
        return whole(*args)

    monkeypatch.setattr(running, "compute", replaced)
    with pytest.raises(ValueError, match="'w' has changed since the work was planned"):
        qe.checkpoints.fit(path, "int4", axis=0, output=tmp_path / "run")
    assert parts(tmp_path / "run") == {}


def test_python_goes_on_where_the_command_line_was(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("fit", model, "--grid", "int4", "--axis", 0, "--include", "*.k_*", "-o", tmp_path / "run")
    before = results(tmp_path / "run")
    monkeypatch.setattr(running, "compute", lambda *args: pytest.fail("does it again"))
    qe.checkpoints.fit(model, "int4", axis=0, include=["*.k_*"], output=tmp_path / "run")
    assert results(tmp_path / "run") == before


KILLED = """
import os, signal, sys
from qerror.checkpoints import folder, running, fit
folder._SMALL = -1
whole, calls = running.compute, []
def compute(*args):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*args)
running.compute = compute
fit(sys.argv[1], "int4", axis=0, output=sys.argv[2], shard=sys.argv[3] or None, stale_after=1.0)
"""
KILLED_WRITING = """
import os, signal, sys
from qerror.checkpoints import folder, fit
folder._SMALL = -1
whole, calls = os.fsync, []
def fsync(file):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(file)
os.fsync = fsync
fit(sys.argv[1], "int4", axis=0, output=sys.argv[2], shard=sys.argv[3] or None, stale_after=1.0)
"""


def start(code: str, *args: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)])


@pytest.mark.parametrize(
    ("code", "shard"), [(KILLED, ""), (KILLED_WRITING, "1/2")], ids=["between", "within a write of a shard"]
)
def test_a_killed_run_is_taken_up_where_it_was(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, shard: str
) -> None:
    qe.checkpoints.fit(model, "int4", axis=0, output=tmp_path / "whole")
    process = start(code, model, tmp_path / "run", shard)
    assert process.wait(60) == -signal.SIGKILL
    visible = [name for name in parts(tmp_path / "run") if not name.startswith(".")]
    assert len(visible) == 2
    for name in visible:
        safetensors.numpy.load_file(tmp_path / "run" / "parts" / name)
    assert len(list((tmp_path / "run" / "claims").iterdir())) == 1
    with pytest.raises(ValueError, match=r"has 2 of 8 parts; of 'l\.\d\."):
        qe.checkpoints.collect(tmp_path / "run")
    # The dead one's claim is taken over without waiting for it to grow old.
    monkeypatch.setattr(running.time, "sleep", lambda seconds: pytest.fail("waits for the dead"))
    qe.checkpoints.fit(model, "int4", axis=0, output=tmp_path / "run")
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    assert {name: parts(tmp_path / "whole")[name] for name in visible} == {
        n: parts(tmp_path / "run")[n] for n in visible
    }
    assert list((tmp_path / "run" / "claims").iterdir()) == []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many small tensors, one of them with a NaN, around a large one."""
    rng = np.random.default_rng(3)
    tensors = {f"e.{i:02}.w": rng.standard_t(5, (4, 32)).astype(np.float16) for i in range(24)}
    tensors["e.07.w"][2, 5] = np.nan
    tensors["e.11.w"] = rng.standard_normal((1100, 1024)).astype(np.float16)
    path = tmp_path_factory.mktemp("small") / "m.safetensors"
    safetensors.numpy.save_file(tensors, path)
    return path


def test_a_batch_of_small_tensors_is_one_file_and_changes_no_byte(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        "grid": ["nvfp4", "int4"],
        "rule": ["minmax", "optimal"],
        "codes": True,
        "exclude": "*11*",
    }
    qe.checkpoints.fit(small, output=tmp_path / "batch", **options)
    qe.checkpoints.fit(small, "int4", axis=0, output=tmp_path / "large")
    assert sorted(name.split("-")[0] for name in parts(tmp_path / "large")) == ["e.00.w", "e.11.w"]
    (name,) = parts(tmp_path / "batch")
    assert name.startswith("e.00.w-and-22-more-")
    found = json.loads((tmp_path / "batch" / "report.json").read_text())
    assert [row["tensor"] for row in found["left_out"]] == ["e.07.w"]
    scan = qe.checkpoints.scan(small, output=tmp_path / "s.safetensors")
    assert scan.left_out["e.07.w"] == "x must be finite, got 1 NaN of 128 values"
    monkeypatch.setattr(folder, "_SMALL", -1)
    qe.checkpoints.fit(small, output=tmp_path / "alone", **options)
    assert len(parts(tmp_path / "alone")) == 23
    assert results(tmp_path / "alone") == results(tmp_path / "batch")
    qe.checkpoints.scan(small, output=tmp_path / "t.safetensors")
    assert (tmp_path / "s.safetensors").read_bytes() == (tmp_path / "t.safetensors").read_bytes()


def test_a_batch_may_hold_several_parts_of_a_tensor(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "PIECE", 64)
    options: dict[str, Any] = {"grid": "int4", "axis": 0, "exclude": "*11*"}
    qe.checkpoints.fit(small, output=tmp_path / "whole", **options)
    monkeypatch.setattr(tasks, "TASK_BYTES", 64)
    qe.checkpoints.fit(small, output=tmp_path / "rows", **options)
    assert len(folder.Folder(tmp_path / "rows").plan()["tasks"]) == 2 * 23
    assert len(parts(tmp_path / "rows")) == 1
    assert results(tmp_path / "rows") == results(tmp_path / "whole")


def test_a_batch_appears_whole_or_not_at_all(small: Path, tmp_path: Path) -> None:
    qe.checkpoints.fit(small, "int4", axis=0, output=tmp_path / "whole")
    # Largest first, then the others, in the midst of which the process dies.
    code = KILLED.replace("folder._SMALL = -1\n", "").replace("== 3", "== 9")
    assert start(code, small, tmp_path / "run", "").wait(60) == -signal.SIGKILL
    assert [name.split("-")[0] for name in parts(tmp_path / "run")] == ["e.11.w"]
    with pytest.raises(ValueError, match=r"has 1 of 24 parts; of 'e\.00\.w'"):
        qe.checkpoints.collect(tmp_path / "run")
    qe.checkpoints.fit(small, "int4", axis=0, output=tmp_path / "run")
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_claims_of_this_machine_live_as_long_as_their_process(tmp_path: Path) -> None:
    held = claims.Claims(tmp_path, stale_after=60.0)
    with held.held("task") as own, held.held("task") as again:
        assert (own, again) == (True, False)
        host, process, life, machine = (tmp_path / "task").read_text().split()
        os.utime(tmp_path / "task", (1, 1))
        # Alive, and only slow to say so.
        assert not held.abandoned(tmp_path / "task")
    assert list(tmp_path.iterdir()) == []
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    # Whose number another process has by now, who has ended, and in other containers and on other machines by the time.
    cases = [(process, "1", machine, 0, True), (str(ended.pid), life, machine, 0, True)]
    for other in (f"{machine}x", "unknown"):
        cases += [(process, life, other, 0, False), (process, life, other, 61, True), (process, "1", other, 0, False)]
    for number, start, where, age, gone in cases:
        (tmp_path / "task").write_text(f"{host} {number} {start} {where}\n")
        os.utime(tmp_path / "task", (time.time() - age,) * 2)
        assert held.abandoned(tmp_path / "task") is gone, (number, start, where, age)
    for half in ("", "host 12"):
        (tmp_path / "task").write_text(half)
        assert not held.abandoned(tmp_path / "task")
        os.utime(tmp_path / "task", (time.time() - 61,) * 2)
        with held.held("task") as own:
            assert own


KILLED_SCAN = """
import os, signal, sys
from qerror.checkpoints import folder, running, scan, scanning
scanning._TASK, folder._SMALL = 2048, -1
whole, calls = running.compute, []
def compute(*args):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*args)
running.compute = compute
scan(sys.argv[1], bits=16, output=sys.argv[2], shard=sys.argv[3] or None)
"""


@pytest.mark.parametrize("shard", ["", "2/2"])
def test_a_killed_scan_is_taken_up_where_it_was(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: str
) -> None:
    qe.checkpoints.scan(model, bits=16).save(tmp_path / "whole.safetensors")
    place = tmp_path / "s.safetensors"
    assert start(KILLED_SCAN, model, place, shard).wait(60) == -signal.SIGKILL
    assert [file.name for file in tmp_path.iterdir() if file.name != "whole.safetensors"] == ["s.safetensors.parts"]
    visible = {name: content for name, content in parts(tmp_path / "s.safetensors.parts").items() if name[0] != "."}
    assert len(visible) == 3
    monkeypatch.setattr(scanning, "_TASK", 2048)
    monkeypatch.setattr(running.time, "sleep", lambda seconds: pytest.fail("waits for the dead"))
    calls, compute = [], running.compute
    monkeypatch.setattr(running, "compute", lambda *args: calls.append(args[2]) or compute(*args))
    qe.checkpoints.scan(model, bits=16, output=place)
    assert not {task.file for task in calls} & visible.keys()
    assert place.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert visible.items() <= parts(tmp_path / "s.safetensors.parts").items()
    calls.clear()
    assert qe.checkpoints.scan(model, bits=16, output=place)["l.1.q_proj.weight"].exact
    assert calls == []


def test_any_division_of_a_scan_gives_the_same_bytes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "model"
    copy.mkdir()
    for file in model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    run("scan", copy, "-o", tmp_path / "whole.safetensors")
    expected = (tmp_path / "whole.safetensors").read_bytes()
    qe.checkpoints.scan(copy).save(tmp_path / "memory.safetensors")
    monkeypatch.setattr(scanning, "_TASK", 1024)
    qe.checkpoints.scan(copy).save(tmp_path / "small.safetensors")
    with ThreadPoolExecutor(3) as executor:
        qe.checkpoints.scan(copy, output=tmp_path / "threads.safetensors", executor=executor)
    # Two at a time: each ends with the whole sketch.
    with ThreadPoolExecutor(2) as both:
        args = [("scan", copy, "-o", tmp_path / "shards.safetensors", "--shard", f"{i}/2") for i in (1, 2)]
        calls = [both.submit(qe.checkpoints.scan, copy, output=each[3], shard=each[5]) for each in args]
        assert [len(call.result()) for call in calls] == [10, 10]
    run(*args[0])
    for name in ("memory", "small", "threads", "shards"):
        assert (tmp_path / f"{name}.safetensors").read_bytes() == expected, name
    # What has changed of the model is read again, and no more.
    file = copy / "model-00001-of-00002.safetensors"
    safetensors.numpy.save_file({name: 2 * x for name, x in safetensors.numpy.load_file(file).items()}, file)
    os.utime(file, (1, 1))
    seen, compute = set(), running.compute
    monkeypatch.setattr(running, "compute", lambda *args: seen.add(args[2].name[:4]) or compute(*args))
    found = json.loads(run(*args[1], "--json").stdout)
    assert seen == {"l.1."}
    assert (found["command"], len(found["rows"]), found["left_out"]) == ("scan", 10, {})
    qe.checkpoints.scan(copy).save(tmp_path / "memory.safetensors")
    assert (tmp_path / "memory.safetensors").read_bytes() == (tmp_path / "shards.safetensors").read_bytes() != expected
    words = run(*args[0], "--bits", 16, status=2).stderr
    assert "shards.safetensors.parts' holds another scan (bits 20, not 16); delete it or name another sketch" in words
    assert "holds a scan, not a fit" in run("collect", tmp_path / "shards.safetensors.parts", status=2).stderr
    # Those of the model as it was are there, too.
    for damaged in (tmp_path / "shards.safetensors.parts" / "parts").iterdir():
        damaged.write_bytes(damaged.read_bytes()[:-9])
    assert "is damaged" in run(*args[0], status=2).stderr


def test_values_that_are_not_finite_are_found_in_any_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "_TASK", 4)
    x = np.ones((4, 4), np.float32)
    x[1, 1], x[3, 2] = np.nan, np.inf
    safetensors.numpy.save_file({"a": x, "b": x.astype(np.float16), "c": x[:1]}, tmp_path / "m.safetensors")
    found = qe.checkpoints.scan(tmp_path / "m.safetensors", output=tmp_path / "s.safetensors")
    assert list(found) == ["c"]
    assert found.left_out["a"] == "x must be finite, got 1 NaN and 0 infinite of values 4 to 8"
    assert found.left_out["b"] == "x must be finite, got 1 NaN and 1 infinite of 16 values"


def test_two_processes_in_one_folder_both_finish(model: Path, tmp_path: Path) -> None:
    code = "import sys; from qerror.checkpoints import fit; fit(sys.argv[1], 'int8', axis=0, output=sys.argv[2])"
    qe.checkpoints.fit(model, "int8", axis=0, output=tmp_path / "whole")
    both = [start(code, model, tmp_path / "run") for _ in range(2)]
    seen = 0
    while any(process.poll() is None for process in both):
        for file in (tmp_path / "run" / "parts").glob("[!.]*.safetensors"):
            safetensors.numpy.load_file(file)
            seen += 1
        time.sleep(0.02)
    assert [process.returncode for process in both] == [0, 0]
    assert seen
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    assert not [name for name in parts(tmp_path / "run") if name.startswith(".")]


def test_a_shard_that_died_is_taken_over_by_the_others(model: Path, tmp_path: Path) -> None:
    process = start(KILLED, model, tmp_path / "run", "1/2")
    qe.checkpoints.fit(model, "int4", axis=0, output=tmp_path / "run", shard="2/2", stale_after=1.0)
    process.wait(60)
    qe.checkpoints.collect(tmp_path / "run")
    qe.checkpoints.fit(model, "int4", axis=0, output=tmp_path / "whole")
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_a_full_disk_loses_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = folder.open_scales, []

    def full(path: Path, *args: Any) -> Any:
        calls.append(path)
        if len(calls) > 3:
            raise OSError(28, "No space left on device", str(path))
        return whole(path, *args)

    monkeypatch.setattr(folder, "open_scales", full)
    args = ("fit", model, "--grid", "int4", "--axis", 0, "-o", tmp_path / "run")
    (line,) = run(*args, status=2).stderr.splitlines()
    assert "No space left on device; check its permissions and the space left" in line
    assert len(parts(tmp_path / "run")) == 3
    assert list((tmp_path / "run" / "claims").iterdir()) == []
    monkeypatch.undo()
    run(*args)
    run("fit", model, "--grid", "int4", "--axis", 0, "-o", tmp_path / "new")
    assert results(tmp_path / "run") == results(tmp_path / "new")


def test_a_worker_that_cannot_write_is_not_asked_for_ever(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def full(path: Path, *args: Any) -> Any:
        calls.append(path)
        raise OSError(28, "No space left on device", str(path)) if len(calls) < 50 else MemoryError("for ever")

    monkeypatch.setattr(folder, "open_scales", full)
    with ThreadPoolExecutor(1) as executor, pytest.raises(OSError, match="No space left on device"):
        qe.checkpoints.fit(model, "int4", axis=0, include=["*.k_*"], output=tmp_path / "run", executor=executor)
    assert len(calls) <= 2 * running._TRIES


def test_a_worker_that_lives_on_reads_a_changed_file_anew(tmp_path: Path) -> None:
    """Where tensors begin is known from the old header: the same shapes may be at other bytes."""
    path, x = tmp_path / "m.safetensors", np.arange(1, 33, dtype=np.float32).reshape(4, 8)
    with ThreadPoolExecutor(1) as executor:
        for number, metadata in enumerate((None, {"made by": "another program"})):
            safetensors.numpy.save_file({"w": (1 + number) * x}, path, metadata=metadata)
            os.utime(path, (number, number))
            found = qe.checkpoints.fit(path, "int4", axis=0, output=tmp_path / str(number), executor=executor)
            assert found[0].mse == qe.checkpoints.fit(path, "int4", axis=0)[0].mse


def test_a_place_that_cannot_be_written_costs_one_line(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "run", "/proc/qerror-run"):
        (line,) = run("fit", model, "--grid", "int4", "-o", place, status=2).stderr.splitlines()
        assert line.startswith("qerror: ")
    words = run("collect", tmp_path, status=2).stderr
    assert "holds no fit; `qerror fit MODEL --grid ... -o DIR` makes one" in words


def test_a_tensor_that_cannot_be_fitted_does_not_stop_a_run(tmp_path: Path) -> None:
    bad = np.ones((2, 3), np.float32)
    bad[1, 2] = np.nan
    safetensors.numpy.save_file({"bad": bad, "good": np.ones((2, 4), np.float32)}, tmp_path / "m.safetensors")
    result = run("fit", tmp_path / "m.safetensors", "--grid", "int4", "-o", tmp_path / "run", status=1)
    (line,) = result.stderr.splitlines()
    assert line.startswith("not fitted: bad: x must be finite, got 1 NaN of 6 values")
    with open_checkpoint(tmp_path / "run") as found:
        assert sorted(found) == ["good.scale", "good.shift"]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["left_out"][0]["failed"].startswith("x must be finite")


def test_a_run_that_ends_leaves_the_shards_of_a_slow_collect_alone(model: Path, tmp_path: Path) -> None:
    job = tasks.Job(str(model), Recipe(("int4",)), include=("*.k_*",))
    running.run(job, tmp_path / "run")
    half, dead = tmp_path / "run" / "parts" / ".run.1.part.safetensors", tmp_path / "run" / "claims" / "x"
    for file, age in ((half, 3600), (dead, 3600)):
        file.touch()
        os.utime(file, (time.time() - age,) * 2)
    running.run(job, tmp_path / "run")
    assert (half.exists(), dead.exists()) == (True, False)
    os.utime(half, (1, 1))
    running.run(job, tmp_path / "run")
    assert not half.exists()


def test_collects_at_the_same_time_on_machines_with_the_same_numbers(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers number their processes alike: each collects to files of its own."""
    monkeypatch.setattr(collecting, "_SHARD", 1)
    run("fit", model, "--grid", "int4", "--include", "*.k_*", "-o", tmp_path / "run")
    expected, finish = results(tmp_path / "run"), collecting._Shards.finish
    inner: list[int] = []

    def between(self: Any) -> None:
        if not inner:
            inner.append(1)
            collecting.collect(tmp_path / "run")
        finish(self)

    monkeypatch.setattr(collecting._Shards, "finish", between)
    collecting.collect(tmp_path / "run")
    assert results(tmp_path / "run") == expected


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"tasks": 3, "asked": {}}', '{"tasks": []}', '{"tasks": [], "asked": {"recipe": {}}}']
)
def test_a_damaged_plan_or_part_is_said(model: Path, tmp_path: Path, damage: str) -> None:
    run("fit", model, "--grid", "int4", "--include", "*.k_*", "-o", tmp_path / "run")
    part = next((tmp_path / "run" / "parts").iterdir())
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    for words in ("is damaged (", "); delete it and run the same command again"):
        assert words in run("collect", tmp_path / "run", status=2).stderr
    part.write_bytes(content.replace(b'\\"moments\\"', b'\\"momentz\\"'))
    assert "is damaged" in run("collect", tmp_path / "run", status=2).stderr
    (tmp_path / "run" / "plan.json").write_text(damage)
    words = run("collect", tmp_path / "run", status=2).stderr
    assert "plan.json' is damaged; delete it and run the same command again" in words


BAD = [
    (["--shard", "1/2"], "--shard needs a folder in which the parts are shared: -o DIR"),
    (["--shard", "3/2", "-o", "run"], "shard must be i/n with 1 <= i <= n, as in 1/8, got '3/2'"),
    (["--engine", "dask:x", "-o", "s.json"], "--engine needs a folder"),
    (["--engine", "ray:x", "-o", "run"], "engine must be dask:ADDRESS"),
    (["--scales", "s.json", "-o", "run"], "--scales compares in a table; leave out -o"),
    (["--together"], "together is for formats with a tensor scale, as nvfp4, and int4 has none; leave it out"),
    (
        ["--grid", "nvfp4", "--together", "[z-a].w"],
        "patterns of names must hold * ** ? [abc] {a,b}, got '[z-a].w' (bad",
    ),
    (["-o", "Qwen2.5-7B"], "got 'Qwen2.5-7B'; a folder with a dot in its name must end in /"),
    (["-o", "none/s.json"], "does not exist; make it first"),
    (["--grid", "int8", "-o", "s.json"], "-o writes the scales of one rule"),
]


@pytest.mark.parametrize(("args", "words"), BAD, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bad_options_cost_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (line,) = run("fit", model, "--grid", "int4", *args, status=2).stderr.splitlines()
    assert words in line


def test_tensors_that_runtimes_fuse_are_known(model: Path, tmp_path: Path) -> None:
    args = ("fit", model, "--grid", "nvfp4", "--rule", "absmax")
    known = run(*args, "--together", "*.{q,k,v}_proj.weight", "--json")
    assert json.loads(known.stdout)["together"] == {"*.{q,k,v}_proj.weight": 2}
    for place in ((), ("-o", tmp_path / "run")):
        out = run(*args, "--together", *place, "--json").stdout
        assert json.loads(out)["together"] == {"*.{q,k,v}_proj.weight": 2}
        assert (
            "tensors that share a tensor scale: 2 x *.{q,k,v}_proj.weight\n" in run(*args, "--together", *place).stdout
        )
    assert "tensor scale: none that the patterns match" in run(*args, "--together", "*.nothing").stdout
    # In front of the model: its name is no pattern.
    assert json.loads(run("fit", "--together", *args[1:], "--json").stdout) == json.loads(known.stdout)
    names = [
        f"{p}.{n}.weight" for p in ("a", "b") for n in ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "mlp.gate")
    ]
    names += [f"layers.0.block_sparse_moe.experts.{i}.w{j}.weight" for i in (0, 1) for j in (1, 2, 3)]
    names += ["h.0.attention.query_key_value.weight", "block.0.layer.0.SelfAttention.q.weight"]
    shared = recipe.shared_scales(names, recipe.with_fused(["fused"]))
    assert shared == {"*.{gate,up}_proj.weight": 2, "*.{w1,w3}.weight": 2}


def test_what_the_library_made_is_no_model(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    args = ("--include", "*.k_*", "--rule", "minmax")
    run("fit", model, "--grid", "int4", *args, "-o", "run")
    run("fit", model, "--grid", "int4", "--grid", "int8", *args, "-o", "several")
    run("fit", model, "--grid", "int4", *args, "-o", "s.safetensors")
    run("scan", model, "-o", "sketch.safetensors")
    cases = {
        "run": "scales, no weights; `qerror collect` prints its report, fit and scan take the model",
        "several": "scales, no weights; `qerror collect` prints its report",
        "several/int8": "and --scales FILE compares with them",
        "s.safetensors": "no weights; name the model, and --scales FILE compares with them",
        "sketch.safetensors": "is a sketch, not a model; `qerror ask SKETCH --grid ...` answers from it",
        "sketch.safetensors.parts": "holds the parts of a scan, not a model; name the model",
    }
    for place, words in cases.items():
        for command in (("fit", place, "--grid", "int4"), ("scan", place, "-o", "x.safetensors")):
            assert words in run(*command, status=2).stderr.replace(f"{tmp_path}/", ""), place
    assert not (tmp_path / "x.safetensors.parts").exists()


def test_natural_arguments_of_other_types_are_taken(model: Path, tmp_path: Path) -> None:
    expected = qe.checkpoints.fit(model, ["int4"], axis=0, include=["*.k_*"], output=tmp_path / "run")
    found = qe.checkpoints.fit(
        str(model),
        qe.grid("int4"),
        rule=("optimal",),
        axis=np.int64(0),
        include="*.k_*",
        output=str(tmp_path / "run"),
        memory="500 MB",
        shift=np.float32(0),
        codes=np.False_,
        zero_point=None,
    )
    assert found == expected
    assert qe.checkpoints.fit(model, "nvfp4", include="*.k_*", together="fused")[0].mse
    assert list(qe.checkpoints.scan(model, bits=np.int64(16), include="*.k_*")) == [
        "l.1.k_proj.weight",
        "l.2.k_proj.weight",
    ]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"axis": 0.5}, r"axis must be an integer, got 0\.5"),
    ({"memory": "lots"}, "memory must be a size such as 500MB or 4GB, got 'lots'"),
    ({"memory": -1}, "memory must be a size such as 500MB or 4GB, got -1"),
    ({"include": [3]}, "include must be a text or several, got 3"),
    ({"rule": 3}, "rule must be a text or several, got 3"),
    ({"grid": qe.Grid([0.0, 1.0, 3.0])}, "grid must be the name of a format, got .* which has none"),
    ({"grid": 4}, "grid must be a text or several, got 4"),
    ({"shift": [0.0, 1.0]}, "shift must be one number for all tensors, mean or optimal"),
    ({"output": 3}, "output must be a path, got 3"),
    ({"weights": {"w": 1}}, "weights must be a path, got"),
    ({"stale_after": 0}, "stale_after must be a positive number of seconds, got 0"),
    ({"executor": "dask:x", "output": "run"}, "executor must be a concurrent.futures.Executor, got 'dask:x'"),
    ({"shard": 3, "output": "run"}, "shard must be i/n with 1 <= i <= n, as in 1/8, got 3"),
    ({"model": 3}, "path must be a path, or several, got 3"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=lambda v: ", ".join(v) if isinstance(v, dict) else "")
def test_other_types_are_refused_by_name(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        qe.checkpoints.fit(**{"model": model, "grid": "int4", **arguments})


def test_shards_begin_with_their_own_and_take_what_is_left() -> None:
    every = folder.batches(tasks.Task(f"t{i}", 0, 1, size, f"f{i}") for i, size in enumerate((5, 9, 1, 7)))
    assert [task.size for task in Shard(1, 2).order(every)] == [9, 5, 1, 7]
    assert [task.size for task in Shard(2, 2).order(every)] == [7, 1, 5, 9]


def test_the_model_is_never_written_over(model: Path, tmp_path: Path) -> None:
    place, link = tmp_path / "model.safetensors", tmp_path / "link.safetensors"
    content = (model / "model-00001-of-00002.safetensors").read_bytes()
    place.write_bytes(content)
    link.symlink_to(place)
    for args in (("fit", place, "--grid", "int4", "-o", link), ("scan", place, "-o", place)):
        assert "-o must not be a file of the model itself, got" in run(*args, status=2).stderr
    # An index of scales beside the shards would be taken for the model's.
    words = run("fit", place, "--grid", "int4", "-o", tmp_path, status=2).stderr
    assert "-o must not be the folder of the model itself" in words
    assert place.read_bytes() == content
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link.safetensors", "model.safetensors"]
