"""Formats under a budget: against enumeration of all assignments, HiGHS, and what files really store."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file
from scipy.optimize import Bounds, LinearConstraint, milp

import qerror as qe
from qerror.checkpoints.fitting import fit_tensors, select_tensors
from qerror.checkpoints.planning import KEEP, Plan, PlannedTensor, Point, knapsack, plan, read_plan
from qerror.checkpoints.planning.choices import Keep
from qerror.checkpoints.planning.errors import FormatError, Measuring, TensorErrors
from qerror.checkpoints.planning.hulls import front
from qerror.checkpoints.planning.knapsack import InfeasibleError, assign
from qerror.checkpoints.planning.outputs import as_config_groups, as_tensor_types
from qerror.checkpoints.planning.sources import Measured
from qerror.checkpoints.planning.storage import stored_bits
from qerror.checkpoints.planning.verbs import planned
from qerror.checkpoints.rows import finite
from qerror.cli.commands import qerror_command
from qerror.files.elements import TensorInfo

FORMATS = ["int4_g32", "nvfp4", "int8:axis=0", "bf16"]


def run(*args: Any) -> str:
    result = CliRunner().invoke(qerror_command, list(map(str, args)))
    assert result.exit_code == 0, result.output
    return result.output


def refusal(*args: Any) -> str:
    result = CliRunner().invoke(qerror_command, list(map(str, args)))
    assert result.exit_code == 2
    return result.output


def model(folder: Path, kind: Any = np.float32) -> Path:
    rng = np.random.default_rng(19)
    shapes = {"a.q.weight": (24, 64), "a.k.weight": (8, 64), "b.weight": (40, 96), "a.bias": (24,)}
    spread = {"a.q.weight": 1.0, "a.k.weight": 0.1, "b.weight": 3.0, "a.bias": 1.0}
    arrays = {name: (spread[name] * rng.standard_t(5, shape)).astype(kind) for name, shape in shapes.items()}
    save_file(arrays, folder / "model.safetensors")
    return folder / "model.safetensors"


# -- the knapsack ------------------------------------------------------------------------------------------------------


def random_classes(rng: np.random.Generator) -> list[list[tuple[int, int]]]:
    kind = rng.integers(3)
    classes = []
    for _ in range(rng.integers(1, 6)):
        count = rng.integers(1, 6)
        if kind == 0:
            uses, costs = rng.integers(0, 13, count), rng.integers(0, 13, count)
        elif kind == 1:
            uses, costs = 7 * rng.integers(10, 400, count), rng.lognormal(0, 4, count)
        else:
            uses = 4 * rng.choice([2, 3, 4, 6, 8], count)
            costs = rng.integers(1, 4, count) * 4.0 ** (-uses // 4)
        scale = 1 if kind == 0 else 2**90
        classes.append([(int(u), int(Fraction(float(c)) * scale)) for u, c in zip(uses, costs, strict=True)])
    return classes


def every(classes: Sequence[Sequence[tuple[int, int]]]) -> list[tuple[int, int]]:
    return [(sum(u for u, _ in each), sum(c for _, c in each)) for each in itertools.product(*classes)]


@pytest.mark.parametrize("seed", range(200))
def test_no_assignment_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = random_classes(rng)
    all_of_them = every(classes)
    uses = [use for use, _ in all_of_them]
    limit = int(rng.integers(min(uses) - 2, max(uses) + 2))
    best = min((cost for use, cost in all_of_them if use <= limit), default=None)
    if best is None:
        with pytest.raises(InfeasibleError) as error:
            assign(classes, limit)
        assert error.value.least == min(uses)
        return
    found = assign(classes, limit)
    assert (found.cost, found.bound, found.proven) == (best, best, True)
    assert found.use <= limit
    taken = [options[i] for options, i in zip(classes, found.chosen, strict=True)]
    assert (found.use, found.cost) == (sum(u for u, _ in taken), sum(c for _, c in taken))


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_the_hull_of_all_assignments(seed: int) -> None:
    classes = random_classes(np.random.default_rng(seed))
    points, all_of_them = front(classes), every(classes)
    assert points[0] == min(all_of_them)
    assert points[-1][1] == min(cost for _, cost in all_of_them)
    for (u0, c0), (u1, c1) in itertools.pairwise(points):
        # All assignments lie on or above the line through two neighbours: so does no corner lie above the hull.
        assert all((cost - c0) * (u1 - u0) >= (c1 - c0) * (use - u0) for use, cost in all_of_them)


def large(count: int, seed: int = 0) -> list[list[tuple[int, int]]]:
    """Like the layers of a language model: a few sizes, errors that fall by 6 dB a bit."""
    rng = np.random.default_rng(seed)
    bits = [2.25, 3.25, 4.0, 4.125, 4.25, 4.5, 5.25, 6.25, 8.0078125, 8.25, 9, 16]
    classes = []
    for size in rng.choice([4096 * 4096, 4096 * 14336, 1024 * 4096], count):
        errors = rng.lognormal(0, 2) * 4.0 ** -np.array(bits) * rng.uniform(0.7, 1.3, len(bits)) * size
        classes.append([(int(b * size), int(Fraction(e) * 2**80)) for b, e in zip(bits, errors, strict=True)])
    return classes


def test_500_tensors_in_12_formats_are_proven() -> None:
    classes = large(500)
    least, most = (sum(pick(u for u, _ in each) for each in classes) for pick in (min, max))
    limit = least + (most - least) // 4
    found = assign(classes, limit)
    assert found.proven
    assert found.use <= limit
    turned = assign([[(cost, use) for use, cost in each] for each in classes], found.cost)
    # The fewest bits at this error are no more than these, and none has less error with those.
    assert turned.cost <= found.use
    assert turned.use <= found.cost


def hard(kind: str, count: int, seed: int = 0) -> list[list[tuple[int, int]]]:
    """Sizes over seven decades; near ties of equal sizes; errors as far apart as bits, by which no bound is tight."""
    rng = np.random.default_rng(seed)
    bits = np.array([2.25, 3.25, 4.0, 4.125, 4.25, 4.5, 5.25, 6.25, 8.0078125, 8.25, 9, 16])
    classes = []
    for _ in range(count):
        size = {"wide": int(10 ** rng.uniform(2, 9.5)), "ties": 1 << 24, "correlated": int(rng.integers(10**8, 10**9))}
        noise = {"wide": rng.uniform(0.5, 2, 12) * rng.lognormal(0, 4), "ties": 1 + 1e-6 * rng.uniform(-1, 1, 12)}
        uses = [int(b * size[kind]) for b in bits]
        errors = 4.0**-bits * noise[kind] * size[kind] if kind in noise else [17 * size[kind] - use for use in uses]
        classes.append([(use, int(Fraction(float(e)) * 2**60)) for use, e in zip(uses, errors, strict=True)])
    return classes


@pytest.mark.parametrize("kind", ["wide", "ties"])
def test_500_tensors_of_hard_kinds_are_proven(kind: str) -> None:
    classes = hard(kind, 500)
    least, most = (sum(pick(u for u, _ in each) for each in classes) for pick in (min, max))
    found = assign(classes, least + (most - least) // 4)
    assert found.proven
    assert found.use <= least + (most - least) // 4
    # No assignment is below the hull.
    points = front(classes)
    (u0, c0), (u1, c1) = next(pair for pair in itertools.pairwise(points) if pair[1][0] > found.use)
    assert (found.cost - c0) * (u1 - u0) >= (c1 - c0) * (found.use - u0)


def test_what_cannot_be_proven_in_time_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits and errors of one sum: a subset-sum problem."""
    monkeypatch.setattr(knapsack, "_FIRST_STATES", 2_000)
    monkeypatch.setattr(knapsack, "_STATES", 4_000)
    monkeypatch.setattr(knapsack, "_SECONDS", 0.3)
    classes = hard("correlated", 300)
    limit = sum(options[5][0] for options in classes) + 12_345
    found = assign(classes, limit)
    assert not found.proven
    assert found.use <= limit
    # Cost and use have one sum in every assignment: no error is below that of the whole limit.
    assert found.bound <= found.cost
    whole = sum(sum(options[0]) for options in [[(u, c >> 60) for u, c in each] for each in classes]) - limit
    assert whole << 60 <= found.cost
    assert (found.cost - found.bound) / found.cost < 1e-4


def test_highs_finds_the_same() -> None:
    classes = large(40, seed=3)
    limit = sum(options[5][0] for options in classes)
    found = assign(classes, limit)
    flat = [(k, use, cost) for k, options in enumerate(classes) for use, cost in options]
    agree = np.array([[k == row for k, _, _ in flat] for row in range(len(classes))], float)
    unit, scale = 64 * 4096, max(cost for *_, cost in flat)
    constraints = [
        LinearConstraint(agree, 1, 1),
        LinearConstraint(np.array([[use / unit for _, use, _ in flat]]), -np.inf, limit / unit),
    ]
    costs = np.array([cost / scale for *_, cost in flat])
    answer = milp(costs, integrality=1, bounds=Bounds(0, 1), constraints=constraints, options={"mip_rel_gap": 1e-7})
    # HiGHS allows itself 1e-6 of each constraint and the gap that is asked for.
    assert found.cost / scale == pytest.approx(answer.fun, rel=1e-6)


def test_without_a_proof_the_gap_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of random numbers that hit a number as closely as can be: no bound is of use."""
    rng = np.random.default_rng(4)
    sizes = [int(n) for n in rng.integers(10**5, 10**6, 14)]
    classes = [[(4 * n, 16 * n), (8 * n, 12 * n)] for n in sizes]
    limit = 6 * sum(sizes) + 1
    monkeypatch.setattr(knapsack, "_FIRST_STATES", 50)
    monkeypatch.setattr(knapsack, "_STATES", 50)
    found = assign(classes, limit)
    best = min(cost for use, cost in every(classes) if use <= limit)
    assert not found.proven
    assert found.use <= limit
    assert found.bound <= best <= found.cost
    monkeypatch.setattr(knapsack, "_STATES", 10**6)
    found = assign(classes, limit)
    assert (found.cost, found.proven) == (best, True)


@pytest.mark.parametrize("seed", range(3))
def test_what_highs_oversteps_is_mended(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """HiGHS holds a constraint to 1e-6: here that is thousands of bits."""
    monkeypatch.setattr(knapsack, "_FIRST_STATES", 0)
    monkeypatch.setattr(knapsack, "_STATES", 0)
    classes = large(60, seed)
    limit = sum(options[4][0] for options in classes) + 12_345
    found = assign(classes, limit)
    assert found.use <= limit
    assert found.bound <= found.cost
    problem = knapsack._Problem(classes, limit)
    last = [len(options) - 1 for options in problem.classes]
    assert problem.use(last) > problem.limit
    assert problem.use(problem.repaired(last)) <= problem.limit


# -- plans of measured errors ------------------------------------------------------------------------------------------


def random_measured(rng: np.random.Generator, forms: Sequence[str]) -> Measured:
    tensors = []
    for number in range(rng.integers(1, 6)):
        info = TensorInfo(
            f"l.{number}.{'qkv'[number % 3]}", (int(rng.integers(1, 9)), int(rng.integers(1, 200))), "F32"
        )
        power = rng.lognormal()
        errors = {form: FormatError(power * rng.lognormal(-3, 2), math.nan, power, float(info.size)) for form in forms}
        tensors.append(TensorErrors(info, errors, {}))
    norm = TensorInfo("norm", (64,), "BF16")
    return Measured("m", tensors, {"norm": norm}, {"norm": "1-D"})


@pytest.mark.parametrize("seed", range(200))
def test_no_plan_is_better(seed: int) -> None:
    """All assignments, in fractions: the budget holds to the bit, and nothing within it has a smaller error."""
    rng = np.random.default_rng(seed)
    forms = list(rng.choice(["int4_g128", "nvfp4", "mxfp4", "int8:axis=0", "bf16"], rng.integers(2, 5), replace=False))
    measured = random_measured(rng, forms)
    relative = bool(rng.integers(2))
    rows = []
    for each in measured.tensors:
        counts = Fraction(each.info.size / each.formats[forms[0]].power if relative else float(each.info.size))
        options = []
        for form in forms:
            error = Fraction(float(counts) * each.formats[form].mse)
            options.append((stored_bits(each.info, form), error))
        rows.append(options)
    powers = [
        Fraction((each.info.size / e.power if relative else float(each.info.size)) * e.power)
        for each in measured.tensors
        for e in [each.formats[forms[0]]]
    ]
    all_of_them = [(sum(b for b, _ in each), sum(e for _, e in each)) for each in itertools.product(*rows)]
    values = sum(each.info.size for each in measured.tensors)
    kind = ["bits", "size", "db"][rng.integers(3)]
    sensitivity = "relative" if relative else 1
    if kind == "db":
        errors = [float(error) for _, error in all_of_them]
        db = 10 * math.log10(float(sum(powers)) / float(rng.uniform(0.9 * min(errors), max(errors))))
        most = sum(powers) / Fraction(10 ** (db / 10))
        fitting = [(bits, error) for bits, error in all_of_them if error <= most]
        value: Any = db
    else:
        limit = int(rng.integers(min(all_of_them)[0] - 8, max(all_of_them)[0] + 8))
        value = Fraction(limit, values) if kind == "bits" else (limit + 64 * 16) // 8
        limit = limit if kind == "bits" else value * 8 - 64 * 16
        fitting = [(bits, error) for bits, error in all_of_them if bits <= limit]
    if not fitting:
        with pytest.raises(ValueError, match=r"must be at (most|least)"):
            planned(measured, forms, kind, value, sensitivity)
        return
    found = planned(measured, forms, kind, value, sensitivity)
    best = min(fitting) if kind == "db" else min((error, bits) for bits, error in fitting)[::-1]
    assert found.proven
    assert found.total.error == float(best[1])
    assert (found.total.bits == best[0]) if kind == "db" else (found.total.bits <= limit)
    assert found.total.bits == sum(each.bits for each in found.tensors.values() if not each.why)
    if kind == "size":
        assert found.size <= value
    error = math.fsum(each.error for each in found.tensors.values())
    assert found.total.error == pytest.approx(error, rel=1e-14)


def test_tensors_that_agree_have_one_format_and_kept_ones_theirs() -> None:
    rng = np.random.default_rng(8)
    measured = random_measured(rng, ["int4_g128", "int8:axis=0"])
    while len(measured.tensors) < 5:
        measured = random_measured(rng, ["int4_g128", "int8:axis=0"])
    measured = Measured("m", measured.tensors, {}, {}, ("l.*.[qk]",))
    keep = [Keep.parse("l.2.v=int8:axis=0")]
    for each in np.linspace(5.5, 8, 12):
        found = planned(measured, ["int4_g128", "int8:axis=0"], "bits", float(each) + 2, 1, keep)
        assert found.tensors["l.2.v"].format == "int8:axis=0"
    two = Measured("m", measured.tensors[:2], {}, {}, ("l.[01].[qk]",))
    keep = [Keep.parse("*.q=int4_g128"), Keep.parse("*.k=int8:axis=0")]
    with pytest.raises(ValueError, match=r"keep says 'int4_g128', 'int8:axis=0' for .*, which must agree"):
        planned(two, ["int4_g128"], "bits", 9, 1, keep)


def test_an_impossible_budget_says_the_least(tmp_path: Path) -> None:
    where = model(tmp_path)
    with pytest.raises(ValueError, match=r"bits must be at least ([0-9.]+) bits per value") as error:
        plan(where, ["nvfp4", "int8:axis=0"], bits=2)
    least = str(error.value).split()[5]
    assert plan(where, ["nvfp4", "int8:axis=0"], bits=least).counts() == {"nvfp4": 3, KEEP: 1}
    with pytest.raises(ValueError, match=r"db must be at most ([0-9.]+) dB") as error:
        plan(where, ["nvfp4", "int8:axis=0"], db=120)
    assert plan(where, ["nvfp4", "int8:axis=0"], db=float(str(error.value).split()[5])).counts()["int8:axis=0"] == 3
    with pytest.raises(ValueError, match=r"size must be at least ([0-9]+) bytes") as error:
        plan(where, ["nvfp4", "int8:axis=0"], size=10)
    least = int(str(error.value).split()[5])
    assert plan(where, ["nvfp4", "int8:axis=0"], size=least).size == least


# -- bits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "scale"), [("int4_g32_bf16", 2), ("nvfp4", 1), ("mxfp4", 1), ("int8:axis=0", 4), ("int4", 4)]
)
def test_bits_are_those_of_the_arrays_that_fit_writes(tmp_path: Path, text: str, scale: int) -> None:
    rows, columns = 24, 80
    save_file(
        {"w": np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)}, tmp_path / "m.safetensors"
    )

    class Sink(dict):  # type: ignore[type-arg]
        def add(self, name: str, array: np.ndarray) -> None:
            self[name] = array

    sink = Sink()
    with qe.checkpoints.open(tmp_path / "m.safetensors") as checkpoint:
        list(fit_tensors(checkpoint, select_tensors(checkpoint.tensors), text, ["optimal"], sink=sink))  # type: ignore[arg-type]
    element = qe.block_format(text).grid.bits if "_g" in text or "fp4" in text else int(text[3])
    bits = rows * columns * element + sink["w.scale"].size * 8 * scale + 32 * ("w.tensor_scale" in sink)
    assert stored_bits(TensorInfo("w", (rows, columns), "F32"), text) == bits


def test_bits_of_block_formats_are_those_they_state() -> None:
    for name in ("int4_g128", "nvfp4", "mxfp8_e4m3", "nf4_g64_fp16"):
        form = qe.block_format(name)
        expected = form.bits_per_value(1 << 16) * (1 << 16)
        assert stored_bits(TensorInfo("w", (64, 1024), "BF16"), name) == expected


# -- measuring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dtype"), [("bf16", ml_dtypes.bfloat16), ("fp16", np.float16)])
def test_casts_are_those_of_numpy(tmp_path: Path, name: str, dtype: Any) -> None:
    where = model(tmp_path)
    found = plan(where, [name], bits=16)
    with qe.checkpoints.open(where) as checkpoint:
        x = checkpoint["b.weight"].astype(np.float64)
    expected = np.mean((x.astype(np.float32).astype(dtype).astype(np.float64) - x) ** 2)
    assert found.tensors["b.weight"].mse == pytest.approx(expected, rel=1e-13)


def test_a_model_its_run_and_its_sketch_give_one_plan(tmp_path: Path) -> None:
    where = model(tmp_path, np.float16)
    forms = ["int4", "int8", "e4m3fn"]
    qe.checkpoints.fit(where, forms, output=tmp_path / "run")
    qe.checkpoints.scan(where).save(tmp_path / "sketch.safetensors")
    first, *others = [plan(each, forms, bits=6) for each in (where, tmp_path / "run", tmp_path / "sketch.safetensors")]
    for other in others:
        assert {name: each.format for name, each in other.tensors.items()} == {
            name: each.format for name, each in first.tensors.items()
        }
        assert other.total.error == pytest.approx(first.total.error, rel=1e-12)
        assert other.size == first.size
    qe.checkpoints.fit(where, ["int8", "int4_g32"], axis=0, output=tmp_path / "axis")
    two = ["int8:axis=0", "int4_g32", "fp16"]
    assert plan(tmp_path / "axis", two, bits=7).total.error == pytest.approx(plan(where, two, bits=7).total.error)
    with pytest.raises(ValueError, match="one scale for a tensor with a sketch, got nvfp4"):
        plan(tmp_path / "sketch.safetensors", ["nvfp4"], bits=5)
    with pytest.raises(ValueError, match=r"among those of the run \('int8:axis=0', 'int4_g32'\), got e2m1"):
        plan(tmp_path / "axis", ["e2m1"], bits=5)


@pytest.mark.parametrize(("bits", "budget"), [(14, {"db": 20}), (20, {"bits": 6})])
def test_plans_of_a_float32_sketch_are_bounded(tmp_path: Path, bits: int, budget: dict[str, Any]) -> None:
    """Errors are upper bounds, and the plan's bound is below the best plan of the model itself."""
    where, place = model(tmp_path), tmp_path / "sketch.safetensors"
    qe.checkpoints.scan(where, bits=bits).save(place)
    found = plan(place, **budget)
    assert found.formats == ("int4", "nf4", "e2m1", "int8", "e4m3fn", "bf16")
    own = plan(where, found.formats, **budget)
    assert own.proven
    assert not found.proven
    best = own.total.bits if "db" in budget else own.total.error
    assert found.bound <= best * (1 + 1e-12)
    assert found.gap < (0.9 if bits == 14 else 1e-3)
    if bits == 20:
        one, two = (plan(each, ["bf16"], bits=16).tensors["b.weight"].mse for each in (where, place))
        assert one == pytest.approx(two, rel=1e-7)
        words = CliRunner().invoke(qerror_command, ["plan", str(place), "--bits", "6"]).stdout
        assert "not proven (of float32 a sketch has bounds): another choice may have a smaller error, by" in words
        assert "A sketch has one scale a tensor; int4_g128, nvfp4, int8:axis=0 need the model." in words


def test_a_run_is_planned_in_its_own_formats(tmp_path: Path) -> None:
    qe.checkpoints.fit(model(tmp_path), ["int8", "int4_g32"], axis=0, output=tmp_path / "run")
    assert plan(tmp_path / "run", bits=7).formats == ("int8:axis=0", "int4_g32")


def test_fit_takes_formats_with_their_axis(tmp_path: Path) -> None:
    """Beside formats of other layouts, in one reading, here and in a folder: as each alone."""
    where = model(tmp_path)
    alone = qe.checkpoints.fit(where, "int8", axis=0) + qe.checkpoints.fit(where, "int8", axis=1)
    alone += qe.checkpoints.fit(where, "nvfp4")
    for options in ({}, {"output": tmp_path / "run"}):
        found = qe.checkpoints.fit(where, ["int8:axis=0", "int8:axis=1", "nvfp4"], **options)
        errors = {(each.grid, each.info.name): each.optimum for each in found if each.mse}
        for name in ("a.q.weight", "a.k.weight", "b.weight"):
            expected = [each.optimum for each in alone if each.info.name == name]
            assert [errors[grid, name] for grid in ("int8:axis=0", "int8:axis=1", "nvfp4")] == expected
    for text, message in [("int8:axis=x", "must end in an axis"), ("nvfp4:axis=0", "axis must be left out with nvfp4")]:
        with pytest.raises(ValueError, match=message):
            qe.checkpoints.fit(where, [text])


def test_what_a_sketch_and_a_run_cannot_say_is_refused(tmp_path: Path) -> None:
    where = model(tmp_path)
    qe.checkpoints.scan(where).save(tmp_path / "sketch.safetensors")
    with pytest.raises(ValueError, match=r"got int8:axis=0; name others, such as int4 nf4 e2m1 int8 e4m3fn bf16, or"):
        plan(tmp_path / "sketch.safetensors", ["int8:axis=0"], bits=9)
    qe.checkpoints.fit(where, "int4", block_size=16, output=tmp_path / "run")
    with pytest.raises(ValueError, match="was fitted with block_size 16, which no name of a format says"):
        plan(tmp_path / "run", ["int4"], bits=9)
    qe.checkpoints.fit(where, "int4", output=tmp_path / "rows")
    with pytest.raises(ValueError, match="weights and together must be left out with a run"):
        plan(tmp_path / "rows", ["int4"], bits=9, together=["*"])


def test_a_plan_beside_the_model_makes_it_no_run(tmp_path: Path) -> None:
    model(tmp_path)
    first = plan(tmp_path, ["nvfp4"], bits=5)
    first.save(tmp_path / "plan.json")
    assert plan(tmp_path, ["nvfp4"], bits=5) == first


def test_a_run_tells_of_tensors_that_it_could_not_fit(tmp_path: Path) -> None:
    save_file({"w": np.ones((4, 4), np.float32), "x": np.full((4, 4), np.nan, np.float32)}, tmp_path / "m.safetensors")
    qe.checkpoints.fit(tmp_path / "m.safetensors", "int8", output=tmp_path / "run")
    found = plan(tmp_path / "run", ["int8"], bits=16)
    assert {name: each.format for name, each in found.tensors.items()} == {"w": "int8", "x": KEEP}
    assert "NaN" in found.tensors["x"].why


def test_another_budget_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where, kept = model(tmp_path), tmp_path / "errors.json"
    first = plan(where, FORMATS, bits=6, errors=kept)

    def never(*args: Any) -> Any:
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr(Measuring, "_measured", lambda self, info, formats: never() if formats else {})
        assert plan(where, FORMATS, bits=6, errors=kept) == first
        assert plan(where, FORMATS[:2], db=20, errors=kept).proven
    model(tmp_path, np.float16)
    (tmp_path / "model.safetensors").touch()
    assert plan(where, FORMATS, bits=6, errors=kept).tensors["b.weight"].dtype == "F16"
    kept.write_text("{}")
    with pytest.raises(ValueError, match="errors must name a file that an earlier plan wrote"):
        plan(where, FORMATS, bits=6, errors=kept)


def test_what_cannot_be_measured_is_kept(tmp_path: Path) -> None:
    save_file({"w": np.ones((4, 4), np.float32), "x": np.full((4, 4), np.nan, np.float32)}, tmp_path / "m.safetensors")
    found = plan(tmp_path / "m.safetensors", ["int4_g32", "bf16"], bits=16)
    assert found.tensors["x"].format == KEEP
    assert "NaN" in found.tensors["x"].why
    assert found.size == 64 + found.total.bits // 8


# -- what errors count -------------------------------------------------------------------------------------------------


def test_traces_count_half_a_trace_times_the_error(tmp_path: Path) -> None:
    where = model(tmp_path)
    traces = {"a.q.weight": 1e4, "a.k.weight": 1.0, "b.weight": 0.0}
    (tmp_path / "h.json").write_text(json.dumps(traces))
    (tmp_path / "h.csv").write_text("name,value\n" + "".join(f"{name},{value}\n" for name, value in traces.items()))
    found = [
        plan(where, FORMATS, bits=8, sensitivity=each) for each in (traces, tmp_path / "h.json", tmp_path / "h.csv")
    ]
    assert found[0].tensors == found[1].tensors == found[2].tensors
    # Most bits go to the second, which has the largest trace; where errors do not count there are as few as can be.
    assert [each.format for each in found[0].tensors.values() if not each.why] == ["int8:axis=0", "bf16", "nvfp4"]
    q = found[0].tensors["a.q.weight"]
    assert q.error == 0.5 * 1e4 * q.mse
    with pytest.raises(ValueError, match=r"sensitivity has no value for 'a\.k\.weight', 'b\.weight'"):
        plan(where, FORMATS, bits=6, sensitivity={"a.q.weight": 1.0})
    with pytest.raises(ValueError, match=r"finite and not negative, got -1\.0"):
        plan(where, FORMATS, bits=6, sensitivity={**traces, "b.weight": -1.0})


def test_importance_counts_and_must_be_there_for_all(tmp_path: Path) -> None:
    where = model(tmp_path)
    column = np.zeros(64, np.float32)
    column[:4] = 1.0
    save_file({"a.q.weight": column, "a.k.weight": column}, tmp_path / "w.safetensors")
    weights = tmp_path / "w.safetensors"
    with pytest.raises(ValueError, match=r"weights has none for 'b\.weight'"):
        plan(where, FORMATS, bits=6, weights=weights)
    kept = plan(where, FORMATS, bits=8, weights=weights, keep=["b.*=nvfp4"])
    with qe.checkpoints.open(where) as checkpoint:
        x = checkpoint["a.q.weight"]
    best = qe.fit(x, "int8", axis=0, weights=np.broadcast_to(column, x.shape))
    one = plan(where, ["int8:axis=0"], bits=9, weights=weights, sensitivity="relative").tensors["a.q.weight"]
    assert one.mse == pytest.approx(float(best.total.mse), rel=1e-9)
    assert kept.tensors["b.weight"].format == "nvfp4"


# -- files and the command ---------------------------------------------------------------------------------------------


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    found = plan(model(tmp_path), FORMATS, bits=8, keep=["a.k*"])
    found.save(tmp_path / "plan.json")
    again = read_plan(tmp_path / "plan.json")
    assert again.tensors.keys() == found.tensors.keys()
    assert again.total == found.total
    assert (again.front, again.uniform, again.gap) == (found.front, found.uniform, 0.0)
    content = json.loads((tmp_path / "plan.json").read_text())
    assert (content["schema"], content["version"]) == ("qerror.plan", 1)
    assert content["tensors"]["a.k.weight"]["format"] == KEEP


def test_a_plan_is_as_its_schema_says(tmp_path: Path) -> None:
    """Of models, runs and sketches, by every kind of budget; a key that the schema does not name is refused."""
    schema = json.loads((Path(qe.__file__).parent / "data" / "plan.schema.json").read_text(encoding="utf-8"))
    where = model(tmp_path)
    qe.checkpoints.fit(where, ["int4", "int8"], output=tmp_path / "run")
    qe.checkpoints.scan(where, output=tmp_path / "s.safetensors")
    budgets: list[dict[str, Any]] = [{"bits": "6.5"}, {"size": 4000}, {"db": 20, "keep": ["a.k*=bf16", "b*"]}]
    found = [plan(where, FORMATS, **budget).as_json() for budget in budgets]
    found += [plan(tmp_path / name, bits=8).as_json() for name in ("run", "s.safetensors")]
    for content in map(finite, found):
        jsonschema.validate(content, schema)
        for part in (content, content["total"], next(iter(content["tensors"].values()))):
            part["another"] = 1
            with pytest.raises(jsonschema.ValidationError, match="another"):
                jsonschema.validate(content, schema)
            del part["another"]


def test_a_plan_by_hand_needs_the_formats_alone(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    content: dict[str, Any] = {
        "schema": "qerror.plan",
        "version": 1,
        "model": "m",
        "tensors": {"w": {"format": "nvfp4"}},
    }
    path.write_text(json.dumps(content))
    assert read_plan(path).tensors == {"w": read_plan(path).tensors["w"]}
    for change, message in [
        ({"version": 2}, "has version 2"),
        ({"schema": "other"}, "is no plan"),
        ({"tensors": {"w": {"format": "nvfp5"}}}, "is a damaged plan .*nvfp5"),
        ({"tensors": {"w": {}}}, "is a damaged plan"),
        ({"tensors": [1]}, "is a damaged plan"),
    ]:
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match=message):
            read_plan(path)


def test_the_command_prints_80_columns_json_and_csv(tmp_path: Path) -> None:
    where = model(tmp_path)
    args = ("plan", where, "--formats", *FORMATS, "--bits", "6", "-o", tmp_path / "plan.json")
    out = run(*args)
    assert max(map(len, out.splitlines()[:12])) <= 80
    assert "proven optimal (gap 0)" in out
    assert "weight error is not accuracy" in out
    found = json.loads(run(*args, "--json"))
    assert found == json.loads((tmp_path / "plan.json").read_text())
    rows = list(csv.DictReader(io.StringIO(run(*args, "--csv"))))
    assert [row["format"] for row in rows] == [each["format"] for each in found["tensors"].values()]
    assert (tmp_path / "plan.errors.json").exists()
    # A budget means the number that is written: 4.3 is no float.
    assert read_plan(tmp_path / "plan.json").total.bits_per_value <= 6


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    where = model(tmp_path)
    assert "give one of bits, size and db, got none" in refusal("plan", where)
    assert "got bits, db" in refusal("plan", where, "--bits", "4.5", "--db", "20")
    assert "--size must be a size" in refusal("plan", where, "--size", "much")
    assert "-o must end in .json or .csv" in refusal("plan", where, "--bits", "5", "-o", tmp_path / "plan.txt")
    assert "axis must be left out with nvfp4" in refusal("plan", where, "--bits", "5", "--formats", "nvfp4:axis=0")


def test_other_programs_read_it() -> None:
    def of(**forms: str) -> Plan:
        tensors = {
            f"model.layers.{i}.self_attn.{name}_proj.weight": PlannedTensor(form, (8, 128))
            for i, (name, form) in enumerate(forms.items())
        }
        return Plan(
            "m", tuple(forms.values()), {"kind": "bits", "value": 5}, tensors, Point(0, 0.0, 0.0, 0.0), 0.0, True
        )

    found = as_config_groups(of(q="int4_g128", k="int8:axis=0", v="nvfp4", o="bf16"))
    weights = [group["weights"] for group in found["config_groups"].values()]
    assert [each["strategy"] for each in weights] == ["group", "channel", "tensor_group"]
    assert [each["num_bits"] for each in weights] == [4, 8, 4]
    assert found["config_groups"]["group_0"]["targets"] == ["model.layers.0.self_attn.q_proj"]
    assert found["ignore"] == ["model.layers.3.self_attn.o_proj"]
    with pytest.raises(ValueError, match="'e2m1_g32' has no scheme of compressed-tensors"):
        as_config_groups(of(q="e2m1_g32"))
    lines = as_tensor_types(of(q="int4_g32_fp16", o="mxfp4"))
    assert lines == [
        r"--tensor-type '^blk\.0\.attn_q\.weight$=q4_0'",
        r"--tensor-type '^blk\.1\.attn_output\.weight$=mxfp4'",
    ]
    with pytest.raises(ValueError, match="'nvfp4' has no type in GGUF"):
        as_tensor_types(of(q="nvfp4"))


def test_plans_of_the_shipped_network_beat_every_format_at_its_own_bits() -> None:
    where, forms = (
        qe.files.example_checkpoint(),
        ["int4_g32_bf16", "int6:axis=0", "nvfp4", "mxfp4", "int8:axis=0", "bf16"],
    )
    found = plan(where, forms, bits=16, include=["layers.?.weight"])
    for point in found.uniform:
        mixed = plan(where, forms, bits=Fraction(point.bits, 12928), include=["layers.?.weight"])
        assert mixed.total.bits <= point.bits
        assert mixed.total.error <= point.error
