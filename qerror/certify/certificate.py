"""What `certify` returns: a proven statement, and the file that anyone can verify."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any, Self

from .._check import shown
from .._files import atomic_open


class OpenError(ValueError):
    """A proof that could not be completed: what is left open, and where."""


@dataclasses.dataclass(frozen=True, repr=False)
class Certificate:
    """The globally optimal scale and its mean squared error, with their proof.

    Attributes
    ----------
    content : dict
        All of the file, as `qerror.certify` describes it.
    """

    content: dict[str, Any]

    @property
    def scale(self) -> str:
        """The optimal scale, as a ball: ``[0.3386... +/- 5.1e-31]``."""
        return str(self.content["scale"])

    @property
    def mse(self) -> str:
        """The least mean squared error, as a ball."""
        return str(self.content["mse"])

    @property
    def unique(self) -> bool:
        """Whether no other scale has the least error; False where the others of `minima` could not be told apart."""
        return bool(self.content["unique"])

    @property
    def minima(self) -> tuple[tuple[str, str], ...]:
        """Scale and MSE of all local minima up to 1e-12 (relative) above the least, which comes first."""
        return ((self.scale, self.mse), *((scale, mse) for scale, mse in self.content.get("minima", ())))

    @property
    def pieces(self) -> tuple[tuple[float, float, str], ...]:
        """The pieces of (0, inf): both ends and the letter of the kind (see `qerror.certify.checker`)."""
        cuts = [0.0, *map(float, self.content["cuts"].split()), math.inf]
        return tuple(zip(cuts[:-1], cuts[1:], self.content["kinds"], strict=True))

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps(self.content, separators=(",", ":"), allow_nan=False) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file; it appears only when it is complete."""
        with atomic_open(path, "w") as file:
            file.write(self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file, without a look at its proof: `qerror.certify.verify(certificate.content)` checks that.

        Raises
        ------
        ValueError
            For a file that is missing or holds no JSON object.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{shown(Path(path))} is no certificate: {error}") from None
        if not isinstance(content, dict):
            raise ValueError(f"{shown(Path(path))} is no certificate: it holds no JSON object")
        return cls(content)

    def __repr__(self) -> str:
        about = f"{len(self.content['levels'])} levels, {self.content['rounding']}"
        return f"Certificate({about}, scale {self.scale}, mse {self.mse}, {'unique' if self.unique else 'tied'})"
