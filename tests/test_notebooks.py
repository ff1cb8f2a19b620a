"""Every notebook runs from an empty session of this very Python, each cell and each assertion in it.

A cell is run by IPython, as a kernel does, but in a plain process: no kernel, no sockets. To write the outputs again,
with the extra `notebook`: jupyter nbconvert --to notebook --execute --inplace notebooks/*.ipynb
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Processor seconds from an empty session: a reader waits no longer than that. (Seconds by the clock say how busy the
# machine is.)
LONGEST = {"01_derivations": 60.0}
LONGEST_OF_ALL = 120.0
RUNNER = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in json.load(sys.stdin)["cells"]:
    if cell["cell_type"] == "code":
        shell.run_cell("".join(cell["source"]), store_history=True).raise_error()
"""


def execute(notebook: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run all cells, in `folder`; a cell that fails ends the process with its traceback."""
    places = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython"), "MPLBACKEND": "agg"}
    # The notebook that trains networks then trains a few of them only.
    places["QERROR_QUICK"] = "1"
    command = [sys.executable, "-c", RUNNER]
    text = json.dumps(notebook)
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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_with_outputs(path: Path) -> None:
    notebook = read(path)
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert any("assert " in "".join(cell["source"]) for cell in cells)


def test_a_failing_assertion_fails(tmp_path: Path) -> None:
    cell = {"cell_type": "code", "source": ["x = 3\n", "assert x == 2"]}
    done = execute({"cells": [cell]}, tmp_path)
    assert done.returncode != 0
    assert "AssertionError" in done.stdout + done.stderr
