"""Scale tables: what they hold is what the library computes, and every file gives it back to the last bit."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner

import qerror as qe
from qerror.cli.commands import qerror_command
from qerror.tables.build import default_densities, default_grids

DATA = Path(qe.__file__).parent / "data"
# What the library promises of an error; both sides of a comparison may be off by as much.
MSE = 1e-12
LOADED = (".json", ".csv", ".safetensors")


@pytest.fixture(scope="module")
def small() -> qe.ScaleTable:
    """Two grids, two densities and both roundings, with awkward numbers: units of 1/3, a shift, a comma in a name."""
    third = qe.Grid([-1, 0, 1 / 3], name='odd "grid", of three?')
    return qe.scale_table(
        ["int4", third],
        ["laplace", qe.StudentT(5, 0.1, 1 / 3)],
        rounding=("nearest", "stochastic"),
        shift=0.1,
    )


# -- what a table holds --------------------------------------------------------------------------------------------


def test_rows_are_the_optima() -> None:
    table = qe.scale_table(["int4", "e3m0"], ["laplace", "gaussian:std=2"], model="high_resolution", shift="mean")
    assert [(row.grid, row.density) for row in table.rows] == [
        (grid, density) for grid in ("int4", "e3m0") for density in ("laplace", "gaussian:std=2")
    ]
    for row in table.rows:
        best = qe.optimal_scale(qe.density(row.density), row.grid, model="high_resolution", shift="mean")
        assert (row.scale, row.shift, row.clip) == (best.scale, best.shift, best.clip)
        assert (row.clipping_error, row.rounding_error) == (best.error.clipping, best.error.rounding)
        assert (row.mse, row.power, row.status) == (best.error.mse, best.error.power, best.status.name)
        assert math.isclose(row.sqnr_db, best.error.sqnr_db, rel_tol=1e-14)
    assert (table.model, table.shift, table.version) == ("high_resolution", "mean", qe.__version__)


def test_lookup_takes_names_and_objects(small: qe.ScaleTable) -> None:
    row = small.lookup("INT4", "Laplace")
    assert row is small.lookup(qe.grid("int4"), qe.Laplace())
    assert row.rounding == "nearest"
    assert small.lookup("int4", qe.StudentT(5, 0.1, 1 / 3), rounding="stochastic").rounding == "stochastic"
    assert small.lookup('odd "grid", of three?', "laplace").scale > 0


def test_repr_shows_scale_and_decibels() -> None:
    text = repr(qe.scale_table(["int4_midrise"], ["gaussian"]))
    # Max (1960): step 0.3352; MSE 0.01154, which is 19.38 dB.
    assert re.search(r"int4_midrise +0\.335201  19\.38", text)


def test_tables_do_not_change(small: qe.ScaleTable) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        small.model = "high_resolution"
    with pytest.raises(dataclasses.FrozenInstanceError):
        small.rows[0].scale = 1.0


def test_a_table_without_loss(tmp_path: Path) -> None:
    """Two values on a binary grid: the error is 0, and the row still saves and loads."""
    table = qe.scale_table(["binary"], [qe.Empirical([-1.0, 1.0])])
    assert table.lookup("binary", "empirical").sqnr_db == math.inf
    table.save(tmp_path / "table.csv")
    assert qe.load_table(tmp_path / "table.csv") == table


BAD_REQUESTS = [
    ({"grids": ["int44"]}, r"unknown grid 'int44'; did you mean 'int4'"),
    ({"grids": "int4"}, r"grids must be a list, got 'int4'"),
    ({"grids": []}, r"grids must name at least one, got none"),
    ({"grids": [qe.Grid([0, 1])]}, r"grids must have names, got Grid\(\[0, 1\]\); write qe.Grid\(levels, name="),
    ({"grids": [qe.Grid([0, 1], name="int4")]}, r"the name 'int4' is that of another grid"),
    ({"grids": [qe.Grid([0, 1], name="x"), qe.Grid([0, 2], name="x")]}, r"two different ones named 'x'"),
    ({"densities": [qe.Empirical([1.0, 2.0]), qe.Empirical([1.0, 3.0])]}, r"two different ones named 'empirical'"),
    ({"densities": ["gausian"]}, r"unknown density 'gausian'; did you mean 'gaussian'"),
    ({"densities": [qe.Gaussian(std=[1.0, 2.0])]}, r"densities must have shape \(\), got \(2,\)"),
    ({"rounding": "up"}, r"rounding must be 'nearest' or 'stochastic', got 'up'"),
    ({"model": "rough"}, r"model must be 'exact' or 'high_resolution', got 'rough'"),
    ({"shift": math.nan}, r"shift must be finite, got nan"),
]


@pytest.mark.parametrize(("request_", "words"), BAD_REQUESTS)
def test_bad_requests(request_: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        qe.scale_table(**{"grids": ["int4"], "densities": ["gaussian"], **request_})


def test_lookup_of_what_is_not_there(small: qe.ScaleTable) -> None:
    with pytest.raises(ValueError, match=r"the table has no grid 'int5'; did you mean 'int4'"):
        small.lookup("int5", "laplace")
    with pytest.raises(ValueError, match=r"the table has no density 'laplace:std=2'; did you mean 'laplace'"):
        small.lookup("int4", "laplace:std=2")
    with pytest.raises(ValueError, match=r"rounding must be 'nearest' or 'stochastic', got 'down'"):
        small.lookup("int4", "laplace", rounding="down")
    nearest = qe.scale_table(["int4"], ["laplace"])
    with pytest.raises(ValueError, match=r"no rounding 'stochastic' for int4 on laplace, it has \['nearest'\]"):
        nearest.lookup("int4", "laplace", rounding="stochastic")


# -- scales for data -----------------------------------------------------------------------------------------------


def test_scale_for_is_near_the_optimum_of_such_data() -> None:
    """A million Gaussian values of std 3: the optimum of a sample scatters by about 1e-3."""
    x = 3 * np.random.default_rng(5).standard_normal(1 << 20)
    scale = qe.load_table().scale_for(x, "int4", "gaussian")
    assert scale == pytest.approx(qe.load_table().lookup("int4", "gaussian").scale * x.std(), rel=1e-14)
    assert qe.excess_db(qe.Empirical(x), "int4", scale) < 1e-4


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), None])
def test_axis_keeps_its_own_scale(axis: int | tuple[int, ...] | None) -> None:
    x = np.random.default_rng(6).standard_normal((3, 4, 50)).astype(np.float32) * np.arange(1, 5)[:, None]
    kept = () if axis is None else tuple(a % 3 for a in (axis if isinstance(axis, tuple) else (axis,)))
    expected = x.astype(np.float64).std(axis=tuple(set(range(3)) - set(kept)), keepdims=True) * 0.5
    table = qe.ScaleTable((dataclasses.replace(qe.load_table().rows[0], scale=0.5),), "exact", 0.0, "0.1.0")
    found = table.scale_for(x, "binary", "gaussian", axis)
    np.testing.assert_allclose(found, expected if axis is not None else expected.item(), rtol=1e-13)
    assert np.shape(found) == (expected.shape if axis is not None else ())


def test_units_of_the_density_are_taken_out(small: qe.ScaleTable) -> None:
    """The Student's t of the table has std 1/3: data of that std get just its scale."""
    row = small.lookup("int4", qe.StudentT(5, 0.1, 1 / 3))
    x = np.array([-1.0, 1.0]) / 3
    assert small.scale_for(x, "int4", qe.StudentT(5, 0.1, 1 / 3)) == pytest.approx(row.scale, rel=1e-15)


@pytest.mark.parametrize("size", [1e-300, 1e-32, 1e30, 1e300])
def test_scale_for_tiny_and_huge_data(size: float) -> None:
    x = np.array([-1.0, 1.0, 3.0])
    table = qe.load_table()
    assert table.scale_for(x * size, "int4", "laplace") == pytest.approx(
        table.scale_for(x, "int4", "laplace") * size, rel=1e-14
    )


def test_constant_rows_have_a_scale_that_works() -> None:
    x = np.array([[0.1, 0.1, 0.1], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    found = qe.load_table().scale_for(x, "int4", "gaussian", axis=0)
    assert found[:2].tolist() == [[1.0], [1.0]]
    assert qe.fake_quantize(x, "int4", found, x.mean(axis=1, keepdims=True)).shape == x.shape


@pytest.mark.parametrize(
    ("x", "axis", "words"),
    [
        ([], None, r"x must hold at least one value, got shape \(0,\)"),
        ([1.0, np.nan], None, r"x must be finite, got 1 NaN of 2 values, the first is nan at index 1"),
        ([1.0, 2.0], 1, r"axis must be within -1 \.\. 0 for x of 1 axes, got 1"),
        (["a"], None, r"x must be a real number or an array of real numbers"),
    ],
)
def test_bad_data(x: list, axis: int | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        qe.load_table().scale_for(x, "int4", "gaussian", axis)


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", LOADED)
def test_round_trips_are_exact(small: qe.ScaleTable, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table{ending}"
    small.save(path)
    loaded = qe.load_table(path)
    assert loaded == small
    # Equal floats could still differ in the sign of a zero.
    assert repr(dataclasses.astuple(loaded)) == repr(dataclasses.astuple(small))
    first = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("ending", LOADED)
def test_every_changed_byte_is_noticed(tmp_path: Path, ending: str) -> None:
    """One digit, letter or bracket after another is changed: the file is refused, or holds the same."""
    table = qe.scale_table(["int4"], ["gaussian"])
    path = tmp_path / f"table{ending}"
    table.save(path)
    sound = path.read_bytes()
    for place in range(len(sound)):
        content = bytearray(sound)
        content[place] ^= 1
        path.write_bytes(content)
        try:
            loaded = qe.load_table(path)
        except ValueError:
            continue
        assert loaded == table


@pytest.mark.parametrize("ending", LOADED)
def test_cut_files_are_refused(small: qe.ScaleTable, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table{ending}"
    small.save(path)
    sound = path.read_bytes()
    for length in (0, 1, 10, len(sound) // 2, len(sound) - 40):
        path.write_bytes(sound[:length])
        with pytest.raises(ValueError, match=re.escape(f"{path.name}' is no")):
            qe.load_table(path)


def test_newer_schema_is_named(small: qe.ScaleTable, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    small.save(path)
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(ValueError, match=r"has schema 2 and this qerror reads 1; upgrade qerror"):
        qe.load_table(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"format": "qerror scale table"', '"format": "a table"', r"its format is 'a table'"),
        ('"model": "exact"', '"model": "guess"', r"it has model 'guess'"),
        ('"shift": 0.1,', '"shift": "left",', r"shift 'left'"),
        ('"digest": "sha256:', '"digest": "sha256:0', r"its digest is"),
        ('"scale": 0.', '"scale": -0.', r"impossible row|digest"),
        ('"grid": "int4"', '"grid": 4', r"grid of a row is 4"),
        ('"mse": 0.', '"mse": 1', r"mse of a row is 1|digest"),
        ('"model": "exact"', '"model": "high_resolution"', r"its digest is"),
        ('"version": "', '"version": "9', r"its digest is"),
        ('"rows"', '"lines"', r"it lacks 'rows'"),
    ],
)
def test_damage_is_described(small: qe.ScaleTable, tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "table.json"
    small.save(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=words):
        qe.load_table(path)


@pytest.mark.parametrize("name", ["table.txt", "table", "table.h", "table.py"])
def test_only_tables_are_loaded(small: qe.ScaleTable, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"path must end in .json, .csv, .safetensors to be loaded"):
        qe.load_table(tmp_path / name)
    if "." not in name or name.endswith("txt"):
        with pytest.raises(ValueError, match=r"path must end in .json, .csv, .safetensors, .h, .py, got"):
            small.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_no_file_and_no_folder(small: qe.ScaleTable, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is none at"):
        qe.load_table(tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match="does not exist; make it first"):
        small.save(tmp_path / "nowhere" / "table.json")


# -- for programs without qerror -----------------------------------------------------------------------------------


def test_json_is_read_by_plain_python(tmp_path: Path) -> None:
    """Ten lines without a package: find a scale and quantize with it."""
    qe.load_table().save(tmp_path / "scales.json")
    program = """
import json, sys
with open(sys.argv[1]) as file:
    table = json.load(file)
rows = {(row["grid"], row["density"], row["rounding"]): row for row in table["rows"]}
row = rows["int4", "gaussian", "nearest"]
x = [-3.0, -0.4, 0.1, 0.5, 5.0]
codes = [max(-8, min(7, round(value / row["scale"]))) for value in x]
print(codes, row["scale"].hex(), row["mse"].hex())
"""
    assert len(program.strip().splitlines()) <= 10
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, tmp_path / "scales.json"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    row = qe.load_table().lookup("int4", "gaussian")
    codes = qe.quantize(np.array([-3.0, -0.4, 0.1, 0.5, 5.0]), "int4", row.scale).tolist()
    assert found.strip() == f"{codes} {row.scale.hex()} {row.mse.hex()}"


def test_python_module_runs_without_qerror(small: qe.ScaleTable, tmp_path: Path) -> None:
    small.save(tmp_path / "scales.py")
    program = """
import json, sys
sys.path.insert(0, sys.argv[1])
import scales
rows = [[*key, *map(float.hex, row)] for key, row in scales.SCALES.items()]
print(json.dumps([rows, scales.HEADER, scales.scale_for(2.0, "int4", "laplace", rounding="stochastic")]))
assert "numpy" not in sys.modules and "qerror" not in sys.modules
"""
    # -S leaves the site packages out: neither qerror nor NumPy could be imported.
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, tmp_path], capture_output=True, text=True, check=True
    ).stdout
    rows, header, scale = json.loads(found)
    assert rows == [
        [row.grid, row.density, row.rounding, row.std.hex(), row.scale.hex(), row.shift.hex(), row.mse.hex()]
        for row in small.rows
    ]
    assert scale == 2 * small.lookup("int4", "laplace", rounding="stochastic").scale
    assert (header["version"], header["model"], header["parameters"]["shift"]) == (qe.__version__, "exact", 0.1)


@pytest.fixture(scope="module")
def compiler() -> str:
    found = shutil.which("cc")
    if found is None:
        pytest.skip("no C compiler named cc")
    return found


C_PROGRAM = """
#include <stdio.h>
#include "scales.h"
int main(void)
{
    size_t i;
    for (i = 0; i < QERROR_SCALES_COUNT; i++) {
        const qerror_scale *row = &QERROR_SCALES[i];
        if (qerror_find_scale(row->grid, row->density, row->rounding) != row)
            return 1;
        printf("%s\\t%s\\t%s\\t%.17g\\t%.17g\\t%.17g\\t%.17g\\n",
               row->grid, row->density, row->rounding, row->std, row->scale, row->shift, row->mse);
    }
    return qerror_find_scale("int4", "laplace", "upwards") != NULL;
}
"""


@pytest.mark.parametrize("standard", ["c89", "c99", "c11"])
def test_c_header_compiles_and_reproduces_the_table(
    small: qe.ScaleTable, tmp_path: Path, compiler: str, standard: str
) -> None:
    table = small if standard == "c89" else qe.load_table()
    table.save(tmp_path / "scales.h")
    (tmp_path / "main.c").write_text(C_PROGRAM)
    strict = [f"-std={standard}", "-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-Wno-overlength-strings"]
    program = tmp_path / "program"
    subprocess.run([compiler, *strict, "-o", program, tmp_path / "main.c"], check=True)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    expected = [(r.grid, r.density, r.rounding, r.std, r.scale, r.shift, r.mse) for r in table.rows]
    found = [line.split("\t") for line in printed.splitlines()]
    assert [(*texts[:3], *map(float, texts[3:])) for texts in found] == expected


@pytest.mark.parametrize("ending", [".h", ".py", ".csv", ".json", ".safetensors"])
def test_every_file_says_where_it_comes_from(small: qe.ScaleTable, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table{ending}"
    small.save(path)
    # In safetensors the header is JSON within JSON.
    text = re.sub(r"[\s\\]+", "", path.read_bytes().decode("utf-8", "replace")).replace("'", '"')
    for key, value in (("version", qe.__version__), ("model", "exact")):
        assert f'"{key}":"{value}"' in text
    assert '"parameters":{"shift":0.1,"rounding":["nearest","stochastic"]}' in text
    assert '"digits":{"scale":8,"mse":12}' in text


# -- the table in the package --------------------------------------------------------------------------------------


def test_default_table_holds_all_it_should() -> None:
    table = qe.load_table()
    assert table.grids == tuple(default_grids()) == tuple(n for n in qe.formats() if qe.grid(n).bits <= 8)
    assert table.densities == tuple(default_densities())
    families = {"gaussian", "laplace", "logistic", "uniform", "student-t", "generalized-gaussian"}
    assert {name.partition(":")[0] for name in table.densities} == families
    assert len(table.rows) == len(table.grids) * len(table.densities) * 2
    assert (table.version, table.model, table.shift) == (qe.__version__, "exact", 0.0)


def test_default_table_obeys_its_schema() -> None:
    schema = json.loads((DATA / "scales.schema.json").read_text())
    content = json.loads((DATA / "scales.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(content)
    assert schema["$defs"]["row"]["required"] == [field.name for field in dataclasses.fields(qe.tables.ScaleRow)]
    for spoiled in (
        {**content, "schema": 2},
        {**content, "rows": [{**content["rows"][0], "scale": 0}]},
        {**content, "rows": [{**content["rows"][0], "extra": 1}]},
        {key: value for key, value in content.items() if key != "digest"},
    ):
        assert list(validator.iter_errors(spoiled))


@pytest.mark.slow
@pytest.mark.parametrize("density", default_densities())
def test_default_table_is_what_the_library_computes(density: str) -> None:
    """MSE within 1e-12, the scale less.

    Around a minimum d MSE / MSE = curvature (d s / s)^2: 1e-12 of the MSE leaves the scale open to about 1e-6, and on
    floating grids, where minima an octave apart differ by less, which of them is taken.
    """
    table = qe.load_table()
    again = qe.scale_table(densities=[density], rounding=("nearest", "stochastic"))
    assert len(again.rows) == 2 * len(table.grids)
    for row in again.rows:
        stored = table.lookup(row.grid, density, rounding=row.rounding)
        assert abs(row.mse - stored.mse) <= MSE * row.mse, row
        assert (row.power, row.shift, row.std) == (stored.power, stored.shift, stored.std)
        # Whatever the stored scale is, it must reach the stored error.
        at_stored = qe.quantization_error(qe.density(density), row.grid, stored.scale, rounding=row.rounding)
        assert abs(at_stored.mse - stored.mse) <= MSE * stored.mse, row
        if abs(row.scale - stored.scale) > 1e-6 * row.scale:
            octaves = math.log2(row.scale / stored.scale)
            assert qe.grid(row.grid).float_spec is not None, row
            assert abs(octaves - round(octaves)) < 1e-3, row


# -- the command ---------------------------------------------------------------------------------------------------


def run(*args: object, status: int = 0) -> str:
    result = CliRunner().invoke(qerror_command, [str(arg) for arg in args])
    assert result.exit_code == status, result.output
    return result.output


def test_command_prints_the_table() -> None:
    options = {"rounding": ("nearest", "stochastic"), "model": "high_resolution"}
    expected = repr(qe.scale_table(["int4", "e2m1"], ["gaussian", "laplace"], **options))
    words = "--grids int4 e2m1 --densities gaussian laplace --rounding nearest stochastic --model high_resolution"
    assert run("table", *words.split()) == expected + "\n"
    repeated = "--grids int4 --grids e2m1 --densities gaussian --densities laplace --model high_resolution"
    assert run("table", *repeated.split()) == expected.partition("\n\n")[0] + "\n"


def test_command_prints_json() -> None:
    found = json.loads(run("table", "--grids", "int4", "--densities", "laplace", "--shift", "mean", "--json"))
    (row,) = qe.scale_table(["int4"], ["laplace"], shift="mean").rows
    assert (found["command"], found["version"], found["model"], found["shift"]) == (
        "table", qe.__version__, "exact", "mean",
    )  # fmt: skip
    assert found["rows"] == [{**dataclasses.asdict(row), "sqnr_db": row.sqnr_db}]


@pytest.mark.parametrize("ending", LOADED)
def test_command_writes_files(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"scales{ending}"
    said = run("table", "--grids", "int4", "--densities", "gaussian", "laplace", "--shift", "mean", "-o", path)
    assert said == f"2 scales written to {path}\n"
    assert qe.load_table(path) == qe.scale_table(["int4"], ["gaussian", "laplace"], shift="mean")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--grids int44", "unknown grid 'int44'"),
        ("--grids int4 --densities gausian", "unknown density 'gausian'"),
        ("--grids int4 -o table.doc", "path must end in"),
        ("--grids int4 -o nowhere/table.json", "does not exist; make it first"),
        ("int4", "unexpected extra argument"),
        ("--rounding up", "'up' is not one of 'nearest', 'stochastic'"),
    ],
)
def test_command_refuses(words: str, message: str) -> None:
    said = run("table", *words.split(), status=2)
    assert message in said
    assert len(said.splitlines()) == 1
