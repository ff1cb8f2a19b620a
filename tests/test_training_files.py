"""PyTorch's own files: its tensors are read, its code never runs. Without PyTorch see tests/test_checkpoints.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import qerror as qe
from qerror.files import open_checkpoint, read_tensor

torch = pytest.importorskip("torch", reason="torch is not installed")


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_a_training_checkpoint(tmp_path: Path, zipped: bool) -> None:
    x = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)
    tensor = torch.from_numpy(x.copy())
    state = {
        "state_dict": {
            "w": tensor,
            "turned": tensor.T,
            "half": tensor.half(),
            "brain": tensor.bfloat16(),
            # Of float8 PyTorch's older files are not read by its own reader of weights.
            **({"eight": tensor.to(torch.float8_e4m3fn)} if zipped else {}),
            "ids": torch.arange(4),
        },
        "epoch": 3,
        "history": [tensor[0], 0.5],
        "one": torch.tensor(2.5),
    }
    path = tmp_path / "m.pt"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    expected: dict[str, Any] = {
        "state_dict.w": x,
        "state_dict.turned": x.T,
        "state_dict.half": x.astype(np.float16),
        "state_dict.brain": x.astype(ml_dtypes.bfloat16),
        **({"state_dict.eight": x.astype(ml_dtypes.float8_e4m3fn)} if zipped else {}),
        "history.0": x[0],
        "one": np.float32(2.5),
    }
    with open_checkpoint(path) as checkpoint:
        assert set(checkpoint) == {*expected, "state_dict.ids"}
        assert checkpoint.skipped == {"epoch": "no tensor (int)", "history.1": "no tensor (float)"}
        for name, values in expected.items():
            np.testing.assert_array_equal(checkpoint[name], values.astype(np.float32))
            part = checkpoint.part(name, 0, min(7, values.size))
            np.testing.assert_array_equal(part, values.astype(np.float32).ravel()[:7])
    fits = {fit.info.name: fit for fit in qe.checkpoints.fit(path, "int4", axis=0)}
    own = qe.fit(x, "int4", axis=0)
    assert fits["state_dict.w"].mse["optimal"] == pytest.approx(float(own.total.mse), rel=1e-12)


class Bomb:
    """Marks the file it is unpickled with."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_training_checkpoint_never_runs(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "m.pt"
    torch.save({"w": torch.ones(2), "b": Bomb(tmp_path / "exploded")}, path, _use_new_zipfile_serialization=zipped)
    words = r"is a pickle that torch.load\(weights_only=True\), which can run no code, does not read"
    with pytest.raises(ValueError, match=words) as caught:
        read_tensor(path)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "exploded").exists()
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"truncated or damaged|does not read"):
        read_tensor(path)
