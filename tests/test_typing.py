"""Type checkers know what results are, and refuse what is not there; names as types are the names that there are."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import qerror as qe
from qerror.densities.named import DensityName
from qerror.grids.names import BlockFormatName, GridName
from qerror.rules.block_rules import NAMES
from qerror.rules.names import RULES, RuleName

ROOT = Path(__file__).parent.parent


def check(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_reads_a_users_script() -> None:
    """In `make test` mypy has run before, and this takes two seconds."""
    check("mypy", "tests/user_script.py")


def test_pyright_reads_a_users_script() -> None:
    """`basedpyright` is pyright with its node.js, from PyPI alone."""
    if importlib.util.find_spec("basedpyright") is None:
        pytest.skip("basedpyright is not installed: make test-interop has it")
    check("basedpyright", "--level", "error", "--pythonpath", sys.executable)


def test_names_are_types() -> None:
    assert list(get_args(GridName)) == qe.formats()
    assert list(get_args(BlockFormatName)) == qe.block_formats()
    assert set(get_args(RuleName)) == {*RULES, *NAMES}
    assert [qe.density(name).name for name in get_args(DensityName)] == list(get_args(DensityName))
