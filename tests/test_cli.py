"""The command line: what it prints is what the library computes, and bad input costs one line and status 2."""

import contextlib
import json
import os
import re
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import click
import jsonschema
import numpy as np
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

import qerror as qe
from qerror.checkpoints import export
from qerror.cli import folding, render
from qerror.cli.commands import COMMANDS, qerror_command
from qerror.cli.render import _known, _number
from qerror.files import example_checkpoint, list_tensors, read_tensor

EXAMPLE = str(example_checkpoint())


def run(*args, status=0):
    result = CliRunner().invoke(qerror_command, [str(arg) for arg in args])
    assert result.exit_code == status, result.output
    return result


def rows(*args):
    return json.loads(run(*args, "--json").stdout)["rows"]


def table(text):
    """Cells of the first table in a text: a list of dicts from column titles."""
    lines = text.splitlines()
    rule = next(number for number, line in enumerate(lines) if re.fullmatch(r"[\s\u2500-]+", line) and line.strip())
    head = re.split(r"\s{2,}", lines[rule - 1].strip())
    body = []
    for line in lines[rule + 1 :]:
        if not line.strip():
            break
        cells = re.split(r"\s{2,}", line.strip())
        # Above the highest level there is no threshold.
        body.append(dict(zip(head, [*cells, ""] if len(cells) == len(head) - 1 else cells, strict=True)))
    return body


# -- what is printed -----------------------------------------------------------------------------------------------


def test_scale_prints_what_the_library_computes():
    best = qe.optimal_scale(qe.density("laplace"), "int4")
    (row,) = rows("scale", "int4", "--density", "laplace")
    assert row["scale"] == best.scale
    assert row["mse"] == best.error.mse
    assert row["interval_1pct"] == list(best.interval_1pct)
    assert row["status"] == best.status.name
    (cells,) = table(run("scale", "int4", "--density", "laplace").stdout)
    assert cells["scale"] == f"{best.scale:#.6g}"
    assert cells["MSE"] == f"{best.error.mse:#.6g}"
    assert cells["SQNR dB"] == f"{best.error.sqnr_db:.3f}"
    assert cells["status"] == best.status.name.lower()


def test_known_optima_to_the_last_printed_digit():
    # Max (1960) for N = 2, in closed form: step 2 sqrt(2 / pi), MSE 1 - 2 / pi. Published: 4 bits, step 0.3352 and
    # MSE 0.0115428844.
    one, four = table(run("scale", "binary", "int4_midrise").stdout)
    assert one["scale"] == f"{np.sqrt(2 / np.pi):#.6g}"
    assert one["MSE"] == f"{1 - 2 / np.pi:#.6g}"
    assert four["scale"] == "0.335201"
    assert four["MSE"] == "0.0115429"


def test_error_of_several_scales():
    scales = [0.2, 0.3, 0.4]
    result = rows("error", "int4", "--scale", *scales, "--shift", 0.1)
    for row, scale in zip(result, scales, strict=True):
        error = qe.quantization_error(qe.Gaussian(), "int4", scale, 0.1)
        for name in ("clipping", "rounding", "mse", "bias", "cross", "sqnr_db"):
            np.testing.assert_allclose(row[name], getattr(error, name), rtol=1e-12)
        np.testing.assert_allclose(row["excess_db"], qe.excess_db(qe.Gaussian(), "int4", scale, 0.1), atol=1e-9)
    repeated = rows("error", "int4", "--scale", 0.2, "--scale", 0.3, 0.4, "--shift", 0.1)
    assert [row["scale"] for row in repeated] == [0.2, 0.3, 0.4]
    assert [cells["scale"] for cells in table(run("error", "int4", "--scale", *scales).stdout)] == ["0.2", "0.3", "0.4"]


def test_compare_ranks_every_format_of_the_width():
    result = rows("compare", "--bits", 4)
    blocks = {"mxfp4", "nvfp4", "int4_g32_fp16", "int4_g128_fp16", "nf4_g64_bf16"}
    assert {row["grid"] for row in result} == {*qe.formats(4), *blocks}
    for row in result:
        # Of a Gaussian the best code has 6.02 dB a bit.
        assert row["bound_db"] == pytest.approx(20 * np.log10(2) * row["bits"] - row["sqnr_db"], abs=1e-9)
        if row["grid"] == "nvfp4":
            assert row["bits"] == 4.5
            assert row["mse"] == pytest.approx(qe.quantization_error(qe.Gaussian(), "nvfp4", size=2**20).mse, rel=1e-12)
    assert [row["mse"] for row in result] == sorted(row["mse"] for row in result)
    assert [row["rank"] for row in result] == list(range(1, len(result) + 1))
    assert result[0]["behind_db"] == 0
    assert result[-1]["behind_db"] == result[0]["sqnr_db"] - result[-1]["sqnr_db"]


def test_ladder_prints_the_steps_of_loss_ladder():
    result = rows("ladder", "int4", "nf4_g64", "--scale", 0.25, "--density", "gaussian")
    of_grid = [row for row in result if row["grid"] == "int4"]
    ladder = qe.loss_ladder(qe.Gaussian(), "int4", 0.25)
    assert [row["mse"] for row in of_grid] == [rung.mse for rung in ladder.rungs]
    assert [row["step_db"] for row in of_grid] == [None, *ladder.lost_db]
    assert of_grid[0]["total_db"] == ladder.total_db
    assert [row["rung"] for row in result if row["grid"] == "nf4_g64"][2] == "Lloyd-Max in blocks"
    result = rows("ladder", "int4", "--data", EXAMPLE, "--tensor", "layers.0.weight")
    assert result[-1]["status"] == "EXACT"


def test_compare_quantizes_the_blocks_of_a_tensor(tmp_path):
    weight = read_tensor(EXAMPLE, "layers.0.weight")
    found = {row["grid"]: row for row in rows("compare", "--bits", 4, "--data", EXAMPLE, "--tensor", "layers.0.weight")}
    for name in ("mxfp4", "nvfp4"):
        off = weight - qe.fake_quantize(weight, name)
        assert found[name]["mse"] == pytest.approx(np.mean(off.astype(float) ** 2), rel=1e-6)
        limit = float(qe.rate_distortion(qe.Empirical(weight.ravel()), bits=found[name]["bits"]).sqnr_db)
        assert found[name]["bound_db"] == pytest.approx(limit - found[name]["sqnr_db"], abs=1e-9)
        book = qe.lloyd_max(qe.Empirical(weight.ravel()), found[name]["levels"])
        best = qe.quantization_error(qe.Empirical(weight.ravel()), book, 1.0).sqnr_db
        assert found[name]["lloyd_db"] == pytest.approx(float(best) - found[name]["sqnr_db"], abs=1e-9)
    # Kernels of 3 x 3 are flattened: blocks of 27 values and of 5.
    kernels = np.random.default_rng(0).standard_normal((4, 4, 3, 3))
    np.save(tmp_path / "kernels.npy", kernels)
    found = {row["grid"]: row for row in rows("compare", "--bits", 4, "--data", tmp_path / "kernels.npy")}
    off = kernels.reshape(4, 36) - qe.fake_quantize(kernels.reshape(4, 36), "mxfp4")
    assert found["mxfp4"]["mse"] == pytest.approx(np.mean(off**2), rel=1e-6)


def test_formats_lists_all_and_shows_one():
    assert [row["grid"] for row in rows("formats")] == list(qe.formats())
    assert len(table(run("formats").stdout)) == len(qe.formats())
    cells = table(run("formats", "e2m1").stdout)
    grid = qe.grid("e2m1")
    assert [float(row["level"]) for row in cells] == list(grid.levels)
    assert [int(row["code"]) for row in cells] == list(grid.codes)
    # The bit pattern of two's complement, and of a sign bit before exponent and mantissa.
    assert table(run("formats", "int4").stdout)[0]["bits"] == "1000"
    assert cells[0]["bits"] == "1111"
    long = run("formats", "fp16").stdout
    assert len(long.splitlines()) < 60
    assert len(rows("formats", "fp16")) == len(qe.grid("fp16").levels)


def test_data_of_a_file():
    name = "layers.0.weight"
    best = qe.optimal_scale(qe.Empirical(read_tensor(EXAMPLE, name).ravel()), "int4", shift="mean")
    (row,) = rows("scale", "int4", "--data", EXAMPLE, "--tensor", name, "--shift", "mean")
    assert row["scale"] == best.scale
    assert row["shift"] == best.shift
    assert "EXACT" in row["status"]
    out = run("scale", "int4", "--data", EXAMPLE, "--tensor", name, "--shift", "mean").stdout
    assert out.startswith("digits_mlp.safetensors layers.0.weight (F32, 96x64): mean")
    assert "shift mean" in out.splitlines()[0]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_the_one_tensor_of_a_file_needs_no_name(tmp_path, dtype):
    values = np.random.default_rng(3).standard_normal(1000).astype(dtype)
    np.save(tmp_path / "x.npy", values)
    (row,) = rows("scale", "e2m1", "--data", tmp_path / "x.npy")
    expected = qe.optimal_scale(qe.Empirical(values.astype(np.float64)), "e2m1")
    # Counted and sorted samples add in another order.
    np.testing.assert_allclose(row["mse"], expected.error.mse, rtol=1e-12)


@pytest.mark.parametrize("option", [("--model", "high_resolution"), ("--rounding", "stochastic")])
def test_options_reach_the_library(option):
    keyword = {option[0][2:]: option[1]}
    best = qe.optimal_scale(qe.Gaussian(), "int4", **keyword)
    (row,) = rows("scale", "int4", *option)
    assert (row["scale"], row["mse"]) == (best.scale, best.error.mse)
    (row,) = rows("error", "int4", "--scale", 0.3, *option)
    assert row["mse"] == pytest.approx(qe.quantization_error(qe.Gaussian(), "int4", 0.3, **keyword).mse, rel=1e-12)
    assert " ".join(option)[2:] in run("scale", "int4", *option).stdout.splitlines()[0]


def test_a_proof_on_request():
    assert rows("scale", "e4m3fn", "--certify")[0]["status"] == "EXACT"


def test_demo_shows_three_aligned_tables_within_100_columns():
    out = run("demo").stdout
    assert all(len(line) <= 100 for line in out.splitlines())
    assert out.count("format") >= 3
    for title in ("gaussian: mean 0, std 1", "laplace: mean 0, std 1", "digits_mlp.safetensors layers.0.weight"):
        assert title in out
    for name in ("int4", "e2m1", "e4m3fn", "nf4", "bf16"):
        assert len(re.findall(rf"^ {name} ", out, re.MULTILINE)) == 3


def test_json_has_no_nan_or_inf():
    text = run("scale", "ternary", "--data", EXAMPLE, "--tensor", "layers.0.bias", "--json").stdout
    content = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert content["version"] == qe.__version__
    assert content["shift"] == 0


def test_only_digits_that_are_known_are_printed():
    assert _known(1.2345678, 1e-13) == "1.23457"
    assert _known(3e-17, 1e-13) == "0"
    assert _known(1.23456e-10, 1e-13) == "1.23e-10"
    assert _known(0.0, 0.0) == "0"
    assert _number(0.1, "exact") == "0.1"
    assert _number(448.0, "exact") == "448"


# -- how it fails --------------------------------------------------------------------------------------------------

BAD = [
    (["scale", "int44x"], r"unknown grid|int44x"),
    (["scale"], r"Missing argument 'GRID...'"),
    (["scale", "int4", "--density", "gausian"], r"gausian.*gaussian"),
    (["scale", "int4", "--density", "student-t:df=1"], r"df must be .*2.*got 1"),
    (["scale", "int4", "--shift", "middle"], r"--shift must be a number, mean or optimal, got 'middle'"),
    (["scale", "int4", "--tensor", "w"], r"--tensor needs the file that holds it: --data FILE --tensor w"),
    (["scale", "int4", "--density", "laplace", "--data", EXAMPLE], r"give --density or --data, not both"),
    (["scale", "int4", "--data", "nowhere.npy"], r"there is no file 'nowhere.npy'"),
    (["scale", "int4", "--data", EXAMPLE, "--tensor", "layers.0.wieght"], r"near it are 'layers.0.weight'"),
    (["scale", "int4", "--data", EXAMPLE, "--tensor", "labels"], r"tensor 'labels' .* has element type U8"),
    (["scale", "mxfp4", "--shift", "0.5"], r"shift must be 0 for a block format"),
    (["scale", "mxfp4", "--data", EXAMPLE, "--tensor", "layers.0.weight"], r"no point masses but at 0; qerror.fit"),
    (["error", "int4"], r"Missing option '--scale'"),
    (["error", "int4", "--scale", "-1"], r"scale must be positive and finite, got -1"),
    (["error", "int4", "--scale", "wide"], r"'wide' is not a valid float"),
    (["error", "int4", "--scale", "nan"], r"scale must be positive and finite, got nan"),
    (["compare", "--bits", "0"], r"0 is not in the range"),
    (["compare", "--bits", "99"], r"--bits must be a width that some format has, got 99"),
    (["formats", "e4m3"], r"e4m3fn"),
    (["scael", "int4"], r"there is no command 'scael'; did you mean 'scale'\?"),
    (["scale", "int4", "--densty", "laplace"], r"No such option '--densty'.*--density"),
    (["scale", "int4", "--model", "rough"], r"'rough' is not one of 'exact', 'high_resolution'"),
]


@pytest.mark.parametrize(("args", "words"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_input_costs_one_line(args, words):
    result = run(*args, status=2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("qerror: ")
    assert re.search(words, line)


def test_no_tensor_named_lists_them():
    result = run("scale", "int4", "--data", EXAMPLE, status=2)
    *listed, last = result.stderr.splitlines()
    assert [line.split()[0] for line in listed] == [info.name for info in list_tensors(EXAMPLE)]
    assert listed[0].split() == ["layers.0.weight", "F32", "96x64"]
    assert re.fullmatch(r"qerror: --tensor must name one of the 13 tensors of '.*'", last)


# -- a real process ------------------------------------------------------------------------------------------------


TABLES = [
    ["scale", "int4", "e2m1", "--density", "laplace"],
    ["error", "int8", "--scale", "0.02", "0.03"],
    ["compare", "--bits", "4"],
    ["ladder", "int4"],
    ["formats"],
    ["formats", "e4m3fn"],
    [
        "fit",
        example_checkpoint(),
        "--grid",
        "int4",
        "--axis",
        "0",
        *(f"--rule={r}" for r in ("minmax", "octav", "sawb")),
    ],
    ["fit", example_checkpoint(), "--grid", "int4", "--grid", "nvfp4"],
]


@pytest.mark.parametrize("args", TABLES, ids=lambda args: " ".join(map(str, (args[0], *args[2:4]))))
def test_tables_keep_the_width_of_a_terminal(monkeypatch, args):
    """No number is cut; what is not shown is named. What goes through a pipe stays as it is."""
    piped = run(*args).stdout
    monkeypatch.setattr(render, "_terminal_width", lambda stream=None: 80)
    shown = run(*args).stdout
    assert max(map(len, shown.splitlines())) <= 80
    numbers = re.compile(r"(?<![\w.])-?\d[\d.]*(?:e[-+]?\d+)?(?![\w.])")
    missing = Counter(numbers.findall(piped)) - Counter(numbers.findall(shown))
    assert not Counter(numbers.findall(shown)) - Counter(numbers.findall(piped))
    assert bool(missing) == bool(re.search("^(no room for|in all rows: .*bits)", shown, re.MULTILINE))


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            34,
            [
                "name bits kind    span  mse status",
                "a       4 uniform 2.71 0.25 exact",
                "b       4 uniform 3.93 0.50 exact",
            ],
        ),
        (33, ["name bits kind    span  mse", "a       4 uniform 2.71 0.25", "b       4 uniform 3.93 0.50"]),
        (26, ["name bits span  mse", "a       4 2.71 0.25", "b       4 3.93 0.50"]),
        (18, ["name span  mse", "a    2.71 0.25", "b    3.93 0.50"]),
        (13, ["name  mse", "a    0.25", "b    0.50"]),
        (8, ["name", "   mse", "a", "  0.25", "b", "  0.50"]),
    ],
)
def test_what_a_narrow_terminal_does_without(width, lines):
    """First words that are the same in all rows, then numbers, then what is spared, then a line a row."""
    headings = ["name", "bits", "kind", "span", "mse", "status"]
    rows = [["a", "4", "uniform", "2.71", "0.25", "exact"], ["b", "4", "uniform", "3.93", "0.50", "exact"]]
    cells = folding.Cells(headings, rows, [True, False, True, False, False, True])
    table, said = folding.fitted(cells, [3], width)
    assert [line for line in table if "─" not in line] == lines
    everything = " ".join([*table, *said])
    assert all(word in everything for word in ("4", "0.25", "0.50", "uniform", "exact", "span"))


def test_grids_and_blocks_are_in_one_table():
    lines = run("scale", "int4", "mxfp4", "int4_narrow_g128").stdout.splitlines()
    heads = lines[1].split()
    assert "constant" in heads
    assert [line.split()[0] for line in lines[3:6]] == ["int4", "mxfp4", "int4_narrow_g128"]


def test_sentences_end_between_words(monkeypatch, capsys):
    monkeypatch.setattr(render, "_terminal_width", lambda stream=None: 40)
    render.say("a sentence of some length\nand one that names model-00001-of-00002.safetensors too")
    out = capsys.readouterr().out.splitlines()
    assert out == ["a sentence of some length", "and one that names", "  model-00001-of-00002.safetensors too"]


def test_a_name_too_long_for_a_terminal_keeps_both_ends(monkeypatch, capsys):
    monkeypatch.setattr(render, "_terminal_width", lambda stream=None: 40)
    name = "model.layers.0.block_sparse_moe.experts.17.w1.weight"
    row = {"tensor": name, "shape": "14336x4096", "dtype": "BF16", "mse": 1.25}
    render.print_table("a title " * 9, [row], ["tensor", "shape", "dtype", "mse"])
    *title, head, ruler, first, second = capsys.readouterr().out.rstrip().splitlines()[:7]
    assert max(map(len, (*title, head, ruler, first, second))) <= 40
    assert first == "model.layers.0.blo…perts.17.w1.weight"


def test_a_real_terminal():
    pty, fcntl, termios = map(pytest.importorskip, ("pty", "fcntl", "termios"))
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "qerror", *map(str, TABLES[-1])]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as started:
        os.close(theirs)
        content = b""
        # The other end of a terminal that has ended is an error.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 1 << 16):
                content += part
    os.close(ours)
    assert started.returncode == 0
    lines = [line.rpartition("\r")[2] for line in content.decode().replace("\r\n", "\n").split("\n")]
    assert max(len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)) for line in lines) <= 80
    assert any("total" in line for line in lines)


def process(*args):
    return subprocess.run([sys.executable, "-m", "qerror", *args], capture_output=True, text=True, check=False)


def test_a_real_process():
    done = process("scale", "int4")
    assert done.returncode == 0
    assert "int4" in done.stdout
    # No progress bar, no colours and no warning in a pipe.
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    failed = process("scale", "int99")
    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.parametrize("args", ["formats", "scale int4", "--help", "fit --help", "formats e2m1 --json"])
def test_a_reader_that_has_enough_is_no_failure(args):
    command = [sys.executable, "-m", "qerror", *args.split()]
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_fits_a_terminal():
    for command in ([], *([name] for name in qerror_command.list_commands(None))):
        assert max(map(len, run(*command, "--help").stdout.splitlines())) <= 80, command


def test_help_has_examples_and_every_example_runs():
    assert run("--help").stdout.count("qerror ") >= 5
    for command in ("scale", "error", "compare", "formats"):
        text = run(command, "--help").stdout.replace("\\\n", "")
        examples = [line.split()[1:] for line in text.splitlines() if line.strip().startswith("qerror ")]
        assert examples
        for example in examples:
            if "--data" not in example:
                run(*example)


def test_version():
    assert run("--version").stdout == f"qerror, version {qe.__version__}\n"


def test_commands_are_found_without_being_imported():
    """Help and version load nothing that takes time; what the table says is what each command says."""
    for words in ("--help", "--version"):
        code = (
            "import sys; from qerror.cli.commands import qerror_command\n"
            f"try: qerror_command(['{words}'])\n"
            "finally: print(*[m for m in ('numpy', 'scipy', 'rich', 'sympy') if m in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr.split() == []


def test_every_command_says_in_a_line_what_it_is_for():
    """No summary is cut at 80 columns, of lists of commands or of what a shell completes."""
    text = run("--help").stdout
    for name, (_, said) in COMMANDS.items():
        command = qerror_command.get_command(click.Context(qerror_command), name)
        assert command.get_short_help_str(limit=80) == said
        assert re.search(rf"^  {name} +{re.escape(said)}$", text, re.MULTILINE), name
        assert len(command.help) > len(said)


def test_console_script_is_declared():
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert 'qerror = "qerror.cli:main"' in text


# -- derivations ---------------------------------------------------------------------------------------------------


def test_derive_prints_what_the_library_derives():
    from qerror import symbolic

    found = symbolic.derivation("clipping", "laplace")
    assert run("derive", "clipping", "--density", "laplace").stdout.strip() == str(found)
    optimum = symbolic.derivation("optimum", "gaussian", 2)
    assert run("derive", "optimum", "--grid", 2, "--markdown").stdout == optimum.markdown()
    assert run("derive", "optimum", "--grid", 2, "--latex").stdout.strip() == optimum.latex()
    lines = run("derive", "mse", "--density", "laplace", "--grid", "N").stdout.splitlines()
    assert ["Sum" in line for line in lines] == [False, False, True, False, False]
    sample = run("derive", "clipping", "--density", "empirical", "--grid", "int4").stdout
    assert sample.strip() == str(symbolic.derivation("clipping", symbolic.empirical(), "int4"))


def test_derive_prints_source_that_runs():
    source = run("derive", "mse", "--density", "student-t:df=5,std=1", "--grid", "e2m1", "--python").stdout
    scope = {}
    exec(source, scope)
    expected = qe.quantization_error(qe.StudentT(5), "e2m1", 0.4).mse
    np.testing.assert_allclose(scope["mse"](0.4), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("derive", "mse"), "grid is needed for mse"),
        (("derive", "mse", "--grid", "int5x"), "unknown grid 'int5x'"),
        (("derive", "clipping", "--density", "histogram"), "no symbolic density 'histogram'"),
        (("derive", "mode"), "'mode' is not one of 'clipping', 'rounding', 'mse', 'optimum'"),
    ],
)
def test_derive_refuses_in_one_line(args, message):
    result = run(*args, status=2)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


# -- names and what a shell makes of them --------------------------------------------------------------------------


def completed(*words):
    found = ShellComplete(qerror_command, {}, "qerror", "_QERROR_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [item.value for item in found]


def test_shells_complete_names():
    assert completed("sc") == ["scale", "scan"]
    assert completed("scale", "int4,mx") == [f"int4,{name}" for name in qe.block_formats() if name.startswith("mx")]
    assert completed("scale", "int4", "e4m3f") == ["e4m3fn", "e4m3fnuz"]
    assert completed("verify", "--densities", "gaussian,la") == ["gaussian,laplace"]
    assert completed("fit", "m.safetensors", "--rules", "minmax,oc") == ["minmax,octav", "minmax,ocp"]
    assert completed("scale", "int4", "--data", EXAMPLE, "--tensor", "layers.1.b") == ["layers.1.bias"]
    assert completed("scale", "int4", "--data", "nowhere", "--tensor", "") == []
    assert completed("figures", "blocks_c") == ["blocks_conventions", "blocks_codebooks"]
    assert completed("plan", "m", "--formats", "int4,") == [f"int4,{n}" for n in [*qe.formats(), *qe.block_formats()]]


def test_options_of_several_names_agree(tmp_path):
    """--grid and --grids, repeated, one after the other where no argument could be meant, or with commas."""
    said = rows("table", "--grids", "int4", "e2m1", "--densities", "gaussian", "student-t:df=5,std=1")
    for words in (
        ("--grid", "int4,e2m1", "--density", "gaussian,student-t:df=5,std=1"),
        ("--grids", "int4", "--grid", "e2m1", "--density", "gaussian", "--densities", "student-t:df=5,std=1"),
    ):
        assert rows("table", *words) == said
    one, other = (rows("fit", EXAMPLE, *words, "--include", "layers.0.weight") for words in (
        ("--grids", "int4,int3", "--rules", "minmax,percentile:p=99,octav"),
        ("--grid", "int4", "--grid", "int3", "--rule", "minmax", "--rule", "percentile:p=99", "--rule", "octav"),
    ))  # fmt: skip
    assert one == other
    assert list(one[0]["mse"]) == ["minmax", "percentile:p=99", "octav"]
    assert rows("scale", "int4,e2m1") == rows("scale", "int4", "e2m1")


SCHEMA = json.loads((Path(qe.__file__).parent / "data" / "output.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "line",
    [
        "scale int4 nvfp4 int4_g32",
        "scale int4 --loss 2.4",
        "error int8 --scale 0.02",
        "compare --bits 3",
        "ladder int4",
        "formats",
        "formats e2m1",
        "formats mxfp4",
        "derive clipping --density laplace",
        "verify --n 1e5 --grid int4 --density laplace",
        "table --grids int4 --density gaussian",
        "table --certified --grids int4 --density gaussian",
        "audit",
        "certify int4",
        "fit MODEL --grid int4,int3 --axis 0 --rule minmax",
        "fit MODEL --grid int4",
        "scan MODEL -o sketch.safetensors",
        "export MODEL --format int4_g32 -o out",
        "evaluate out --against MODEL",
    ],
)
def test_json_is_as_its_schema_says(line, tmp_path, monkeypatch):
    if line.startswith("certify"):
        pytest.importorskip("flint")
    if line.startswith("evaluate"):
        export(EXAMPLE, tmp_path / "out", format="int4_g32")
    monkeypatch.chdir(tmp_path)
    found = json.loads(run(*line.replace("MODEL", EXAMPLE).split(), "--json").stdout)
    jsonschema.validate(found, SCHEMA)
    assert found["rows"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**found, "rows": [{**found["rows"][0], "another": 1}]}, SCHEMA)


def test_the_schema_says_what_every_key_means():
    fields = SCHEMA["$defs"]["fields"]["properties"]
    assert all(re.fullmatch("[a-z0-9_]+", key) and field["description"] for key, field in fields.items())
    used = {key for name, rows in SCHEMA["$defs"].items() if name != "fields" for key in rows["properties"]}
    assert used == set(fields)
    assert set(SCHEMA["properties"]["command"]["enum"]) == set(COMMANDS) - {"collect", "figures", "plan", "report"}
