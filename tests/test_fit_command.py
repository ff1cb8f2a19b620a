"""Whole checkpoints: what `qerror fit` prints and writes, what it leaves out, how it fails."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner, Result

import qerror as qe
from qerror.checkpoints import fitting as checkpoint_fit
from qerror.cli.commands import qerror_command
from qerror.files import example_checkpoint, open_checkpoint, read_tensor
from qerror.files.scales import open_scales, read_scales

EXAMPLE = str(example_checkpoint())
RNG = np.random.default_rng(11)
# Sums over tensors in another order.
SUM_ORDER = 1e-12


def run(*args: Any, status: int = 0) -> Result:
    result = CliRunner().invoke(qerror_command, ["fit", *map(str, args)])
    assert result.exit_code == status, result.output
    return result


def content(*args: Any, status: int = 0) -> Any:
    return json.loads(run(*args, "--json", status=status).stdout)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two weights, a bias, integers and an empty tensor."""
    tensors = {
        "a.weight": RNG.standard_t(4, (6, 40)).astype(np.float32),
        "b.weight": RNG.standard_normal((4, 33)).astype(np.float16),
        "b.bias": RNG.standard_normal(7).astype(np.float32),
        "ids": np.arange(6, dtype=np.int64).reshape(2, 3),
        "empty": np.zeros((0, 3), np.float32),
    }
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_rows_are_what_fit_says(file: Path) -> None:
    found = content(file, "--grid", "int4", "--axis", 0, "--rule", "minmax", "--rule", "octav")
    assert [row["tensor"] for row in found["rows"]] == ["a.weight", "b.weight"]
    row = found["rows"][0]
    x = read_tensor(file, "a.weight")
    for rule in ("minmax", "octav"):
        result = qe.fit(x, "int4", rule=rule, axis=0)
        assert row["mse"][rule] == pytest.approx(result.total.mse, rel=SUM_ORDER)
        assert row["lost_db"][rule] == pytest.approx(result.total_excess_db, abs=1e-9)
    scales = qe.fit(x, "int4", rule="minmax", axis=0).scale
    assert row["scales"] == pytest.approx([scales.min(), np.median(scales), scales.max()], rel=SUM_ORDER)
    assert row["groups"] == 6
    y = x.astype(np.float64) - x.mean(dtype=np.float64)
    assert row["kurtosis"] == pytest.approx((y**4).mean() / (y**2).mean() ** 2 - 3, rel=1e-10)
    assert {entry["tensor"]: entry["skipped"] for entry in found["left_out"]} == {
        "b.bias": "1-D",
        "ids": "element type I64",
        "empty": "no elements",
    }


def test_the_total_counts_every_value_the_same(file: Path) -> None:
    found = content(file, "--grid", "e2m1", "--block", 16, "--include-1d", "--rule", "minmax")
    sizes = [math.prod(row["shape"]) for row in found["rows"]]
    assert sizes == [240, 7, 132]
    mse = np.dot(sizes, [row["mse"]["minmax"] for row in found["rows"]]) / sum(sizes)
    assert found["total"]["mse"]["minmax"] == pytest.approx(mse, rel=SUM_ORDER)
    assert found["total"]["groups"] == sum(row["groups"] for row in found["rows"])


def test_the_table_stands_side_by_side(file: Path) -> None:
    out = run(file, "--grid", "int4", "--rule", "minmax", "--rule", "percentile:p=99", "--rule", "optimal").stdout
    head = out.splitlines()[1]
    for title in ("bits", "best SQNR dB", "minmax lost dB", "percentile:p=99 lost dB"):
        assert title in head
    assert "optimal lost dB" not in head, "which is 0 by construction"
    assert re.search(r"^ total .*\n median ", out, re.MULTILINE)
    counts = ("1 (1-D, --include-1d fits them)", "1 (element type I64)", "1 (no elements)")
    assert all(count in out.splitlines()[-1] for count in counts)
    single = run(file, "--grid", "nvfp4").stdout
    assert "SQNR dB" in single
    assert single.startswith("model.safetensors, nvfp4\n")


@pytest.mark.parametrize("ending", ["safetensors", "json"])
def test_scales_are_written_and_read_again(file: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"scales.{ending}"
    run(file, "--grid", "int4", "--axis", 0, "--shift", "mean", "-o", out)
    written = read_scales(out)
    assert sorted(written) == ["a.weight.scale", "a.weight.shift", "b.weight.scale", "b.weight.shift"]
    result = qe.fit(read_tensor(file, "a.weight"), "int4", axis=0, shift="mean")
    np.testing.assert_allclose(written["a.weight.scale"], result.scale, rtol=1e-7)
    np.testing.assert_allclose(written["a.weight.shift"], result.shift, rtol=1e-6, atol=1e-9)
    again = content(file, "--grid", "int4", "--axis", 0, "--shift", "mean", "--scales", out)
    assert [row["lost_db"]["given"] for row in again["rows"]] == pytest.approx([0, 0], abs=1e-6)
    text = json.loads(out.read_text())["metadata"] if ending == "json" else dict(open_checkpoint(out).metadata)
    assert text["grid"] == "int4"
    assert text["made_by"] == f"qerror {qe.__version__}"
    assert text["axis"] == "0"


def test_groups_without_a_scale_of_their_own_are_counted(tmp_path: Path) -> None:
    x = RNG.standard_normal((6, 64)).astype(np.float32)
    x[[1, 3]] = 0
    safetensors.numpy.save_file({"a": x, "b": x[4:]}, tmp_path / "m.safetensors")
    options = (tmp_path / "m.safetensors", "--grid", "int4_midrise", "--axis", 0, "--rule", "minmax")
    assert "minmax: DEGENERATE_NONE, 2 of 8 groups, in 1 tensor (" in run(*options).stdout
    found = content(*options)
    assert [row["unusual"] for row in found["rows"]] == [{"minmax": {"DEGENERATE_NONE": 2}}, {}]
    # Such rows cost nothing: their total is that of the others.
    others = qe.fit(x[[0, 2, 4, 5]], "int4_midrise", rule="minmax", axis=0).total.mse
    assert found["rows"][0]["mse"]["minmax"] == pytest.approx(others * 4 / 6, rel=SUM_ORDER)


def test_codes_zero_points_and_tensor_scales_are_written(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.safetensors"
    run(file, "--grid", "uint4", "--axis", 0, "--zero-point", "integer", "--rule", "minmax", "--codes", "-o", out)
    written = safetensors.numpy.load_file(out)
    x = read_tensor(file, "a.weight")
    result = qe.fit(x, "uint4", rule="minmax", axis=0, zero_point="integer")
    np.testing.assert_array_equal(written["a.weight.zero_point"], result.zero_point)
    np.testing.assert_array_equal(written["a.weight.codes"], result.quantize(x))
    back = (written["a.weight.codes"] - written["a.weight.zero_point"]) * written["a.weight.scale"]
    np.testing.assert_allclose(back, result.fake_quantize(x), rtol=1e-5, atol=1e-6)
    run(file, "--grid", "nvfp4", "-o", out)
    assert safetensors.numpy.load_file(out)["a.weight.tensor_scale"].shape == ()


def test_patterns(file: Path) -> None:
    assert [r["tensor"] for r in content(file, "--grid", "int4", "--include", "a.*")["rows"]] == ["a.weight"]
    assert [r["tensor"] for r in content(file, "--grid", "int4", "--exclude", "a.*")["rows"]] == ["b.weight"]
    result = run(file, "--grid", "int4", "--include", "nothing", status=2)
    assert "include and exclude leave none of 5 tensors" in result.stderr


def test_a_tensor_with_nan_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    bad = np.ones((2, 3), np.float32)
    bad[1, 2] = np.nan
    path, out = tmp_path / "m.safetensors", tmp_path / "s.safetensors"
    safetensors.numpy.save_file({"bad": bad, "good": np.ones((2, 4), np.float32)}, path)
    for rule in ("minmax", "optimal"):
        result = run(path, "--grid", "int4", "--rule", rule, "-o", out, status=1)
        (line,) = result.stderr.splitlines()
        assert line.startswith("not fitted: bad: x must be finite, got 1 NaN of 6 values")
        assert "good" in result.stdout
        assert sorted(safetensors.numpy.load_file(out)) == ["good.scale", "good.shift"]
    failed = content(path, "--grid", "int4", status=1)["left_out"]
    assert failed[0]["tensor"] == "bad"
    assert "NaN" in failed[0]["failed"]


def test_scales_of_other_tensors_are_refused(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"tensors": {"q.scale": 0.3}}')
    (line,) = run(file, "--grid", "int4", "--scales", other, status=2).stderr.splitlines()
    assert "has no NAME.scale of any tensor to fit, such as" in line


def test_members_of_an_archive_that_are_no_arrays(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, w=np.ones((2, 3)), bias=np.ones(3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config\x1b[31m.json", "{}")
        archive.writestr("readme.txt", "hello")
    out = run(path, "--grid", "int4").stdout
    assert "left out: 1 (1-D, --include-1d fits them), 2 (no NumPy array); --json names them\n" in out
    assert {entry["tensor"]: entry["skipped"] for entry in content(path, "--grid", "int4")["left_out"]} == {
        "bias": "1-D",
        "config\x1b[31m.json": "no NumPy array",
        "readme.txt": "no NumPy array",
    }
    listing = CliRunner().invoke(qerror_command, ["scale", "int4", "--data", str(path)])
    assert "readme.txt is left out: no NumPy array\n" in listing.stderr
    with zipfile.ZipFile(tmp_path / "none.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not one of numpy.savez" in run(tmp_path / "none.npz", "--grid", "int4", status=2).stderr


def test_names_are_shown_and_nothing_in_them_is_obeyed(tmp_path: Path) -> None:
    names = ["[red]a[/red]", ":heart:", "\x1b[31mb\x07", "c\nd", "e\u202ef", "g" * 10_000, "", "h.weight"]
    path = tmp_path / "[bold]\x1b[32m:heart:.safetensors"
    tensors = {name: np.ones((2, 2), np.float32) for name in names}
    tensors |= {name + " bias": np.ones(2, np.float32) for name in names}
    tensors |= {name + " bad": np.full((2, 2), np.nan, np.float32) for name in names}
    safetensors.numpy.save_file(tensors, path)
    result = run(path, "--grid", "int4", status=1)
    listing = CliRunner().invoke(qerror_command, ["scale", "int4", "--data", str(path)])
    one = CliRunner().invoke(qerror_command, ["scale", "int4", "--data", str(path), "--tensor", "\x1b[31mb\x07"])
    for text in (result.stdout, result.stderr, listing.stderr, one.stdout):
        lines = text.splitlines()
        assert all(line.isprintable() for line in lines)
        # Names of several bad tensors stand in one line.
        assert all(len(line) < 300 for line in lines if not line.startswith(("left out", "not fitted")))
    for shown in (
        "[red]a[/red] ",
        ":heart: ",
        "'\\x1b[31mb\\x07' ",
        "'c\\nd' ",
        "'e\\u202ef' ",
        "ggg...ggg",
        "'' ",
        "h.weight ",
    ):
        assert shown in result.stdout
        assert shown in listing.stderr
    assert result.stdout.startswith("'[bold]\\x1b[32m:heart:.safetensors', int4\n")
    assert {row["tensor"] for row in content(path, "--grid", "int4", status=1)["rows"]} == set(names)
    for output in ("o" * 10_000 + ".json", "\x1b[31m/o.json"):
        (line,) = run(path, "--grid", "int4", "-o", output, status=2).stderr.splitlines()
        assert line.isprintable()
        assert len(line) < 300


def test_a_full_disk_costs_one_line(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device", "scales.json")

    monkeypatch.setattr(checkpoint_fit, "_write", full)
    before = sorted(tmp_path.iterdir())
    (line,) = run(file, "--grid", "int4", "-o", tmp_path / "s.json", status=2).stderr.splitlines()
    assert line.startswith("qerror: scales.json: No space left on device; check")
    assert sorted(tmp_path.iterdir()) == before


BAD = [
    (["--grid", "int4", "--axis", "0", "--block", "8"], "give --axis or --block, not both; got 0 and 8"),
    (["--grid", "int44"], "unknown grid 'int44'"),
    (["--grid", "mxfp4", "--block", "8"], "block_size must be left out with mxfp4"),
    (["--grid", "int4", "--rule", "minmacks"], "unknown rule 'minmacks'; did you mean 'minmax'"),
    (["--grid", "e2m1", "--rule", "aciq"], "rule aciq is not defined on e2m1"),
    (["--grid", "int4", "--rule", "octav", "--shift", "optimal"], "shift must be a number or 'mean' for rule octav"),
    (["--grid", "int4", "--rule", "minmax", "--rule", "ocp", "-o", "s.json"], "-o writes the scales of one rule"),
    (["--grid", "int4", "-o", "s.txt"], "-o must end in .safetensors or .json, got 's.txt'"),
    (["--grid", "int4", "--codes"], "--codes needs a file to write to"),
    (["--grid", "int4", "--scales", "nowhere.json"], "there is no file 'nowhere.json'"),
    ([], "Missing option '--grid'"),
]


@pytest.mark.parametrize(("args", "words"), BAD, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bad_options_cost_one_line(args: list[str], words: str) -> None:
    result = run(EXAMPLE, *args, status=2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert words in line


def test_an_interrupted_run_leaves_nothing(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(tmp_path.iterdir())
    whole = checkpoint_fit.tensor_fits
    calls = []

    def interrupted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(checkpoint_fit, "tensor_fits", interrupted)
    for ending in ("safetensors", "json"):
        calls.clear()
        run(file, "--grid", "int4", "-o", tmp_path / f"s.{ending}", status=130)
        assert len(calls) == 2
        assert sorted(tmp_path.iterdir()) == before


def test_scale_files_hold_every_shape_and_type(tmp_path: Path) -> None:
    arrays = {
        "a": np.float32(0.5),
        "b": np.zeros((2, 0)),
        "c": np.arange(6, dtype=np.int8).reshape(2, 3).T,
        "d": np.arange(3, dtype=np.uint16),
    }
    with open_scales(tmp_path / "s.safetensors", {"k": "v"}) as sink:
        for name, array in arrays.items():
            sink.add(name, np.asarray(array))
    loaded = safetensors.numpy.load_file(tmp_path / "s.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == np.asarray(array).dtype
    for text, words in [
        ("[]", "it is no table of tensors"),
        ("{}", "it lacks 'tensors'"),
        ('{"tensors": {"w": null}}', "'w' must be an array of real numbers, got None"),
        ('{"tensors": {"w": ["0.5"]}}', r"'w' must be an array of real numbers, got \['0.5'\]"),
        ('{"tensors": {"w": [[1], [2, 3]]}}', "'w' must be an array of real numbers"),
        ('{"tensors": {"w": 1, "w": 2}}', "twice the name 'w'"),
        ('{"tensors": ' + "[" * 100_000, "nested too deeply"),
        ('{"tensors": {"w": 1', "delimiter"),
    ]:
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match=f"holds no scales .*{words}"):
            read_scales(tmp_path / "x.json")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.slow
def test_peak_memory_is_that_of_the_largest_tensor(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    x = np.random.default_rng(0).standard_normal((1024, 4096)).astype(np.float32)
    safetensors.numpy.save_file({f"w{i}": x for i in range(5)}, path)
    # Not ru_maxrss: a child starts with its parent's.
    code = (
        "import re, sys; from qerror.cli.commands import qerror_command as q\n"
        "try: q(sys.argv[1:])\n"
        "finally: print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1], file=sys.stderr)"
    )
    args = ["fit", str(path), "--grid", "int4", "--block", "128", "--rule", "minmax", "--rule", "octav", "--json"]
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    peak = 1024 * int(done.stderr.split()[-1])
    # The promise: 5 times the largest tensor plus 200 MB. (The rest of the file is mapped, and counted here too.)
    assert peak <= 5 * x.nbytes + 200e6 + path.stat().st_size


def test_zero_point_may_stand_alone(file: Path) -> None:
    """It looks like a flag: the next word is its own only if that is `integer`."""
    plain = ["--grid", "uint4", "--axis", "0", "--rule", "minmax"]
    expected = content(file, *plain, "--zero-point", "integer")
    assert expected["zero_point"] == "integer"
    assert content(file, "--zero-point", *plain) == expected
    assert content("--zero-point", file, *plain) == expected
    assert content(file, *plain, "--zero-point") == expected
    assert content(file, *plain, "--zero-point=integer") == expected
    assert content(file, *plain) != expected
    assert "'float' is not one of 'integer', 'storable'" in run(file, *plain, "--zero-point=float", status=2).output


def test_scale_formats_by_the_names_of_dtypes(file: Path) -> None:
    expected = content(file, "--grid", "int4", "--scale-format", "fp16")
    assert content(file, "--grid", "int4", "--scale-format", "Float16") == expected
    assert "scale_format must be 'fp16'," in run(file, "--grid", "int4", "--scale-format", "fp8", status=2).output


def test_tensors_that_are_left_out_are_counted_and_named_by_json(tmp_path: Path) -> None:
    tensors = {f"l.{i:02}.norm": np.ones(4, np.float32) for i in range(25)} | {"w": np.eye(4, dtype=np.float32)}
    np.savez(tmp_path / "m.npz", **tensors)
    out = run(tmp_path / "m.npz", "--grid", "int4", "--rule", "minmax").stdout
    assert out.endswith("left out: 25 (1-D, --include-1d fits them); --json names them\n")
    found = content(tmp_path / "m.npz", "--grid", "int4", "--rule", "minmax")
    assert [entry["tensor"] for entry in found["left_out"]] == sorted(tensors)[:-1]


def test_bits_and_medians(file: Path) -> None:
    """Bits count codes, scales and tensor scales; in the median every tensor counts the same."""
    found = content(file, "--grid", "int4", "--axis", 0, "--scale-format", "fp16", "--rule", "minmax", "--include-1d")
    for row in found["rows"]:
        assert row["bits"] == 4 + 16 * row["groups"] / math.prod(row["shape"])
    sizes = [math.prod(row["shape"]) for row in found["rows"]]
    assert found["total"]["bits"] == pytest.approx(np.dot(sizes, [row["bits"] for row in found["rows"]]) / sum(sizes))
    assert found["median"]["lost_db"]["minmax"] == np.median([row["lost_db"]["minmax"] for row in found["rows"]])
    assert found["median"]["tensors"] == len(sizes)
    (nvfp4, *_) = content(file, "--grid", "nvfp4")["rows"]
    assert nvfp4["bits"] == 4 + (8 * nvfp4["groups"] + 32) / math.prod(nvfp4["shape"])


def test_a_reason_that_many_tensors_have_is_said_once(file: Path) -> None:
    said = run(file, "--grid", "int4", "--axis", 7, status=1).stderr
    assert said.count("axis must be") == 1
