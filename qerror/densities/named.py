"""Densities by name: "student-t:df=5", "mixture(0.9*gaussian; 0.1*gaussian:std=10)"; and the other ways to get one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Literal

from .._check import suggest
from .base import Density
from .combined import Mixture
from .histogram import Histogram
from .parametric import Gaussian, Laplace, Logistic, Uniform
from .rectified import Rectified
from .shaped import GeneralizedGaussian, StudentT

DensityName = Literal["gaussian", "laplace", "logistic", "uniform"]
"""Names of densities that need no parameters, as types."""

# Constructor and its keywords, those without a default first.
_FAMILIES: dict[str, tuple[Callable[..., Density], tuple[str, ...], tuple[str, ...]]] = {
    "gaussian": (Gaussian, (), ("mean", "std")),
    "laplace": (Laplace, (), ("mean", "std")),
    "logistic": (Logistic, (), ("mean", "std")),
    "uniform": (Uniform, (), ("mean", "std")),
    "student-t": (StudentT, ("df",), ("mean", "std")),
    "generalized-gaussian": (GeneralizedGaussian, ("beta",), ("mean", "std")),
    "histogram": (Histogram, ("counts", "edges"), ()),
}
_ALIASES = {"normal": "gaussian", "t": "student-t", "student": "student-t"}
_EXAMPLES = {
    "df": "student-t:df=5",
    "beta": "generalized-gaussian:beta=1.5",
    "counts": "histogram:counts=[1,2],edges=[0,1,3]",
}


def density(name: DensityName | str | Density) -> Density:
    """The density of that name; a `Density` is returned as it is.

    ``family:key=value,key=value`` with the keywords of the class; ``mixture(w*name; w*name)``; ``rectified(name)``.
    Families: gaussian, laplace, logistic, uniform (also with a=, b= for its ends), student-t, generalized-gaussian,
    histogram. Case does not matter, underscores count as hyphens, lists stand in brackets.

    Returns
    -------
    Density
        `density(d.name)` is the same density as d, to the last bit of every parameter.

    Raises
    ------
    ValueError
        For an unknown family (with near matches), an unknown, missing or malformed parameter.

    Examples
    --------
    >>> import qerror as qe
    >>> qe.density("student-t:df=5")
    StudentT(df=5)
    >>> qe.density("mixture(0.9*gaussian; 0.1*gaussian:std=10)").std.item() ** 2
    10.9
    """
    if isinstance(name, Density):
        return name
    if not isinstance(name, str):
        raise ValueError(f"density must be a Density or a name such as 'gaussian:std=2', got {name!r}")
    return _made(described(name))


def described(name: str) -> dict[str, Any]:
    """What a name says, as plain data: "family" and its keywords; "of" has the parts of a mixture or a rectifier.

    Raises
    ------
    ValueError
        For an unknown family, an unknown, missing or malformed parameter; their values are not looked at.

    Examples
    --------
    >>> described("rectified(t:df=5)")
    {'family': 'rectified', 'of': {'family': 'student-t', 'df': 5.0}}
    """
    text = name.strip()
    composed = re.fullmatch(r"\s*(mixture|rectified)\s*\((.*)\)\s*", text, re.IGNORECASE | re.DOTALL)
    if composed:
        inner = _split(composed[2], ";")
        return _mixture(inner, text) if composed[1].lower() == "mixture" else _rectified(inner, text)
    family, _, said = text.partition(":")
    return _family(family, _parameters(said, text))


def _mixture(parts: list[str], text: str) -> dict[str, Any]:
    terms = [re.fullmatch(r"\s*([^*]+)\*(.*)", part, re.DOTALL) for part in parts]
    if not all(terms):
        example = "'mixture(0.9*gaussian; 0.1*gaussian:std=10)'"
        raise ValueError(f"a mixture is written as weight*name; weight*name, as in {example}, got {text!r}")
    found = [(_value("weight", term[1]), described(term[2])) for term in terms if term]
    return {"family": "mixture", "weights": [w for w, _ in found], "of": [part for _, part in found]}


def _rectified(parts: list[str], text: str) -> dict[str, Any]:
    if len(parts) != 1:
        raise ValueError(f"rectified takes one density, as in 'rectified(gaussian:mean=1)', got {text!r}")
    return {"family": "rectified", "of": described(parts[0])}


def _family(family: str, parameters: dict[str, Any]) -> dict[str, Any]:
    key = family.strip().lower().replace("_", "-")
    key = _ALIASES.get(key, key)
    if key == "uniform" and parameters.keys() == {"a", "b"}:
        return {"family": key, **parameters}
    if key not in _FAMILIES:
        hint = suggest(key, [*_FAMILIES, *_ALIASES, "mixture", "rectified"]) or "; known: " + ", ".join(_FAMILIES)
        raise ValueError(f"unknown density {family!r}{hint}")
    _, required, optional = _FAMILIES[key]
    for given in parameters:
        if given not in (*required, *optional):
            takes = ", ".join((*required, *optional)) + (" or a, b" if key == "uniform" else "")
            raise ValueError(f"{key} has no parameter {given!r}; it takes {takes}")
    for needed in required:
        if needed not in parameters:
            raise ValueError(f"{key} needs {needed}, as in {_EXAMPLES.get(needed, _EXAMPLES['counts'])!r}")
    return {"family": key, **parameters}


def _made(said: dict[str, Any]) -> Density:
    family, parameters = said["family"], {key: value for key, value in said.items() if key != "family"}
    if family == "mixture":
        return Mixture([_made(part) for part in said["of"]], said["weights"])
    if family == "rectified":
        return Rectified(_made(said["of"]))
    if "a" in parameters:
        return Uniform.from_bounds(**parameters)
    return _FAMILIES[family][0](**parameters)


def _parameters(said: str, text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in _split(said, ",") if said.strip() else []:
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if not equals or not key:
            raise ValueError(f"parameters are written as key=value, separated by commas, got {part!r} in {text!r}")
        if key in found:
            raise ValueError(f"{key} is given twice in {text!r}")
        found[key] = _value(key, value)
    return found


def _value(key: str, text: str) -> Any:
    try:
        return json.loads(text) if text.strip().startswith("[") else float(text)
    except ValueError:
        raise ValueError(f"{key} must be a number or a list of numbers in brackets, got {text.strip()!r}") from None


def _split(text: str, separator: str) -> list[str]:
    """Split where no bracket is open."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
