"""What `certify` returns: a proven statement, and the file that anyone can verify."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

from .._check import shown
from .._files import atomic_open


class OpenError(ValueError):
    """A proof that could not be completed: what is left open, and where."""


FORMAT, SCHEMA = "qerror certificate", 1


@dataclasses.dataclass(frozen=True, repr=False)
class Proof:
    """A statement with all that its proof takes, as one file.

    Attributes
    ----------
    content : dict
        All of the file, as `qerror.certify` describes it.
    """

    content: dict[str, Any]

    @property
    def mse(self) -> str:
        """The mean squared error, as a ball; of a sample, as a fraction."""
        return str(self.content["mse"])

    def statement(self) -> dict[str, Any]:
        """What is proven, in fields."""
        return {"mse": self.mse}

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps(self.content, separators=(",", ":"), allow_nan=False) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file; it appears only when it is complete."""
        with atomic_open(path, "w") as file:
            file.write(self.to_json())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Proof:
        """Read a file, without a look at its proof: `qerror.certify.verify(certificate.content)` checks that.

        Raises
        ------
        ValueError
            For a file that is missing or is no certificate.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{shown(Path(path))} is no certificate: {error}") from None
        kind = KINDS.get(str(content.get("format"))) if isinstance(content, dict) else None
        if kind is None:
            raise ValueError(f"{shown(Path(path))} is no certificate: its format is none of {', '.join(KINDS)}")
        return kind(content)

    def __repr__(self) -> str:
        said = [f"{len(self.content['levels'])} levels", *self.content.get("rounding", "").split()]
        return f"{type(self).__name__}({', '.join([*said, *self.said()])})"

    def said(self) -> list[str]:
        """The statement in a few words and balls."""
        return [f"mse {self.mse}"]


class Certificate(Proof):
    """The globally optimal scale and its mean squared error, with their proof."""

    @property
    def scale(self) -> str:
        """The optimal scale, as a ball: ``[0.3386... +/- 5.1e-31]``; of a sample, as a fraction."""
        return str(self.content["scale"])

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

    def statement(self) -> dict[str, Any]:
        """What is proven, in fields."""
        return {"scale": self.scale, "mse": self.mse, "unique": self.unique, "minima": self.minima}

    def said(self) -> list[str]:
        """The statement in a few words and balls."""
        return [f"scale {self.scale}", f"mse {self.mse}", "unique" if self.unique else "tied"]


class CertifiedCodebook(Proof):
    """A Lloyd-Max quantizer."""

    @property
    def levels(self) -> tuple[str, ...]:
        """All levels as balls, ascending, units of x: those of one and the same stationary codebook."""
        return tuple(self.content["levels"])

    @property
    def optimal(self) -> bool:
        """Whether it is the best of all codebooks of its size: for log-concave densities, which have one only."""
        return bool(self.content["optimal"])

    def statement(self) -> dict[str, Any]:
        """What is proven, in fields."""
        return {"levels": self.levels, "mse": self.mse, "optimal": self.optimal}

    def said(self) -> list[str]:
        """The statement in a few words and balls."""
        return [f"mse {self.mse}", "the best of its size" if self.optimal else "a stationary one"]


class CertifiedPair(Proof):
    """The scale and shift that are optimal together."""

    @property
    def optima(self) -> tuple[tuple[str, str], ...]:
        """Scale and shift of least error, as balls: one pair, or two that mirror one another."""
        return tuple((scale, shift) for scale, shift in self.content["optima"])

    def statement(self) -> dict[str, Any]:
        """What is proven, in fields."""
        return {"optima": self.optima, "mse": self.mse}

    def said(self) -> list[str]:
        """The statement in a few words and balls."""
        return [*(f"scale {scale}, shift {shift}" for scale, shift in self.optima), f"mse {self.mse}"]


class CertifiedBlocks(Proof):
    """The expected squared error of a value of a block format."""


KINDS: dict[str, type[Proof]] = {
    FORMAT: Certificate,
    f"{FORMAT} of a sample": Certificate,
    f"{FORMAT} of a codebook": CertifiedCodebook,
    f"{FORMAT} of a pair": CertifiedPair,
    f"{FORMAT} of blocks": CertifiedBlocks,
}
