"""Every notebook runs from an empty session of this very Python, and says what its committed outputs say.

A cell is run by IPython, as a kernel does, but in a plain process: no kernel, no sockets. To write stale outputs again:
python tests/test_notebooks.py --write (--all: pictures too, where no word changed)
"""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from qerror.plotting import FIGURES, code_of

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Processor seconds from an empty session: a reader waits no longer than that. (Seconds by the clock say how busy the
# machine is.)
LONGEST = {"01_derivations": 60.0}
LONGEST_OF_ALL = 120.0
RUNNER = """
import base64, contextlib, io, json, sys
from IPython.core.interactiveshell import InteractiveShell
shell, shown, outputs = InteractiveShell.instance(), [], []
shell.display_trap.hook = shown.append
for cell in json.load(sys.stdin)["cells"]:
    if cell["cell_type"] == "code":
        shown.clear()
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            done = shell.run_cell("".join(cell["source"]), store_history=True)
        done.raise_error()
        data = [shell.display_formatter.format(value)[0] for value in shown if value is not None]
        for one in data:
            one.update({key: base64.b64encode(v).decode() for key, v in one.items() if isinstance(v, bytes)})
        outputs.append({"printed": printed.getvalue(), "data": data[0] if data else {}})
with open("outputs.json", "w") as file:
    json.dump(outputs, file)
"""
# What a notebook says in words; a picture is as its figure is (test_plotting).
WORDS = ("text/plain", "text/latex", "text/markdown", "text/html")
# What says one of these trains networks for a quarter of an hour, and prints times: a few are trained here (in CI
# with PyTorch). What it says of all is not compared: last bits of a training are not the same everywhere.
UNSTABLE = ("QERROR_QUICK",)


def drawn_alone(cell: dict[str, Any]) -> str | None:
    """The figure that a cell draws without doing more; its picture is that of `figures` (test_plotting draws it)."""
    match = re.fullmatch(r'draw\("(\w+)"\)', "".join(cell["source"]))
    return match[1] if match else None


def without_drawing(notebook: dict[str, Any]) -> dict[str, Any]:
    """Cells that draw and do no more give nothing: all that they do has its test."""
    cells = [cell | ({"source": ["None"]} if drawn_alone(cell) else {}) for cell in notebook["cells"]]
    return notebook | {"cells": cells}


def picture(name: str) -> dict[str, Any]:
    """The output of a cell that draws a figure, as large as the figure is."""
    content = (ROOT / "figures" / f"{name}.png").read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    lines = base64.encodebytes(content).decode().splitlines(keepends=True)
    said = (FIGURES[name].__doc__ or name).partition("\n")[0]
    size = {"image/png": {"width": width // 2, "height": height // 2}}
    return {"data": {"image/png": lines, "text/plain": [said]}, "metadata": size, "output_type": "execute_result"}


def execute(notebook: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run all cells in `folder` and write their outputs there; one that fails ends the process with its traceback."""
    places = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython"), "MPLBACKEND": "agg"}
    # The notebook that trains networks then trains a few of them only.
    places["QERROR_QUICK"] = "1"
    command = [sys.executable, "-c", RUNNER]
    text = json.dumps(without_drawing(notebook))
    return subprocess.run(
        command, input=text, cwd=folder, env=os.environ | places, capture_output=True, text=True, check=False
    )


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = read(path)
    if "qerror.training" in json.dumps([cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]):
        pytest.importorskip("torch", reason="torch is not installed")
    start = os.times().children_user
    done = execute(notebook, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert os.times().children_user - start < LONGEST.get(path.stem, LONGEST_OF_ALL)
    if is_stable(notebook):
        assert said(notebook) == [words(output) for output in outputs_in(tmp_path)]


def is_stable(notebook: dict[str, Any]) -> bool:
    return not any(word in json.dumps(notebook["cells"]) for word in UNSTABLE)


def outputs_in(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / "outputs.json").read_text(encoding="utf-8")))


def words(output: dict[str, Any]) -> dict[str, str]:
    """What is printed, and the result of a cell in words, without addresses."""
    found = {"printed": output["printed"]} | {key: output["data"].get(key, "") for key in WORDS}
    return {key: re.sub("0x[0-9a-f]+", "0x", text) for key, text in found.items()}


def said(notebook: dict[str, Any]) -> list[dict[str, str]]:
    """The words of all committed outputs, cell by cell."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and drawn_alone(cell):
            found.append(words({"printed": "", "data": {}}))
        elif cell["cell_type"] == "code":
            printed = "".join("".join(one["text"]) for one in cell["outputs"] if one["output_type"] == "stream")
            data = [one["data"] for one in cell["outputs"] if one["output_type"] == "execute_result"]
            one = {key: "".join(text) for key, text in (data[0] if data else {}).items()}
            found.append(words({"printed": printed, "data": one}))
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_with_outputs(path: Path) -> None:
    notebook = read(path)
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert any("assert " in "".join(cell["source"]) for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_checks_are_folded(path: Path) -> None:
    """A cell of checks alone is not shown; what is shown has none at its end."""
    for cell in read(path)["cells"]:
        if cell["cell_type"] == "code":
            body = ast.parse("".join(cell["source"])).body
            checks = [isinstance(statement, ast.Assert) for statement in body]
            assert cell["metadata"].get("jupyter", {}).get("source_hidden", False) == all(checks)
            assert all(checks) or not checks[-1]


def test_notebooks_read_what_ships() -> None:
    assert not [path.name for path in NOTEBOOKS if "QERROR_DATA" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pictures_are_those_of_the_figures(path: Path) -> None:
    for cell in read(path)["cells"]:
        name = drawn_alone(cell)
        if name:
            assert cell["outputs"] == [picture(name) | {"execution_count": cell["execution_count"]}]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_figure_shows_its_code(path: Path) -> None:
    """The function that draws a figure follows it, folded, as it is now."""
    sources = [("".join(cell["source"]), cell) for cell in read(path)["cells"]]
    shown = {text: cell for text, cell in sources if text.startswith("code_of(")}
    drawn = [name for text, _ in sources for name in re.findall(r"\bdraw\(\"(\w+)\"\)", text)]
    assert [f'code_of("{name}")' for name in drawn] == list(shown)
    for name in drawn:
        (output,) = shown[f'code_of("{name}")']["outputs"]
        assert "".join(output["data"]["text/html"]) == code_of(name)._repr_html_()


def test_a_failing_assertion_fails(tmp_path: Path) -> None:
    cell = {"cell_type": "code", "source": ["x = 3\n", "assert x == 2"]}
    done = execute({"cells": [cell]}, tmp_path)
    assert done.returncode != 0
    assert "AssertionError" in done.stdout + done.stderr


def test_a_stale_output_is_seen(tmp_path: Path) -> None:
    source = {"cell_type": "code", "source": ["print(2 + 2)\n", "'four'"]}
    data = {"data": {"text/plain": ["'four'"]}, "output_type": "execute_result"}
    assert execute({"cells": [source]}, tmp_path).returncode == 0
    now = [words(output) for output in outputs_in(tmp_path)]
    for printed, fresh in (("4\n", True), ("5\n", False)):
        stored = source | {"outputs": [{"output_type": "stream", "name": "stdout", "text": [printed]}, data]}
        assert (said({"cells": [stored]}) == now) is fresh


def write(*, every: bool) -> None:
    """Run all notebooks with stable outputs; store all outputs of those of which a cell says something else now."""
    for path in NOTEBOOKS:
        notebook = read(path)
        if not is_stable(notebook):
            continue
        with tempfile.TemporaryDirectory() as folder:
            done = execute(notebook, Path(folder))
            if done.returncode:
                raise SystemExit(f"{path.name} fails:\n{done.stdout}{done.stderr}")
            now = outputs_in(Path(folder))
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        stale = [i for i, (old, new) in enumerate(zip(said(notebook), now, strict=True)) if old != words(new)]
        # Pictures show what the words say: all of a stale notebook are new.
        for i in range(len(cells)) if stale or every else ():
            name = drawn_alone(cells[i])
            if name:
                cells[i]["outputs"] = [picture(name) | {"execution_count": i + 1}]
                continue
            lines = {key: text.splitlines(keepends=True) for key, text in now[i]["data"].items() if key in WORDS}
            printed, data = now[i]["printed"].splitlines(keepends=True), now[i]["data"] | lines
            cells[i]["outputs"] = [{"name": "stdout", "output_type": "stream", "text": printed}] * bool(printed)
            if data:
                result = {"data": data, "execution_count": i + 1, "metadata": {}, "output_type": "execute_result"}
                cells[i]["outputs"].append(result)
        if stale or every:
            text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
            path.write_text(text + "\n", encoding="utf-8")
        print(f"{path.name}: {len(stale)} cells were stale")


if __name__ == "__main__":
    if sys.argv[1:] not in (["--write"], ["--write", "--all"]):
        raise SystemExit("usage: python tests/test_notebooks.py --write [--all]")
    write(every="--all" in sys.argv)
