"""What all tests share: Hypothesis without deadlines (and without chance in CI), the folder of real data, scripts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Several processes share the cores: BLAS threads of each would mostly wait for one another. NumPy is not loaded yet,
# and programs that tests start inherit it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Deadlines measure the machine. In CI a failure must repeat: examples are then a function of the test alone.
settings.register_profile("qerror", deadline=None, max_examples=50)
settings.register_profile("qerror-ci", deadline=None, max_examples=25, derandomize=True, print_blob=True)
settings.load_profile("qerror-ci" if os.environ.get("CI") else "qerror")

# States of the modules' generators before their first test.
_BEGINNING: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _numbers_whatever_ran_before(request: pytest.FixtureRequest) -> None:
    """Each test of a module with a generator `RNG` draws from its beginning, in whatever order tests run."""
    rng = getattr(request.module, "RNG", None)
    if rng is not None:
        rng.bit_generator.state = _BEGINNING.setdefault(request.module.__name__, rng.bit_generator.state)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real tensors."""
    folder = Path(os.environ.get("QERROR_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found in {folder}: set QERROR_DATA to their folder")
    return folder
