"""What a certificate is about, as plain data: read off the names of densities and the levels of grids."""

from __future__ import annotations

from typing import Any

from ..densities.base import Density
from ..densities.named import density as as_density
from ..densities.named import described


def density_data(density: Density | str) -> dict[str, Any]:
    """Family and every parameter, also those that have their default."""
    member = as_density(density)
    if member.shape:
        raise ValueError(f"density must have shape (), got {member.shape}; certify each member")
    try:
        said = described(member.name)
        same = type(as_density(member.name)) is type(member)
    except ValueError:
        same = False
    if not same:
        known = "Gaussian, Laplace, Logistic, Uniform, StudentT, GeneralizedGaussian, Mixture, Rectified, Histogram"
        raise ValueError(f"density must be made of {known} or be an Empirical, got {member.name!r}: it has no proof")
    return _complete(said)


def _complete(said: dict[str, Any]) -> dict[str, Any]:
    family = said["family"]
    if family == "mixture":
        return {**said, "of": [_complete(part) for part in said["of"]]}
    if family == "rectified":
        return {**said, "of": _complete(said["of"])}
    if family == "histogram" or "a" in said:
        return said
    return {**said, "mean": said.get("mean", 0.0), "std": said.get("std", 1.0)}


def short_numbers(data: Any) -> Any:
    """Whole numbers without their .0; others stay as they are."""
    if isinstance(data, dict):
        return {key: short_numbers(value) for key, value in data.items()}
    if isinstance(data, list):
        return [short_numbers(value) for value in data]
    return int(data) if isinstance(data, float) and data.is_integer() and abs(data) < 2**53 else data
