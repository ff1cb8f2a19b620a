"""Quantization errors against 20-digit integrals of the pdf (tests/reference/make_errors.py)."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf

import qerror as qe

REFERENCE = Path(__file__).parent / "reference"
# A second table of the same format, made by others.
_DATA = Path(os.environ.get("QERROR_DATA", Path(__file__).parents[2] / "shared" / "data"))
SECOND_TABLE = Path(os.environ.get("QERROR_REFERENCE", _DATA.parent / "reference")) / "errors.json"

# Relative: every term is positive and summed about its own level, so nothing cancels.
MSE_TOLERANCE = 1e-12
# Relative: at 36 std one rounding of the end value moves the tail by 36^2 eps = 3e-13.
CLIPPING_TOLERANCE = 1e-10
# Nothing is asked of a clipping error below this: its square root is at the end of float64.
CLIPPING_FLOOR = 1e-300
# Of max(std, |bias|, rms of Q(x)): the bias is a difference of numbers of that size.
BIAS_TOLERANCE = 1e-13
# Of sqrt(E[x^2] MSE), which bounds E[x (Q(x) - x)]; its parts are as large.
CROSS_TOLERANCE = 1e-12
# Moments of the density itself.
POWER_TOLERANCE = 1e-13
# One call for many scales may sum in another order than one call each.
BROADCAST_TOLERANCE = 1e-14


def load(name: str) -> Any:
    """A script of tests/reference as a module."""
    spec = importlib.util.spec_from_file_location(name, REFERENCE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


make_errors = load("make_errors")


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


CASES = read(REFERENCE / "errors.json")
# There, "rounding" is the error and all cases are nearest.
SECOND_CASES = [{**case, "rounding": "nearest", "rounding_error": case["rounding"]} for case in read(SECOND_TABLE)]
SETTING = ("density", "grid", "shift", "rounding")


def label(case: dict[str, Any]) -> str:
    density = case["density"] if isinstance(case["density"], str) else json.dumps(case["density"])
    parts = (density, case["grid"], case["scale"], case["shift"], case["rounding"])
    return " ".join(map(str, parts)).replace('"', "")


def density_of(spec: str | dict[str, Any]) -> qe.Density:
    if isinstance(spec, str):
        return qe.density(spec)
    if "mixture" in spec:
        items = spec["mixture"]
        return qe.Mixture([qe.density(item["density"]) for item in items], [item["weight"] for item in items])
    return qe.Rectified(qe.density(spec["rectified"]))


def std_of(case: dict[str, Any]) -> float:
    return float(density_of(case["density"]).std)


def error_of(case: dict[str, Any], scale: Any = None) -> qe.ErrorTerms:
    scale = float(case["scale"]) if scale is None else scale
    density, shift = density_of(case["density"]), float(case["shift"])
    return qe.quantization_error(density, case["grid"], scale, shift, rounding=case["rounding"])


def violations(found: qe.ErrorTerms, case: dict[str, Any], std: float) -> list[str]:
    """What is out of tolerance, with how much of the tolerance it takes."""
    expected = {name: float(case[key]) for name, key in make_errors.KEYS.items() if key in case}
    clipping, rounding, bias = (expected[name] for name in ("clipping", "rounding", "bias"))
    mse = float(mpf(case["clipping"]) + mpf(case[make_errors.KEYS["rounding"]]))
    # E[Q^2] = E[x^2] + 2 cross + MSE, from what was found: the size only sets a tolerance.
    rms = np.sqrt(max(found.power + 2 * found.cross + found.mse, 0.0))
    allowed = {
        "rounding": (rounding, MSE_TOLERANCE * rounding),
        "mse": (mse, MSE_TOLERANCE * mse),
        "clipping": (clipping, max(CLIPPING_TOLERANCE * clipping, CLIPPING_FLOOR)),
        "bias": (bias, BIAS_TOLERANCE * max(std, abs(bias), rms)),
    }
    if "power" in expected:
        power = expected["power"]
        allowed |= {
            "cross": (expected["cross"], CROSS_TOLERANCE * np.sqrt(power * mse)),
            "power": (power, POWER_TOLERANCE * power),
            "mean": (expected["mean"], POWER_TOLERANCE * np.sqrt(power)),
        }
    return [
        f"{name}: {getattr(found, name)!r}, expected {value!r}: {abs(getattr(found, name) - value) / tolerance:.3g}"
        f" times the tolerance"
        for name, (value, tolerance) in allowed.items()
        if not abs(getattr(found, name) - value) <= tolerance
    ]


def test_the_table_is_complete() -> None:
    assert len(CASES) >= 140
    assert len({label(case) for case in CASES}) == len(CASES)
    # The table is the one that the script describes.
    inputs = [{key: case[key] for key in (*SETTING, "scale")} for case in CASES]
    assert inputs == [{key: case[key] for key in (*SETTING, "scale")} for case in make_errors.cases()]


@pytest.mark.parametrize("case", CASES, ids=label)
def test_error_matches_the_integral(case: dict[str, Any]) -> None:
    assert violations(error_of(case), case, std_of(case)) == []


@pytest.mark.skipif(
    not SECOND_CASES,
    reason="the folder of reference errors is not there; QERROR_REFERENCE, or QERROR_DATA beside it, names it",
)
def test_error_matches_the_second_table() -> None:
    found = {label(case): violations(error_of(case), case, std_of(case)) for case in SECOND_CASES}
    assert {name: said for name, said in found.items() if said} == {}


@pytest.mark.parametrize(
    ("field", "change"), [("rounding", 1e-11), ("mse", 1e-11), ("clipping", 1e-9), ("power", 1e-11), ("cross", 1e-10)]
)
def test_a_changed_value_is_noticed(field: str, change: float) -> None:
    """The comparison fails on each case whose value differs in the eleventh digit (clipping: the ninth)."""
    picked = [c for c in CASES if c["density"] == "gaussian" and c["shift"] == 0 and float(c["clipping"]) > 1e-250]
    assert len(picked) > 10
    for case in picked:
        found = error_of(case)
        if field == "mse":
            wrong = dataclasses.replace(
                found, clipping=found.clipping * (1 + change), rounding=found.rounding * (1 + change)
            )
        else:
            wrong = dataclasses.replace(found, **{field: getattr(found, field) * (1 + change)})
        if field == "cross" and abs(found.cross) < 0.5 * np.sqrt(found.power * found.mse):
            continue  # far below its bound: the change is allowed
        assert violations(found, case, 1.0) == []
        assert any(said.startswith(field) for said in violations(wrong, case, 1.0)), label(case)


def test_a_changed_bias_is_noticed() -> None:
    case = next(case for case in CASES if abs(float(case["bias"])) > 1e-3)
    found = error_of(case)
    std = std_of(case)
    wrong = dataclasses.replace(found, bias=found.bias + 1e-11 * max(std, abs(found.bias)))
    assert [said.partition(":")[0] for said in violations(wrong, case, std)] == ["bias"]


def sweeps() -> list[list[dict[str, Any]]]:
    ordered = sorted(CASES, key=lambda case: json.dumps([case[key] for key in SETTING]))
    groups = [list(group) for _, group in itertools.groupby(ordered, lambda case: [case[key] for key in SETTING])]
    return [group for group in groups if len(group) > 2]


@pytest.mark.parametrize("group", sweeps(), ids=lambda group: label(group[0]))
def test_many_scales_in_one_call(group: list[dict[str, Any]]) -> None:
    together = error_of(group[0], np.array([case["scale"] for case in group]))
    for i, case in enumerate(group):
        alone = error_of(case)
        size = {"bias": np.sqrt(alone.mse), "cross": np.sqrt(alone.power * alone.mse), "mean": np.sqrt(alone.power)}
        for field in dataclasses.fields(alone):
            one, all_ = getattr(alone, field.name), np.broadcast_to(getattr(together, field.name), len(group))[i]
            # Clipping far out: its end value is rounded differently, see CLIPPING_TOLERANCE.
            tolerance = CLIPPING_TOLERANCE if field.name == "clipping" else BROADCAST_TOLERANCE
            allowed = tolerance * size.get(field.name, abs(one)) + CLIPPING_FLOOR
            assert abs(one - all_) <= allowed, (label(case), field.name)


def literal_terms(case: dict[str, Any]) -> dict[str, Any]:
    """The fields by a third route: mpmath.quad over (x - Q(x))^2 f(x) with Q(x) by search among all values."""
    part = make_errors.parts(case["density"])[0]
    scale, shift, mean, std = (mpf(v) for v in (case["scale"], case["shift"], part.mean, part.std))
    values = [shift + scale * mpf(v.numerator) / v.denominator for v in make_errors.levels(case["grid"])]
    cuts = {values[0], values[-1], mean, *((a + b) / 2 for a, b in itertools.pairwise(values))}
    reach = [mean + sign * std * mpf(y) for sign in (-1, 1) for y in (0.25, 1, 2, 4, 6, 9)]
    # Beyond the ends the pdf may fall fast.
    ends = ((values[0], -1), (values[-1], 1))
    beyond = [end + sign * std * mpf(y) for end, sign in ends for y in (0.0625, 0.25, 1, 4)]
    points = sorted({*cuts, *reach, *beyond})
    end = part.family.support
    points = (
        [-mpmath.inf, *points, mpmath.inf]
        if end == mpmath.inf
        else sorted({mean - end * std, mean + end * std, *(v for v in points if abs(v - mean) < end * std)})
    )

    totals = dict.fromkeys(("clipping", "rounding", "bias", "cross"), mpf(0))
    for a, b in itertools.pairwise(points):
        inside = a >= values[0] and b <= values[-1]
        middle = (a + b) / 2 if abs(a) != mpmath.inf and abs(b) != mpmath.inf else (b if a == -mpmath.inf else a)
        value = min(values, key=lambda v, x=middle: abs(v - x))

        def density(x: Any) -> Any:
            return part.family.pdf(abs(x - mean) / std) / std

        # quad stops at an absolute accuracy: the pdf is taken relative to its size here.
        size = density(max(a, min(b, mean)))

        def integral(factor: Any, a: Any = a, b: Any = b, size: Any = size) -> Any:
            return size * mp.quad(lambda x: factor(x) * (density(x) / size), [a, b])

        totals["rounding" if inside else "clipping"] += integral(lambda x, v=value: (x - v) ** 2)
        totals["bias"] += integral(lambda x, v=value: v - x)
        totals["cross"] += integral(lambda x, v=value: x * (v - x))
    return totals


def cheap_cases() -> list[dict[str, Any]]:
    """Those that mpmath.quad integrates without care: smooth between few cuts."""
    names = ("gaussian", "laplace", "logistic", "uniform")
    return [
        case
        for case in CASES
        if isinstance(case["density"], str)
        and case["density"].partition(":")[0] in names
        and case["rounding"] == "nearest"
        and len(make_errors.levels(case["grid"])) <= 16
        and 0.02 < case["scale"] < 4
        and abs(case["shift"]) < 3
    ]


def test_a_random_handful_from_scratch() -> None:
    """Other cases on each run; the message names them. All of them pass, as was tried once."""
    with mp.workdps(30):
        for case in secrets.SystemRandom().sample(cheap_cases(), 4):
            for name, value in literal_terms(case).items():
                expected = mpf(case[make_errors.KEYS[name]])
                size = mp.sqrt(mpf(case["power"]) * mpf(case["mse"])) if name in {"bias", "cross"} else expected
                # quad's own accuracy on a tail, far below the 1e-12 asked of the package.
                assert abs(value - expected) <= mpf("1e-16") * size, (label(case), name)
