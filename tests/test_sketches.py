"""Sketches: small, merged exactly, and what is asked of them is what the data answer, or a bracket of it."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner, Result

import qerror as qe
from qerror.checkpoints import counting, load_sketch, scan
from qerror.checkpoints.bins import Bins
from qerror.checkpoints.counting import exact_best
from qerror.checkpoints.patterns import Patterns
from qerror.checkpoints.sketch import Sketch, TensorSketch
from qerror.cli.commands import qerror_command
from qerror.files import TensorInfo, open_checkpoint, read_tensor
from qerror.files.scales import open_scales

GRIDS = ("int4", "int8", "e2m1", "e4m3fn", "nf4", "uint4", "int4_midrise")
# Sums of millions of terms in another order.
SUM_ORDER = 1e-12


def run(*args: Any, status: int = 0) -> Result:
    result = CliRunner().invoke(qerror_command, list(map(str, args)))
    assert result.exit_code == status, (result.output, result.exception)
    return result


def write(path: Path, **tensors: Any) -> Path:
    """A .safetensors file of arrays, bfloat16 and float8 of ml_dtypes among them."""
    tags = {"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float16": "F16", "float32": "F32", "float64": "F64"}
    entries, data = {}, b""
    for name, array in tensors.items():
        content = array.tobytes()
        place = [len(data), len(data) + len(content)]
        entries[name] = {"dtype": tags[array.dtype.name], "shape": list(array.shape), "data_offsets": place}
        data += content
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(9)
    x = rng.standard_t(6, (200, 150)).astype(np.float32)
    return write(
        tmp_path_factory.mktemp("sketch") / "m.safetensors",
        half=x.astype(np.float16),
        brain=x.astype(ml_dtypes.bfloat16),
        small=(x[:5] * 0.1).astype(np.float16),
        eight=(30 * x).astype(ml_dtypes.float8_e4m3fn),
        single=np.concatenate([x, 0.02 * x, np.zeros((1, 150), np.float32)]),
        double=x.astype(np.float64),
    )


@pytest.mark.parametrize("grid", GRIDS)
def test_answers_of_narrow_types_are_those_of_the_data_to_the_bit(model: Path, tmp_path: Path, grid: str) -> None:
    scan(model).save(tmp_path / "s.safetensors")
    names = ["half", "brain", "small", "eight"]
    for shift in (0.0, "mean"):
        found = load_sketch(tmp_path / "s.safetensors").ask(grid, shift=shift, include=names)
        assert [fit.info.name for fit in found] == names
        for fit in found:
            own = qe.fit(read_tensor(model, fit.info.name), grid, shift=shift)
            assert fit.scales == (float(own.scale),) * 3, (fit.info.name, grid)
            assert fit.mse["optimal"] == pytest.approx(float(own.total.mse), rel=SUM_ORDER)
    rules = ["minmax", "percentile:p=99", "optimal"]
    for fit in scan(model, include=["half"]).ask(grid, rule=rules):
        for rule in rules:
            own = qe.fit(read_tensor(model, "half"), grid, rule=rule)
            assert fit.mse[rule] == pytest.approx(float(own.total.mse), rel=SUM_ORDER)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("bits", [14, 17, 20])
def test_float32_is_bracketed_and_settled(model: Path, grid: str, bits: int) -> None:
    sketch = scan(model, bits=bits, include=["single"])
    (fit,) = sketch.ask(grid)
    x = read_tensor(model, "single")
    own = qe.fit(x, grid)
    least = float(own.total.mse)
    at = float(qe.evaluate(x, grid, fit.scales[0]).total.mse)
    # 1e-14 of the power: what sums of float64 know of it.
    doubt = 1e-14 * fit.power
    assert fit.optimum <= least + doubt
    assert least - doubt <= at <= fit.mse["optimal"] + doubt
    widest = {14: 0.5, 17: 8e-3, 20: 1.3e-4}[bits]
    assert fit.mse["optimal"] / fit.optimum - 1 < widest
    with open_checkpoint(model) as checkpoint:
        content = sketch["single"].content
        assert isinstance(content, Bins)
        scale, mse, status = exact_best(checkpoint, checkpoint.info("single"), content, qe.grid(grid))
    assert status == qe.Status.EXACT
    assert mse == pytest.approx(least, rel=1e-11)
    assert float(qe.evaluate(x, grid, scale).total.mse) == pytest.approx(least, rel=1e-11)


@pytest.mark.parametrize("bits", [14, 15, 16, 20])
def test_sums_over_a_full_bin_are_exact_integers(tmp_path: Path, bits: int) -> None:
    most, size = (1 << (32 - bits)) - 1, (1 << 18) - 1
    x = np.full(size, 0x3F800000 | most, np.uint32).view(np.float32)
    content = scan(write(tmp_path / "m.safetensors", w=x), bits=bits)["w"].content
    assert isinstance(content, Bins)
    assert (content.counts.tolist(), content.first.tolist()) == ([size], [size * most])
    assert content.second.tolist() == [size * most**2]


RULES = (
    *("minmax", "percentile:p=99", "analytic", "analytic:family=auto", "iterative", "aciq", "aciq:family=laplace"),
    *("octav", "sawb", "shrink_search", "ocp", "signed_absmax", "entropy", "clipping_weighted", "floor"),
)
# Of sums of squares about the shift in another order, and of differences of such sums (sawb).
MOMENTS_ORDER = 1e-12


def test_every_rule_on_narrow_types_is_that_of_the_data_to_the_bit(tmp_path: Path) -> None:
    """To that of `checkpoints.fit`; to `fit` of the array but for the order of sums."""
    x = np.random.default_rng(2).standard_t(6, (130, 128)).astype(np.float32)
    where = write(tmp_path / "m.safetensors", half=x.astype(np.float16), few=(x[:3]).astype(ml_dtypes.float8_e4m3fn))
    sketch = scan(where)
    for rule, shift in zip(RULES, itertools.cycle([0.0, "mean"]), strict=False):
        asked = sketch.ask("int4", rule=rule, shift=shift)
        assert asked == qe.checkpoints.fit(where, "int4", rule=rule, shift=shift), rule
        for each in asked:
            data = qe.fit(read_tensor(where, each.info.name), "int4", rule=rule, shift=shift)
            # The family is fitted to all values, not to the means of groups of them.
            close = 1e-3 if "auto" in rule else MOMENTS_ORDER
            assert each.scales[0] == pytest.approx(float(data.scale), rel=close), rule
            assert each.mse[rule] == pytest.approx(float(data.total.mse), rel=close), rule


@pytest.mark.parametrize(("bits", "shift"), [(14, 0.1), (20, "mean")])
def test_rules_on_float32_are_bracketed(model: Path, bits: int, shift: float | str) -> None:
    refused = ("analytic:family=auto", "iterative", "entropy", "clipping_weighted")
    x, sketch = read_tensor(model, "single"), scan(model, bits=bits, include=["single"])
    for rule in RULES:
        (fit,) = sketch.ask("int4", rule=rule, shift=shift)
        if rule in refused:
            assert fit.failed.startswith(f"rule {rule} needs the values themselves, of which a sketch of float32 has")
            continue
        own = qe.fit(x, "int4", rule=rule, shift=shift)
        scale, mse, doubt = float(own.scale), float(own.total.mse), 1e-14 * fit.power
        slack = 1e-14 * abs(scale)
        assert fit.scales[0] - slack <= scale <= fit.scales[2] + slack, rule
        assert mse <= fit.mse[rule] + doubt, rule
        if bits == 20:
            # Half of percentile's and OCTAV's bins is in doubt, of others nothing but the digits of sums.
            wide = {"octav": 2e-2, "percentile:p=99": 1e-3}.get(rule, 1e-12)
            assert rule == "shrink_search" or fit.scales[2] / fit.scales[0] - 1 < wide
            assert fit.mse[rule] <= mse * (1 + 2 * wide + 1e-5)


def test_float32_of_few_different_values_is_answered_exactly(tmp_path: Path) -> None:
    """Tensors that were 16 bits wide, and constants: no bin has two different values."""
    half = np.random.default_rng(4).standard_t(4, (160, 120)).astype(np.float16)
    write(
        tmp_path / "m.safetensors",
        half=half,
        single=half.astype(np.float32),
        constant=np.full((30, 40), 0.7, np.float32),
        zero=np.zeros((5, 6), np.float32),
    )
    sketch = scan(tmp_path / "m.safetensors")
    assert all(each.exact for each in sketch.values())
    assert sketch["single"].moments() == sketch["half"].moments()
    for grid in ("int4", "e2m1", "int8"):
        one, two, *constant = sketch.ask(grid, rule=["optimal", "octav"] if grid != "e2m1" else ["iterative"])
        assert (one.mse, one.scales, one.optimum) == (two.mse, two.scales, two.optimum)
        for fit in constant:
            own = qe.fit(read_tensor(tmp_path / "m.safetensors", fit.info.name), grid)
            assert fit.mse[next(iter(fit.mse))] == fit.optimum == float(own.total.mse)
    sketch.save(tmp_path / "s.safetensors")
    row = json.loads(run("ask", tmp_path / "s.safetensors", "--grid", "int4", "--json").stdout)["rows"][2]
    assert (row["tensor"], row["lost_db"], row["unusual"]) == ("constant", {"optimal": 0}, {})


def test_sketches_and_scales_beside_the_weights_are_no_weights(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "m.safetensors").write_bytes(model.read_bytes())
    run("scan", folder, "-o", folder / "s.safetensors")
    run("fit", folder, "--grid", "int4", "-o", folder / "scales.safetensors")
    again = json.loads(run("scan", folder, "-o", tmp_path / "t.safetensors", "--json").stdout)
    assert len(again["rows"]) == 5
    reasons = {"s.safetensors": "a sketch by qerror", "scales.safetensors": "scales of a fit by qerror"}
    assert again["left_out"] == {**reasons, "double": "element type F64"}
    assert "half" in run("fit", f"{folder}/*.safetensors", "--grid", "int4").stdout
    (folder / "m.safetensors").unlink()
    (folder / "scales.safetensors").unlink()
    assert "holds a sketch, not a model" in run("fit", folder, "--grid", "int4", status=2).stderr


def test_a_second_look_reads_few_values(model: Path) -> None:
    content = scan(model, include=["single"])["single"].content
    assert isinstance(content, Bins)
    share = {grid: content.counts[content.undecided(qe.grid(grid))].sum() / content.size for grid in ("int4", "e2m1")}
    assert 0 < max(share.values()) < 0.02


def test_moments_and_extremes(model: Path) -> None:
    sketch = scan(model)
    for name in ("half", "eight", "single"):
        x = read_tensor(model, name).astype(np.float64)
        away = x - x.mean()
        moments = sketch[name].moments()
        exact = sketch[name].exact
        assert exact == (name != "single")
        kurtosis = (away**4).mean() / (away**2).mean() ** 2 - 3
        assert moments.kurtosis == pytest.approx(kurtosis, rel=1e-9 if exact else 1e-6)
        assert moments.second == pytest.approx((away**2).sum(), rel=1e-11)
        assert float(sketch[name].density().mean) == pytest.approx(x.mean(), rel=1e-9)
    content = sketch["single"].content
    assert isinstance(content, Bins)
    assert (content.least, content.greatest) == (x.min(), x.max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_parts_merge_exactly_in_any_order(tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_t(3, (70, 40)).astype(np.float32).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    whole = scan(write(tmp_path / "w.safetensors", w=x))["w"].content
    cuts = [0, 7, 8, 31, 70]
    parts = [scan(write(tmp_path / f"{a}.safetensors", w=x[a:b]))["w"] for a, b in itertools.pairwise(cuts)]
    for order in itertools.permutations(parts):
        merged = order[0].merged(order[1]).merged(order[2].merged(order[3]))
        assert merged.info.shape == (70, 40)
        for field in vars(whole):
            np.testing.assert_array_equal(getattr(merged.content, field), getattr(whole, field))
    with pytest.raises(ValueError, match=r"of one kind|of one type|of the same bits"):
        parts[0].merged(
            scan(write(tmp_path / "o.safetensors", w=x.astype(np.float16 if dtype != "float16" else np.float32)))["w"]
        )


def test_sketches_of_many_parts_are_small(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_t(8, (1500, 2000)).astype(np.float32).astype(ml_dtypes.bfloat16)
    scan(write(tmp_path / "m.safetensors", w=x)).save(tmp_path / "s.safetensors")
    assert (tmp_path / "s.safetensors").stat().st_size < 0.003 * x.nbytes


def test_commands(model: Path, tmp_path: Path) -> None:
    out = run("scan", model, "-o", tmp_path / "s.safetensors").stdout
    assert out.startswith("5 tensors, ")
    assert "left out: 1 (element type F64); --json names them" in out
    table = run("ask", tmp_path / "s.safetensors", "--grid", "int4", "--grid", "e2m1", "--include", "half").stdout
    assert "format" in table.splitlines()[1]
    found = json.loads(run("ask", tmp_path / "s.safetensors", "--grid", "int4", "--json").stdout)
    assert [row["tensor"] for row in found["rows"]] == ["half", "brain", "small", "eight", "single"]
    assert "a proven bound; --exact MODEL settles it" in run("ask", tmp_path / "s.safetensors", "--grid", "int4").stdout
    args = ("ask", tmp_path / "s.safetensors", "--grid", "int4", "--include", "single", "--json")
    settled = json.loads(run(*args, "--exact", model).stdout)["rows"][0]
    own = qe.fit(read_tensor(model, "single"), "int4")
    assert settled["mse"]["optimal"] == pytest.approx(float(own.total.mse), rel=1e-11)
    assert settled["lost_db"]["optimal"] == 0
    # In two parts.
    run("scan", model, "--include", "half", "-o", tmp_path / "a.safetensors")
    run("scan", model, "--exclude", "half", "-o", tmp_path / "b.safetensors")
    both = json.loads(
        run("ask", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--grid", "int4", "--json").stdout
    )
    assert both["total"]["mse"] == found["total"]["mse"]
    twice = run("ask", tmp_path / "a.safetensors", tmp_path / "a.safetensors", "--grid", "int4", status=2).stderr
    assert "tensor 'half' is in two of the sketches; give each once" in twice


def test_what_a_sketch_does_not_know(model: Path, tmp_path: Path) -> None:
    run("scan", model, "-o", tmp_path / "s.safetensors")
    words = run("ask", tmp_path / "s.safetensors", "--grid", "mxfp4", status=2).stderr
    assert "the block format mxfp4: a sketch does not know what lies in a block" in words
    result = run("ask", tmp_path / "s.safetensors", "--grid", "int4", "--rule", "entropy", status=1)
    reads = "of which a sketch of float32 has bounds; `qerror fit`"
    assert f"not fitted: single: rule entropy needs the values themselves, {reads} reads them" in result.stderr
    result = run("ask", tmp_path / "s.safetensors", "--grid", "int4", "--shift", "optimal", status=1)
    assert f"not fitted: single: shift optimal needs the values, {reads} does it" in result.stderr
    pair = np.array([[1.0, 1.000001, 3.0]], np.float32)
    write(tmp_path / "many.safetensors", **{f"w{i}": pair for i in range(12)})
    run("scan", tmp_path / "many.safetensors", "-o", tmp_path / "many.sketch.safetensors")
    result = run("ask", tmp_path / "many.sketch.safetensors", "--grid", "int4", "--rule", "entropy", status=1)
    # One line for one reason, however many tensors there are.
    (line,) = result.stderr.splitlines()
    assert line.startswith("not fitted: w0, w1, w2, w3, w4, w5, w6, w7, w8, w9 and 2 others: rule entropy needs")
    assert (
        "is no sketch; `qerror scan MODEL -o SKETCH` makes one" in run("ask", model, "--grid", "int4", status=2).stderr
    )
    assert "-o must end in .safetensors" in run("scan", model, "-o", tmp_path / "s.bin", status=2).stderr
    # Said before anything is read.
    words = run("scan", tmp_path / "none.npy", "-o", tmp_path / "none" / "s.safetensors", status=2).stderr
    assert "does not exist; make it first" in words
    bad = np.array([[1.0, np.nan, np.inf]], np.float32)
    write(tmp_path / "bad.safetensors", a=bad, b=bad.astype(np.float16), c=np.ones((2, 2), np.float32))
    left = scan(tmp_path / "bad.safetensors").left_out
    assert left["a"].startswith("x must be finite, got 1 NaN and 1 infinite")
    assert left["b"] == "x must be finite, got 1 NaN and 1 infinite of 3 values"
    with pytest.raises(ValueError, match="bits must be an integer from 14 to 20, got 22"):
        scan(model, bits=22)


def test_what_exact_cannot_settle_is_said(model: Path, tmp_path: Path) -> None:
    run("scan", model, "--include", "single", "--include", "half", "-o", tmp_path / "s.safetensors")
    args = ("ask", tmp_path / "s.safetensors", "--grid", "int8", "--exact")
    words = run(*args, model, "--rule", "minmax", status=2).stderr
    assert "--exact settles rule optimal alone, got minmax; leave out --rule or --exact" in words
    changed = 0.37 * read_tensor(model, "single")
    write(tmp_path / "m.safetensors", single=changed, half=changed[:200].astype(np.float16))
    words = run(*args, tmp_path / "m.safetensors", status=2).stderr
    assert "the values of 'single' have changed since they were counted; scan them again" in words


def test_what_decides_is_kept_within_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_STEP", 1 << 12)
    rng = np.random.default_rng(4)
    x = rng.standard_t(4, 1 << 16).astype(np.float32)
    write(tmp_path / "m.safetensors", w=x, few=np.round(x, 3))
    sketch = scan(tmp_path / "m.safetensors", bits=14)
    with open_checkpoint(tmp_path / "m.safetensors") as file:
        for name, memory in (("few", 1e6), ("w", 1e7)):
            bins = sketch[name].content
            assert isinstance(bins, Bins)
            found = exact_best(file, file.info(name), bins, qe.grid("int8"), memory=memory)
            assert found[1] == pytest.approx(qe.fit(file[name], "int8").total.mse, rel=SUM_ORDER)
        with pytest.raises(
            MemoryError, match=r"'w': up to 0 million values decide, .* as in --memory 1GB, or scan with"
        ):
            exact_best(file, file.info("w"), bins, qe.grid("int8"), memory=1e6)
    sketch.save(tmp_path / "s.safetensors")
    args = ("ask", tmp_path / "s.safetensors", "--grid", "int8", "--exact", tmp_path / "m.safetensors")
    result = run(*args, "--memory", "151MB", status=1)
    assert "not fitted: w: 'w': up to" in result.stderr
    assert "few" in result.stdout


@pytest.mark.parametrize("family", ["auto", "gaussian", "laplace", "uniform", "student-t", "generalized-gaussian"])
def test_densities_are_fitted_to_sketches_as_to_the_data(tmp_path: Path, family: str) -> None:
    x = qe.StudentT(5, 0.1, 0.02).sample(40_000, rng=3)
    write(tmp_path / "m.safetensors", half=x.astype(np.float16), single=x.astype(np.float32))
    sketch = scan(tmp_path / "m.safetensors")
    for name, close in (("half", 1e-4), ("single", 1e-4)):
        one, two = (
            qe.fit_density(sketch[name], family),
            qe.fit_density(read_tensor(tmp_path / "m.safetensors", name), family),
        )
        assert type(one) is type(two)
        # Both condense what is between the outer values: the data to means of groups, float32 here to means of bins.
        assert (one.mean, one.std) == pytest.approx((two.mean, two.std), rel=close)
        points = np.linspace(0.02, 0.18, 9)
        np.testing.assert_allclose(one.pdf(points), two.pdf(points), rtol=10 * close)


def test_a_rectified_density_is_fitted_to_a_sketch(tmp_path: Path) -> None:
    x = np.maximum(np.random.default_rng(5).normal(0.3, 1, 30_000), 0).astype(np.float16)
    write(tmp_path / "m.safetensors", x=x)
    one, two = qe.fit_density(scan(tmp_path / "m.safetensors")["x"]), qe.fit_density(x)
    assert one.name == two.name
    assert (one.mean, one.std) == pytest.approx((two.mean, two.std), rel=1e-12)
    constant = scan(write(tmp_path / "m.safetensors", x=np.ones(5, np.float16)))["x"]
    with pytest.raises(ValueError, match=r"must hold at least two different values, got only 1\.0"):
        qe.fit_density(constant)


def test_a_sketch_of_more_zeros_than_fit_into_32_bits_is_read_again(tmp_path: Path) -> None:
    counts = np.array([1 << 33, 1], np.int64)
    content = Bins(14, np.array([0, 4064]), counts, *np.array([[0, 5], [0, 25]]), 0.0, 1.0)
    info = TensorInfo("w", (int(counts.sum()),), "F32")
    Sketch("m", {"w": TensorSketch(info, content)}, {}).save(tmp_path / "s.safetensors")
    found = load_sketch(tmp_path / "s.safetensors")["w"].content
    assert isinstance(found, Bins)
    assert found.counts.tolist() == counts.tolist()


def test_damaged_sketches_are_refused(model: Path, tmp_path: Path) -> None:
    """Fuzzed: metadata and tables changed at random; what is read is sound, all else is refused in one line."""
    path = tmp_path / "s.safetensors"
    scan(model, include=["half", "single"]).save(path)
    tensors = safetensors.numpy.load_file(path)
    with open_checkpoint(path) as file:
        metadata = file.metadata["qerror_sketch"]
    chance, refused = random.Random(5), 0
    words = [
        "-1",
        "0",
        "null",
        '"x"',
        "[]",
        "{}",
        "1e999",
        "99999999999999999999",
        '"patterns"',
        '"bins"',
        '"F32"',
        "2",
    ]
    for _ in range(300):
        text, changed = metadata, dict(tensors)
        if chance.random() < 0.5:
            places = [i for i, mark in enumerate(text) if mark in ",:[]{}"]
            at = chance.randrange(len(places) - 1)
            text = text[: places[at] + 1] + chance.choice(words) + text[places[at + 1] :]
        else:
            name = chance.choice(list(changed))
            content = changed[name].copy()
            for _ in range(chance.randint(1, 3)):
                content[chance.randrange(content.size)] = chance.randrange(256)
            changed[name] = content[: chance.choice([content.size, chance.randrange(content.size)])]
        with open_scales(path, {"qerror_sketch": text}) as sink:
            for name, content in changed.items():
                sink.add(name, content)
        try:
            found = load_sketch(path)
        except ValueError as error:
            refused += 1
            assert str(error).isprintable()  # noqa: PT017 - of many some are sound
            assert len(str(error)) < 300  # noqa: PT017
        else:
            for each in found.values():
                assert isinstance(each.content, Patterns | Bins)
                assert each.content.size == each.info.size
    assert refused > 250
    with open_scales(path, {"qerror_sketch": metadata.replace('"version": 1', '"version": 2')}) as sink:
        sink.add("x", np.zeros(1, np.uint8))
    with pytest.raises(ValueError, match="has version 2, and this qerror reads 1; update it"):
        load_sketch(path)
