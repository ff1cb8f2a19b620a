"""Certificates: what is proven is true, every family and rounding is covered, the checker refuses what is not so."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import qerror as qe
from qerror.cli.commands import qerror_command

flint = pytest.importorskip("flint", reason="python-flint is not installed")
mpmath = pytest.importorskip("mpmath")

from flint import arb, fmpq  # noqa: E402

from qerror.certify import (  # noqa: E402
    Certificate,
    CertifiedBlocks,
    CertifiedCodebook,
    CertifiedPair,
    OpenError,
    certify,
    certify_block_error,
    certify_codebook,
    certify_pair,
    checker,
    pieces,
    verify,
)
from qerror.certify.shipped import PACKAGED, certificates  # noqa: E402
from qerror.certify.statement import density_data  # noqa: E402
from qerror.search.densities.objective import Objective  # noqa: E402

SHARED = Path(os.environ.get("QERROR_DATA", Path(__file__).parent.parent.parent / "shared" / "data")).parent
DEVELOPMENT = SHARED / "reference" / "certified_dev.json"

# float64 sums against balls: the promise of `quantization_error`, relative, and what is left of cancelled terms.
ERROR_RTOL, ERROR_ATOL = 1e-12, 1e-15
# Relative, of Lloyd-Max levels in float64.
LEVEL_RTOL = 4e-14
# Of the 1 % at the ends of `interval_1pct`.
INTERVAL_RTOL = 1e-9

# Made by another program for proofs in ball arithmetic, which shares no code with this one (density of variance 1).
KNOWN = [
    ("gaussian", "af4", "nearest", "2.82618014690409441395689050311", "0.0107005264587865138144523898134042713"),
    ("gaussian", "e4m3fn", "nearest", "0.0203771871585866268231459065122", "0.000698749480250332636296646146416452024"),
    ("laplace", "e5m2", "nearest", "0.00102840416203921170383635093545", "0.00278019127535220089070351749043761479"),
    ("uniform", "e2m2", "nearest", "0.412624673947553541463286805789", "0.00221691564518652174857316449775292064"),
    (
        "logistic",
        "e5m2",
        "stochastic",
        "0.000404618277507871444538299751155",
        "0.00559238786855402288441273910740211582",
    ),
    ("uniform", "nf4", "stochastic", "1.52983054088331255308839544698", "0.0136310120861269749378702235635073761"),
]

FAMILIES = [
    "gaussian",
    "laplace",
    "logistic",
    "uniform",
    "student-t:df=3",
    "student-t:df=4.5",
    "generalized-gaussian:beta=0.5",
    "generalized-gaussian:beta=1.5",
]
COMPOSED = [
    "gaussian:mean=0.3,std=0.7",
    "laplace:mean=-0.4,std=2",
    "uniform:a=-1,b=2",
    "generalized-gaussian:beta=0.8,mean=0.2",
    "mixture(0.9*logistic;0.1*student-t:df=5,std=3,mean=1)",
    "rectified(gaussian:mean=0.2)",
    "rectified(mixture(1*laplace:mean=1;2*gaussian:mean=-1))",
    "histogram:counts=[1,4,3,0,1],edges=[-2,-1,0,0.5,1,3]",
]


def middle(text: str) -> float:
    return float(arb(text).mid())


@pytest.fixture(autouse=True)
def _precision() -> Any:
    with checker.arithmetic(160):
        yield


# -- the statements ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("density", "grid", "rounding", "scale", "mse"), KNOWN)
def test_known_optima(density: str, grid: str, rounding: str, scale: str, mse: str) -> None:
    """To 30 digits, and the intervals are no wider than half a unit of the last."""
    shipped_one = shipped()[grid, density, rounding]
    # Proofs of 8 bits are verified elsewhere, a tenth on each run.
    proven = certify(density, grid, rounding=rounding) if len(qe.grid(grid)) < 100 else shipped_one
    assert proven.unique
    assert proven.statement() == shipped_one.statement()
    for text, known in ((proven.scale, scale), (proven.mse, mse)):
        # Both have a unit of their last digit, known ones up to 4 units.
        digits = len(known.split("e")[0].replace(".", "").lstrip("0"))
        unit = 10.0 ** (math.floor(math.log10(float(known))) - digits + 1)
        assert arb(text).overlaps(arb(f"[{known} +/- {5 * unit:.2e}]"))
        assert not arb(text).overlaps(arb(f"[{known} +/- {5 * unit:.2e}]") * (1 + arb("1e-28")))
        assert arb(text).rel_accuracy_bits() > 95


@pytest.mark.skipif(not DEVELOPMENT.is_file(), reason="QERROR_DATA has no certified values beside it")
def test_certified_values_made_by_others() -> None:
    """All of them against the shipped certificates, which other tests verify."""
    entries = json.loads(DEVELOPMENT.read_text(encoding="utf-8"))["entries"]
    assert len(entries) == 482
    for entry in entries:
        proven = shipped()[entry["grid"], entry["density"], entry["rounding"]]
        assert proven.unique, entry
        for said, known in ((proven.scale, entry["scale"]), (proven.mse, entry["mse"])):
            assert arb(said).overlaps(arb(known)), entry
            # Both have 30 digits: wrong by one of the 27th, they would not overlap.
            assert not arb(said).overlaps(arb(known) * (1 + arb("1e-27"))), entry


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("density", [*FAMILIES, *COMPOSED])
def test_every_density_is_proven_and_verified(density: str, rounding: str) -> None:
    for grid, shift in (("e2m1", 0.0), ("uint3", -0.5), ("int2_midrise", 0.25)):
        proven = certify(density, grid, rounding=rounding, shift=shift)
        verify(json.loads(proven.to_json()))
        best = qe.optimal_scale(qe.density(density), grid, rounding=rounding, shift=shift)
        assert math.isclose(best.error.mse, middle(proven.mse), rel_tol=ERROR_RTOL)
        assert best.error.mse >= middle(proven.mse) * (1 - ERROR_RTOL)


@pytest.mark.parametrize("density", [*FAMILIES, *COMPOSED])
def test_the_error_is_that_of_the_library(density: str) -> None:
    """At random scales and shifts, and inside of Taylor models; two routes that share nothing."""
    rng = np.random.default_rng(20)
    for rounding in ("nearest", "stochastic"):
        for grid in ("int4", "e3m2", "uint3", "binary", "nf4"):
            shift, scale = float(rng.normal(0, 0.3)), float(np.exp(rng.normal(-1, 1)))
            problem = checker.Problem(density_data(density), qe.grid(grid).levels.tolist(), shift, rounding)
            low, high = (checker.exact(scale) * (1 + fmpq(sign, 50)) for sign in (-1, 1))
            model, _ = problem.model(low, high, 10)
            for x in (-1.0, 0.0, 0.7):
                at = scale * (1 + x / 50)
                error = qe.quantization_error(qe.density(density), grid, at, shift, rounding=rounding).mse
                found = model(arb(x))
                assert abs(error - float(found.mid())) <= float(found.rad()) + ERROR_RTOL * error + ERROR_ATOL


@pytest.mark.parametrize("density", [*FAMILIES, *COMPOSED])
def test_models_enclose(density: str) -> None:
    """Wide pieces, few coefficients, small scales, where all is nearly straight: holes in enclosures show there."""
    rng = np.random.default_rng(20)
    for rounding, grid, order in itertools.product(("nearest", "stochastic"), ("int4", "uint3", "binary"), (3, 5)):
        shift = float(rng.choice([0.0, rng.normal(0, 0.3)]))
        problem = checker.Problem(density_data(density), qe.grid(grid).levels.tolist(), shift, rounding)
        for per, wide in ((40, fmpq(1, 7)), (4000, fmpq(1, 3))):
            s = fmpq(int(rng.integers(1, 60)), per)
            model, _ = problem.model(s * (1 - wide), s * (1 + wide), order)
            places = [fmpq(k, 8) for k in (-8, -6, -1, 1, 5, 8)]
            values = [problem.at(s * (1 + wide * x)) for x in places]
            for x, value in zip(places, values, strict=True):
                assert model(arb(x)).contains(value.mid())
            for x, y, one, other in zip(places, places[1:], values, values[1:], strict=False):
                # Somewhere between is a slope as that of the chord.
                assert model.derivative()(arb(x).union(arb(y))).overlaps((other - one) / (y - x))


# Densities of variance 1 for u >= 0, written for mpmath.
PDFS = {
    "gaussian": lambda u: mpmath.npdf(u),
    "laplace": lambda u: mpmath.exp(-mpmath.sqrt(2) * u) / mpmath.sqrt(2),
    "logistic": lambda u: mpmath.pi / mpmath.sqrt(48) * mpmath.sech(mpmath.pi / mpmath.sqrt(12) * u) ** 2,
    "uniform": lambda u: 1 / mpmath.sqrt(12),
    "student-t:df=3": lambda u: 2 / mpmath.pi / (1 + u * u) ** 2,
    "student-t:df=4.5": lambda u: _student(u, mpmath.mpf(4.5)),
    "generalized-gaussian:beta=0.5": lambda u: _exponential_power(u, mpmath.mpf(0.5)),
    "generalized-gaussian:beta=1.5": lambda u: _exponential_power(u, mpmath.mpf(1.5)),
}


def _student(u: Any, df: Any) -> Any:
    return (1 + u * u / (df - 2)) ** (-(df + 1) / 2) / mpmath.sqrt(df - 2) / mpmath.beta(0.5, df / 2)


def _exponential_power(u: Any, beta: Any) -> Any:
    alpha = mpmath.sqrt(mpmath.gamma(1 / beta) / mpmath.gamma(3 / beta))
    return beta / (2 * alpha * mpmath.gamma(1 / beta)) * mpmath.exp(-((u / alpha) ** beta))


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str) -> None:
    """P(T > u), E[(T - u)_+], E[(T - u)_+^2] and the Taylor series of the pdf; quadrature of mpmath over y = log(x)."""
    said, pdf = density_data(name), PDFS[name]
    family = checker.FAMILIES[said["family"]](**{key: said[key] for key in said if key in ("df", "beta")})
    with mpmath.workdps(22):
        for u in (mpmath.mpf("0.4"), mpmath.mpf("1.3")):
            at = arb(mpmath.nstr(u, 30))
            mass, over, square = family.over(at, 3)
            end = mpmath.log(mpmath.sqrt(3)) if name == "uniform" else mpmath.mpf(60)
            points = mpmath.linspace(mpmath.log(u), end, 16)
            for found, weigh in (
                (mass, lambda x: 1),
                (over, lambda x, u=u: x - u),
                (square, lambda x, u=u: (x - u) ** 2),
            ):
                expected = mpmath.quad(lambda y, w=weigh: w(mpmath.exp(y)) * pdf(mpmath.exp(y)) * mpmath.exp(y), points)
                assert abs(mpmath.mpf(found.str(25, radius=False)) / expected - 1) < 1e-18
            series = family.expand(at, arb("1e-3"), 5)
            assert len(series) == (1 if name == "uniform" else 5)
            for i, coefficient in enumerate(mpmath.taylor(pdf, u, 3)[: len(series)]):
                assert abs(mpmath.mpf(series[i].str(25, radius=False)) * 10 ** (3 * i) - coefficient) < 1e-12


def test_a_minimum_at_a_point_mass() -> None:
    """Stochastic rounding: where 0 lies on a level, -0.5 + s, the error has an edge, the minimum: s = 1 / 2."""
    proven = certify("rectified(gaussian:mean=0.2)", "uint3", shift=-0.5, rounding="stochastic")
    assert proven.unique
    assert arb(proven.scale).contains(arb(0.5))
    beside = [
        qe.quantization_error(qe.density("rectified(gaussian:mean=0.2)"), "uint3", s, -0.5, rounding="stochastic").mse
        for s in (0.5 * (1 - 1e-6), 0.5, 0.5 * (1 + 1e-6))
    ]
    assert beside[1] < min(beside[0], beside[2]) - 1e-8
    assert math.isclose(beside[1], middle(proven.mse), rel_tol=ERROR_RTOL)
    thirds = certify("rectified(laplace:mean=1)", "int2_midrise", shift=-0.25, rounding="stochastic")
    verify(json.loads(thirds.to_json()))


@pytest.mark.parametrize(("bins", "grid", "rounding"), [(100, "e2m1", "nearest"), (37, "int4", "stochastic")])
def test_histograms_of_many_bins(bins: int, grid: str, rounding: str) -> None:
    rng = np.random.default_rng(20)
    counts, edges = np.histogram(rng.standard_t(5, 2000), bins)
    density = qe.Histogram(counts, edges)
    proven = certify(density, grid, rounding=rounding)
    verify(json.loads(proven.to_json()))
    best = qe.optimal_scale(density, grid, rounding=rounding, certify=True)
    assert math.isclose(best.error.mse, middle(proven.mse), rel_tol=ERROR_RTOL)


def test_many_digits() -> None:
    proven = certify("laplace", "int3", digits=300)
    verify(proven.content)
    # Laplace on the binary grid: the scale is E|x| = 1 / sqrt(2), the error 1 - 1 / 2.
    binary = certify("laplace", "binary", digits=100)
    assert arb(binary.scale).contains(1 / arb(2).sqrt()) or arb(binary.scale).overlaps(1 / arb(2).sqrt())
    assert arb(binary.mse).contains(Fraction(1, 2).numerator / arb(2))
    assert len(proven.scale) > 300


# -- what cannot be proven -----------------------------------------------------------------------------------------


def test_no_least_error_is_said() -> None:
    """Values below 0 and levels above: the best scale is none at all."""
    with pytest.raises(OpenError, match="falls on and on towards the scale"):
        certify("uniform:a=-2,b=-1", "uint4")


def test_what_is_left_open_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for 16 bits, where a piece takes seconds: which scales, after how much, and the best error that was seen."""
    monkeypatch.setattr(pieces, "_MOST_TERMS", 3000)
    with pytest.raises(
        OpenError, match=r"scales from [\d.]+ to [\d.]+ are left open: given up after \d+ pieces of 126"
    ) as e:
        certify("gaussian", "e4m3fn")
    least = float(str(e.value).rpartition(" ")[2])
    assert least >= middle(shipped()["e4m3fn", "gaussian", "nearest"].mse) * (1 - 1e-9)


def test_roots_at_short_decimals() -> None:
    """Two spikes at -4 and 4: each scale 4 / k is a minimum, where no piece can end."""
    density = "mixture(1*gaussian:mean=-4,std=0.1;1*gaussian:mean=4,std=0.1)"
    proven = certify(density, "int4")
    verify(proven.content)
    assert math.isclose(qe.optimal_scale(qe.density(density), "int4").error.mse, middle(proven.mse), rel_tol=ERROR_RTOL)


@pytest.mark.parametrize(
    ("density", "words"),
    [
        (qe.from_pdf(lambda x: np.exp(-np.abs(x)) / 2, (-np.inf, np.inf)), "density must be made of Gaussian"),
        (qe.Gaussian(std=[1.0, 2.0]), r"density must have shape \(\), got \(2,\)"),
        ("gausian", "did you mean 'gaussian'"),
    ],
)
def test_densities_without_proof(density: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        certify(density, "int4")


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="rounding must be 'nearest' or 'stochastic', got 'up'"):
        certify("gaussian", "int4", rounding="up")
    with pytest.raises(ValueError, match="digits must be an integer from 6 to 1000, got 3"):
        certify("gaussian", "int4", digits=3)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("edges", [-2, -1, 0, -0.5, 1, 3], "edges must ascend"),
        ("edges", [-2, -1, 0, 0, 1, 3], "edges must ascend"),
        ("counts", [1, 4, 3, -1, 1], "no count may be below 0"),
        ("counts", [0, 0, 0, 0, 0], "nor all be 0"),
        ("counts", [1, 4, 3, 0], "zip"),
    ],
)
def test_no_density_no_proof(field: str, value: list[float], words: str) -> None:
    """A bin of no count between edges that fall would be seen by nothing else."""
    histogram = density_data("histogram:counts=[1,4,3,0,1],edges=[-2,-1,0,0.5,1,3]")
    checker.Problem(histogram, [0, 1], 0, "nearest")
    with pytest.raises((ValueError, ZeroDivisionError), match=words):
        checker.Problem({**histogram, field: value}, [0, 1], 0, "nearest")


# -- the checker ---------------------------------------------------------------------------------------------------


def test_files(tmp_path: Path) -> None:
    """Saved, loaded, and verified by the checker alone, in a Python that finds no qerror."""
    proven = certify("student-t:df=5", "e2m1", rounding="stochastic")
    proven.save(tmp_path / "proof.json")
    assert Certificate.load(tmp_path / "proof.json") == proven
    wrong = json.loads(proven.to_json()) | {"unique": False}
    (tmp_path / "wrong.json").write_text(json.dumps(wrong), encoding="utf-8")
    command = [sys.executable, "-I", checker.__file__, "proof.json", "wrong.json"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    first, second = ran.stdout.splitlines()
    assert first.startswith("proof.json: proven: 15 levels")
    assert second == "wrong.json: NOT PROVEN: unique must be True"
    assert ran.returncode == 1
    with pytest.raises(ValueError, match="is no certificate"):
        Certificate.load(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("density", "grid", "limit"), [("gaussian", "int4", 600), ("gaussian", "int8", 3000), ("laplace", "e5m2", 16000)]
)
def test_certificates_are_small(density: str, grid: str, limit: int) -> None:
    assert len(certificates()[grid, density, "nearest"].to_json()) < limit


def moved(number: str, by: float) -> str:
    """A decimal of the same form, relatively moved."""
    digits, _, power = number.partition("e")
    return f"{round(Fraction(digits) * (1 + Fraction(by)))}e{power}"


def changed(content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**copy.deepcopy(content), **fields}


def wrong_roots(content: dict[str, Any]) -> Any:
    roots = content["roots"]
    for i, root in enumerate(roots):
        for by in (1e-12, -1e-12, 1e-30, 0.01, -0.5):
            yield f"root {by}", changed(content, roots=[*roots[:i], moved(root, by), *roots[i + 1 :]])
        yield "root dropped", changed(content, roots=roots[:i] + roots[i + 1 :])
        yield "root twice", changed(content, roots=[*roots, root])
        finer = root.replace("e-", "0e-")
        yield "a root ten times larger", changed(content, roots=[*roots[:i], finer, *roots[i + 1 :]])


def wrong_kinds(content: dict[str, Any]) -> Any:
    kinds = content["kinds"]
    for i, kind in enumerate(kinds):
        # A piece that is excluded by its values may be by its slope, too: that is no hole.
        others = "sxmvzpq" if i in (0, len(kinds) - 1) else "xmszpq" if kind == "v" else "szpq"
        for other in set(others) - {kind}:
            yield f"{kind} -> {other}", changed(content, kinds=kinds[:i] + other + kinds[i + 1 :])
        yield f"{kind} dropped", changed(content, kinds=kinds[:i] + kinds[i + 1 :])


def wrong_cuts(content: dict[str, Any]) -> Any:
    cuts, kinds = content["cuts"].split(), content["kinds"]
    for i, cut in enumerate(cuts):
        yield "cut dropped", changed(content, cuts=" ".join(cuts[:i] + cuts[i + 1 :]))
        yield "cut negative", changed(content, cuts=" ".join([*cuts[:i], f"-{cut}", *cuts[i + 1 :]]))
        if i:
            yield "cuts swapped", changed(content, cuts=" ".join([*cuts[: i - 1], cut, cuts[i - 1], *cuts[i + 1 :]]))
        if kinds[i] == "v":
            # What is beside it would have to hold its root.
            rest = " ".join(cuts[: i - 1] + cuts[i:])
            yield "v dropped", changed(content, cuts=rest, kinds=kinds[:i] + kinds[i + 1 :])
    yield "no first piece", changed(content, cuts=" ".join(cuts[1:]), kinds=kinds[1:])
    yield "no last piece", changed(content, cuts=" ".join(cuts[:-1]), kinds=kinds[:-1])
    edge = next((i for i, cut in enumerate(cuts) if arb(content["scale"]).contains(checker.ball(cut))), None)
    if edge is not None:
        beside = str(Fraction(cuts[edge]) * (1 + Fraction(1, 10**12)))
        yield "edge moved", changed(content, cuts=" ".join([*cuts[:edge], beside, *cuts[edge + 1 :]]))
    first, last = (kinds.index("v"), kinds.rindex("v")) if edge is None else (edge + 1, edge)
    yield "first piece too long", changed(content, cuts=" ".join(cuts[first - 1 :]), kinds="s" + kinds[first:])
    yield "last piece too long", changed(content, cuts=" ".join(cuts[: last + 1]), kinds=kinds[: last + 1] + kinds[-1])


def other_numbers(data: Any) -> Any:
    """A density with one of its numbers changed, or none."""
    if isinstance(data, int | float):
        yield from (data + 1e-9, "x")
    elif isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            for other in other_numbers(value):
                one: Any = copy.deepcopy(data)
                one[key] = other
                yield one


def other_problems(content: dict[str, Any]) -> Any:
    levels, density = content["levels"], content["density"]
    for i, level in enumerate(levels):
        for by in (1e-9, -1e-6):
            yield f"level {by}", changed(content, levels=[*levels[:i], level + by, *levels[i + 1 :]])
        yield "level dropped", changed(content, levels=levels[:i] + levels[i + 1 :])
    yield "levels reversed", changed(content, levels=levels[::-1])
    yield "level more", changed(content, levels=[*levels, levels[-1] + 1])
    for other in other_numbers(density):
        yield f"density {other}", changed(content, density=other)
    for family in checker.FAMILIES.keys() - {density["family"]}:
        shape = {"student-t": {"df": 3}, "generalized-gaussian": {"beta": 1}}.get(family, {})
        yield family, changed(content, density={"family": family, "mean": 0, "std": 1, **shape})
    yield "shift", changed(content, shift=1e-12)
    yield "rounding", changed(content, rounding="nearest" if content["rounding"] == "stochastic" else "stochastic")


def other_claims(content: dict[str, Any], rng: random.Random) -> Any:
    for key in ("scale", "mse"):
        text = content[key]
        for _ in range(20):
            place = rng.choice([i for i in range(text.index(" ")) if text[i].isdigit()])
            digit = str((int(text[place]) + rng.randint(1, 9)) % 10)
            yield f"digit of {key}", changed(content, **{key: text[:place] + digit + text[place + 1 :]})
        yield f"wide {key}", changed(content, **{key: text.replace("+/- 5.1e", "+/- 99e")})
        yield f"narrow {key}", changed(content, **{key: text.replace("5.1e-", "1e-1")})
    yield "unique", changed(content, unique=not content["unique"])
    yield "minimum more", changed(content, minima=[[content["scale"], content["mse"]]])
    for fields in ({"digits": 31}, {"bits": 16}, {"order": 2}, {"schema": 2}, {"format": "x"}, {"more": 0}):
        yield f"{fields}", changed(content, **fields)
    for key in content:
        yield f"without {key}", {k: v for k, v in content.items() if k != key}


@pytest.mark.parametrize(
    ("density", "grid", "rounding"),
    [
        ("gaussian", "e3m0", "nearest"),
        ("logistic", "int3", "stochastic"),
        ("generalized-gaussian:beta=0.5", "e2m1", "nearest"),
        ("histogram:counts=[1,4,3,0,1],edges=[-2,-1,0,0.5,1,3]", "int3", "stochastic"),
        ("rectified(gaussian:mean=0.2)", "uint3", "stochastic"),
    ],
)
def test_mutations_are_refused(density: str, grid: str, rounding: str) -> None:
    """More than 150 a certificate; the exception is the checker's own or that of malformed JSON."""
    # The minimum of the last one lies where 0 meets a level: an edge, no root.
    content = certify(density, grid, rounding=rounding, shift=-0.45 * density.startswith("rectified")).content
    verify(content)
    survived, tried = [], 0
    for what, mutant in itertools.chain(
        wrong_roots(content),
        wrong_kinds(content),
        wrong_cuts(content),
        other_problems(content),
        other_claims(content, random.Random(20)),
    ):
        tried += 1
        try:
            verify(mutant)
        except (ValueError, KeyError, TypeError):
            continue
        survived.append(what)
    assert survived == []
    assert tried > 150


def wrong_balls(text: str, rng: random.Random) -> Any:
    """Another digit; a ball too wide, too narrow, or of no number."""
    if text.startswith("[+/-"):
        yield from ("[+/- 1e-9]", "[1e-9 +/- 1e-30]", "[nan]")
        return
    for place in rng.sample([i for i in range(text.index(" ")) if text[i].isdigit()], 5):
        yield f"{text[:place]}{(int(text[place]) + rng.randint(1, 9)) % 10}{text[place + 1 :]}"
    yield from (text.replace("5.1e", "99e"), text.replace("5.1e-", "1e-1"), "[nan]", "[+/- inf]")


def wrong_cells(key: str, cell: Any, rng: random.Random) -> Any:
    """What one number, text or truth may be instead, and is not."""
    if isinstance(cell, bool):
        return [not cell]
    if isinstance(cell, str) and cell.startswith("["):
        return wrong_balls(cell, rng)
    if key in ("scales", "bounds"):
        return [str(Fraction(cell) * (1 + Fraction(1, 10**9))), "x"]
    return [cell + (1e-9 if key == "levels" else 1), "x", None] if isinstance(cell, int | float) else ["x"]


def wrong_fields(key: str, value: Any, rng: random.Random) -> Any:
    """A field with one of its cells wrong, or one of its rows dropped."""
    if not isinstance(value, list):
        yield from wrong_cells(key, value, rng)
        return
    for i, row in enumerate(value):
        yield value[:i] + value[i + 1 :]
        others = wrong_fields(key, row, rng) if isinstance(row, list) else wrong_cells(key, row, rng)
        for other in others:
            yield [*value[:i], other, *value[i + 1 :]]


def other_values(content: dict[str, Any], rng: random.Random) -> Any:
    """Each field wrong in many ways, or dropped; other densities and formats."""
    density = content["density"]
    for key, value in content.items():
        yield f"without {key}", {k: v for k, v in content.items() if k != key}
        if key != "density":
            for other in wrong_fields(key, value, rng):
                yield f"{key}: {other}", changed(content, **{key: other})
    for key in density.keys() - {"family"}:
        yield f"other {key}", changed(content, density={**density, key: density[key] + 1e-9})
    for family in checker.FAMILIES.keys() - {density["family"]}:
        shape = {"student-t": {"df": 3}, "generalized-gaussian": {"beta": 1.5}}.get(family, {})
        yield family, changed(content, density={"family": family, "mean": 0, "std": 1, **shape})
    yield "rectified", changed(content, density={"family": "rectified", "of": density})
    yield "more", changed(content, more=0)
    for form in checker.STATEMENTS.keys() - {content["format"]}:
        yield form, changed(content, format=form)


BLOCKS = qe.BlockFormat("int3_midrise", 4, qe.Grid([0.25, 0.5, 0.75, 1.25]))


@pytest.mark.parametrize(
    "prove",
    [
        lambda: certify_codebook("gaussian", 5),
        lambda: certify_codebook("student-t:df=5,mean=1,std=2", 4),
        lambda: certify_pair("laplace", "int2", digits=12),
        lambda: certify_pair("gaussian", "ternary"),
        lambda: certify_block_error("logistic:mean=0.25", BLOCKS),
    ],
    ids=["codebook", "codebook off centre", "two pairs", "pair", "blocks"],
)
def test_mutations_of_other_certificates_are_refused(prove: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "MOST_BOXES", 2000)
    content = json.loads(prove().to_json())
    verify(content)
    survived, tried = [], 0
    for what, mutant in other_values(content, random.Random(20)):
        tried += 1
        try:
            verify(mutant)
        except (ValueError, KeyError, TypeError, IndexError, ZeroDivisionError):
            continue
        survived.append(what)
    assert survived == []
    assert tried > 50


def test_files_of_every_kind(tmp_path: Path) -> None:
    """Read as what they are, and verified by the checker alone, in a Python that finds no qerror."""
    proofs = {
        Certificate: certify("gaussian", "int3"),
        CertifiedCodebook: certify_codebook("gaussian", 4),
        CertifiedPair: certify_pair("gaussian", "int2", digits=10),
        CertifiedBlocks: certify_block_error("gaussian", BLOCKS),
    }
    for kind, proven in proofs.items():
        proven.save(tmp_path / f"{kind.__name__}.json")
        assert Certificate.load(tmp_path / f"{kind.__name__}.json") == proven
        assert type(Certificate.load(tmp_path / f"{kind.__name__}.json")) is kind
        assert proven.mse in repr(proven)
    command = [sys.executable, "-S", checker.__file__, *sorted(path.name for path in tmp_path.iterdir())]
    environment = {**os.environ, "PYTHONPATH": str(Path(flint.__file__).parent.parent)}
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert [line.split(": ")[:2] for line in ran.stdout.splitlines()] == [
        [f"{name}.json", "proven"] for name in sorted(kind.__name__ for kind in proofs)
    ], ran.stderr


# -- the shipped table ---------------------------------------------------------------------------------------------

# Digits of the table's scales where the minimum stands alone; on flat minima (generalized Gaussians of shape 0.5 in
# floating formats of 8 bits) float64 has no more.
SCALE_DIGITS = 6
# 254 octaves of positive levels: each takes 5 to 30 seconds.
LONG = ("e8m0",)
PARTS = 40


def shipped() -> dict[tuple[str, str, str], Certificate]:
    return certificates()


def check_row(key: tuple[str, str, str], proven: Certificate) -> None:
    """The certificate is about what the key names, and it holds."""
    grid, density, rounding = key
    content = proven.content
    assert content["levels"] == qe.grid(grid).levels.tolist()
    assert content["density"] == density_data(density)
    assert (content["shift"], content["rounding"], content["digits"]) == (0, rounding, 30)
    verify(content)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_a_fresh_tenth_of_the_shipped_certificates(part: int) -> None:
    """A tenth of each quarter, so that two cores share the work."""
    rows = [(key, proven) for key, proven in shipped().items() if key[0] not in LONG][part::4]
    for key, proven in random.sample(rows, round(len(rows) / 10)):
        check_row(key, proven)


@pytest.mark.nightly
@pytest.mark.parametrize("part", range(PARTS))
def test_all_shipped_certificates(part: int) -> None:
    """`make certify`."""
    for key, proven in list(shipped().items())[part::PARTS]:
        check_row(key, proven)


def test_every_row_is_certified() -> None:
    table = qe.load_table()
    assert [*shipped()] == [(row.grid, row.density, row.rounding) for row in table.rows]
    assert len(table.rows) == 990
    assert PACKAGED.stat().st_size < 1_000_000
    rows = [table.certified(*key[:2], rounding=key[2]) for key in shipped()]
    # Powers of two over 254 octaves: copies that 200 bits cannot tell apart.
    assert {row.row.grid for row in rows if not row.unique} <= {"e8m0"}
    assert min(row.mse_digits for row in rows) >= 12
    # Where float64 sees copies an octave apart as one, the scale of the row may be that of any of them.
    for row in rows:
        assert row.scale_digits >= (0 if row.copies else SCALE_DIGITS), row


# -- samples and codebooks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("grid", ["int2", "e2m1", "nf4", "int3_midrise", "uint4"])
def test_samples_are_proven_in_fractions(grid: str, rounding: str) -> None:
    rng = np.random.default_rng(20)
    for size in (2, 9, 40):
        values = np.abs(rng.standard_t(3, size)).astype(np.float32)
        sample = qe.Empirical(values, weights=rng.integers(1, 4, size))
        proven = certify(sample, grid, shift=0.125, rounding=rounding)
        verify(json.loads(proven.to_json()))
        best = qe.optimal_scale(sample, grid, shift=0.125, rounding=rounding)
        assert math.isclose(best.error.mse, Fraction(proven.mse), rel_tol=1e-12, abs_tol=1e-18)
        scales = np.geomspace(0.02, 50, 2001) * float(Fraction(proven.scale))
        errors = qe.quantization_error(sample, grid, scales, 0.125, rounding=rounding).mse
        assert np.min(errors) >= float(Fraction(proven.mse)) * (1 - 1e-12)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_samples_by_hand(rounding: str) -> None:
    """One value on levels 0 and 1: it is one of them at s = 1 alone. On 1 and 2, s = 1 / 2 is as good."""
    one = certify(qe.Empirical([1.0]), qe.Grid([0, 1]), rounding=rounding)
    assert (one.scale, one.mse, one.unique) == ("1", "0", True)
    two = certify(qe.Empirical([1.0]), qe.Grid([0, 1, 2]), rounding=rounding)
    assert (two.scale in ("1", "1/2"), two.mse, two.unique) == (True, "0", False)
    with pytest.raises(OpenError, match="no scale is better than all others"):
        certify(qe.Empirical([-1.0]), qe.Grid([0, 1]), rounding=rounding)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_wrong_proofs_of_samples_are_refused(rounding: str) -> None:
    content = certify(qe.Empirical([-1.0, 0.25, 0.75, 2.0, 3.5]), "int3", rounding=rounding).content
    verify(content)
    cuts, scale = content["cuts"].split(), Fraction(content["scale"])
    mutants = [changed(content, cuts=" ".join(cuts[:i] + cuts[i + 1 :])) for i in (0, len(cuts) // 2, len(cuts) - 1)]
    mutants += [changed(content, cuts=" ".join(cuts[::-1])), changed(content, cuts=f"{cuts[0]} {cuts[-1]}")]
    mutants += [changed(content, scale=str(scale * (1 + Fraction(1, 10**12)))), changed(content, unique=False)]
    mutants += [changed(content, mse=str(Fraction(content["mse"]) * f)) for f in (2, 1 - Fraction(1, 10**15))]
    other = "nearest" if rounding == "stochastic" else "stochastic"
    mutants += [changed(content, shift=1e-9), changed(content, rounding=other), changed(content, kinds="x")]
    for place in range(5):
        values = list(content["density"]["values"])
        values[place] += 1e-9
        mutants.append(changed(content, density={**content["density"], "values": values}))
    mutants += [changed(content, levels=[*content["levels"][:-1], 2.999])]
    for mutant in mutants:
        with pytest.raises(ValueError):  # noqa: PT011
            verify(mutant)


# Max (1960) and Paez and Glisson (1972), as `tests/reference/known_answers.py` has them, and closed forms.
@pytest.mark.parametrize(
    ("density", "count", "levels", "mse"),
    [
        ("gaussian", 8, ("0.2450941789", "0.7560052812", "1.3439092785", "2.1519457045"), "0.0345477607885"),
        ("laplace", 2, ("0.70710678118654752440084436210484903928",), "0.5"),
        ("uniform", 3, ("0", "1.154700538379251529018297561003914911295"), "0.1111111111111111111111111"),
    ],
)
def test_known_codebooks(density: str, count: int, levels: tuple[str, ...], mse: str) -> None:
    proven = certify_codebook(density, count)
    assert proven.optimal
    assert len(proven.levels) == count
    for found, known in zip((*proven.levels[-len(levels) :], proven.mse), (*levels, mse), strict=True):
        assert abs(arb(found) - arb(known)) < arb(10) ** -min(28, len(known) - 2)


@pytest.mark.parametrize("density", FAMILIES)
@pytest.mark.parametrize("count", [2, 5, 16, 64])
def test_codebooks_of_float64_are_right_to_their_last_digits(density: str, count: int) -> None:
    """Laplace with an even number of levels, too, where the whole problem is singular and its half is not."""
    proven = certify_codebook(density, count)
    levels = np.array([middle(level) for level in proven.levels])
    assert proven.optimal == (not density.startswith("student") and "beta=0.5" not in density)
    found = qe.lloyd_max(qe.density(density), count).levels
    if density.endswith("beta=0.5") and count % 2 == 0:
        # A cusp this sharp takes a level of its own: the symmetric codebook is stationary, and beaten.
        assert qe.quantization_error(qe.density(density), qe.Grid(found), 1.0).mse < middle(proven.mse)
        return
    np.testing.assert_allclose(found, levels, rtol=LEVEL_RTOL, atol=1e-15)
    np.testing.assert_array_equal(found, -found[::-1])
    mse = qe.quantization_error(qe.density(density), qe.Grid(levels), 1.0).mse
    assert math.isclose(mse, middle(proven.mse), rel_tol=ERROR_RTOL)


def test_codebooks_of_other_densities_are_refused() -> None:
    with pytest.raises(ValueError, match="density must be one of the symmetric families"):
        certify_codebook("rectified(gaussian)", 4)


# -- float64 held against it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [*FAMILIES, "generalized-gaussian:beta=2.5", "mixture(3*laplace;1*gaussian:std=5)"])
def test_the_slack_of_float64_proofs_covers_their_sums(density: str) -> None:
    """B and C of the search, at random scales, against balls: within `Objective.noise`, which proofs allow for."""
    rng, member = np.random.default_rng(20), qe.density(density)
    for name, shift in (("int2", 0.0), ("e2m1", 0.0), ("nf4", 0.7), ("e3m2", 0.0), ("int8", 0.0)):
        grid = qe.grid(name)
        objective = Objective(member, grid, np.array([shift]), "nearest", "exact")
        scales = np.exp(rng.uniform(-1.2, 1.8, 12)) / grid.absmax * float(member.std)
        b, c = objective._sums(np.zeros(scales.size, np.intp), scales)
        problem = checker.Problem(density_data(member), grid.levels.tolist(), shift, "nearest")
        for s, found in zip(scales.tolist(), objective.power - 2 * scales * b + scales**2 * c, strict=True):
            mse = problem.at(s)
            # The last sum rounds three times more, by an ulp of its largest term.
            rounded = 4 * np.finfo(float).eps * float(objective.power[0])
            assert abs(float((checker.ball(float(found)) - mse).mid())) <= objective.noise[0] + rounded


def held(problem: checker.Problem, best: qe.ScaleResult, proven: Certificate) -> None:
    """The answer of the search, against the proof: error, scale, interval."""
    least = arb(proven.mse)
    assert abs(arb(best.error.mse) / least - 1) < 1e-12
    at = problem.at(best.scale)
    assert at / least - 1 < 1e-12
    for end in best.interval_1pct:
        if 0 < end < math.inf:
            there = problem.at(float(end))
            assert abs(there / least - arb("1.01")) < INTERVAL_RTOL


def random_pair(rng: random.Random) -> tuple[str, str, str, float]:
    """A density, a grid of up to 8 bits, a rounding and a shift that no table has."""
    shape = rng.choice(["gaussian", "laplace", "logistic", "student-t:df=", "generalized-gaussian:beta="])
    if shape.endswith("="):
        shape += repr(round(rng.uniform(2.5, 12) if "df" in shape else rng.uniform(0.4, 5), 3))
    grid = rng.choice([name for bits in (*range(2, 7), 8) for name in qe.formats(bits) if name not in LONG])
    shift = rng.choice([0.0, 0.0, round(rng.uniform(-1, 1), 3)])
    return shape, grid, rng.choice(["nearest", "stochastic"]), shift


def test_answers_of_float64_at_random() -> None:
    """Four rows of the table and five other pairs, the last with a cusp that misled a scan; nightly: all, and 500."""
    rng = random.Random(20)
    rows = [key for key in shipped() if key[0] not in LONG]
    pairs = [(key[1], key[0], key[2], 0.0) for key in rng.sample(rows, 4)] + [random_pair(rng) for _ in range(4)]
    for pair in [*pairs, ("laplace", "e4m3_ieee", "nearest", 0.8)]:
        compare(*pair)


@pytest.mark.nightly
@pytest.mark.parametrize("part", range(PARTS))
def test_all_answers_of_float64(part: int) -> None:
    """Scale, error and interval of every row of the table and of 500 random pairs."""
    rows = [(key[1], key[0], key[2], 0.0) for key in shipped()]
    rng = random.Random(20)
    for pair in [*rows, *(random_pair(rng) for _ in range(500))][part::PARTS]:
        compare(*pair)


def compare(density: str, grid: str, rounding: str, shift: float) -> None:
    known = shipped().get((grid, density, rounding)) if shift == 0 else None
    proven = known or certify(density, grid, rounding=rounding, shift=shift)
    best = qe.optimal_scale(qe.density(density), grid, rounding=rounding, shift=shift)
    problem = checker.Problem(density_data(density), qe.grid(grid).levels.tolist(), shift, rounding)
    held(problem, best, proven)
    if len(proven.minima) == 1:
        off = abs(arb(best.scale) / arb(proven.scale) - 1)
        assert off < 10.0**-SCALE_DIGITS, (density, grid, rounding, shift)


# -- scale and shift -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("density", "grid"),
    [
        ("gaussian", "int4"),
        ("laplace", "int3"),
        ("laplace:mean=2,std=3", "int2"),
        ("logistic", "uint2"),
        ("student-t:df=5", "int3"),
        pytest.param("gaussian", "e1m2", marks=pytest.mark.nightly),
        ("uniform:a=-1,b=3", "int3"),
    ],
)
def test_scale_and_shift_together(density: str, grid: str) -> None:
    proven = certify_pair(density, grid)
    best = qe.optimal_scale(qe.density(density), grid, shift="optimal")
    assert math.isclose(best.error.mse, middle(proven.mse), rel_tol=ERROR_RTOL)
    # A uniform grid that is best beside the middle of a Laplace density is so on either side.
    assert len(proven.optima) == (2 if density.startswith("laplace") else 1)
    near = [(s, z) for s, z in proven.optima if abs(middle(z) - best.shift) < 1e-6 * best.scale]
    assert len(near) == 1
    assert math.isclose(middle(near[0][0]), best.scale, rel_tol=1e-8)
    for scale, shift in proven.optima:
        there = qe.quantization_error(qe.density(density), grid, middle(scale), middle(shift)).mse
        assert math.isclose(there, middle(proven.mse), rel_tol=ERROR_RTOL)


def test_max_1960_with_a_free_shift() -> None:
    """Two's complement, shifted by half a step, is the symmetric quantizer: published step 0.5860, MSE 0.03744."""
    proven, symmetric = certify_pair("gaussian", "int3"), certify("gaussian", "int3_midrise")
    assert proven.optima[0][0] == symmetric.scale
    assert proven.mse == symmetric.mse
    assert (2 * arb(proven.optima[0][1])).overlaps(arb(proven.optima[0][0]))


@pytest.mark.parametrize("s", [0.05, 0.2, 0.7, 1.5, 4.0, 30.0])
def test_bounds_for_small_and_large_scales(s: float) -> None:
    """Below every error at that scale, whatever the shift; and not for nothing."""

    def cover(said: Any, name: str) -> checker.Cover:
        levels = checker.exact_levels(qe.grid(name).levels.tolist())
        return checker.Cover(checker.standard(said)[0].family, levels, arb(0), [])

    for name in ("gaussian", "laplace", "student-t:df=5", "uniform"):
        said = density_data(name)
        for grid in ("int2", "e2m1", "int4"):
            bounds = cover(said, grid)
            shifts = np.linspace(-10, 10, 201) * s
            least = np.min(qe.quantization_error(qe.density(name), grid, s, shifts).mse)
            assert float(bounds.small(s).mid()) <= least
            assert float(bounds.large(s).mid()) <= least
        assert float(cover(said, "int2").large(30.0).mid()) > 0.35
        assert float(cover(said, "int2").small(0.01).mid()) > 0.9


@pytest.mark.parametrize("density", ["gaussian", "laplace", "student-t:df=5"])
def test_derivatives_along_scale_and_shift(density: str) -> None:
    """Against differences of the library's errors; the second over a box, which holds those at its corners."""
    family = checker.standard(density_data(density))[0].family
    values = checker.scale_and_shift(family, checker.exact_levels(qe.grid("e2m1").levels.tolist()))
    s, z, h = 0.6, 0.21, 1e-4

    def error(ds: float, dz: float) -> float:
        return float(qe.quantization_error(qe.density(density), "e2m1", s + ds, z + dz).mse)

    jet = values.jet([arb(s), arb(z)], [arb(0.002), arb(0.002)])
    assert abs(float(jet.value.mid()) - error(0, 0)) < ERROR_RTOL
    slopes = (error(h, 0) - error(-h, 0)) / (2 * h), (error(0, h) - error(0, -h)) / (2 * h)
    for found, slope in zip(jet.slope, slopes, strict=True):
        assert abs(float(found.mid()) - slope) < 1e-6
    mixed = (error(h, h) - error(h, -h) - error(-h, h) + error(-h, -h)) / (4 * h * h)
    assert jet.curve[0, 1].overlaps(arb(mixed, 1e-4))
    assert jet.curve[0, 0].overlaps(arb((error(h, 0) - 2 * error(0, 0) + error(-h, 0)) / h**2, 1e-4))
    assert jet.curve[1, 1].overlaps(arb((error(0, h) - 2 * error(0, 0) + error(0, -h)) / h**2, 1e-4))
    assert float(jet.curve[0, 0].rad()) < 0.25


def test_pairs_of_other_densities_are_refused() -> None:
    with pytest.raises(ValueError, match="density must be one of the symmetric families"):
        certify_pair("rectified(gaussian)", "int3")


# -- blocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("density", "form", "scale"),
    [
        ("gaussian", "mxfp4", 1.0),
        ("laplace", "nvfp4", 0.01),
        pytest.param("student-t:df=5", "int4_g32_e4m3fn", 0.02, marks=pytest.mark.nightly),
        ("mixture(9*logistic;1*gaussian:std=4,mean=0.5)", "e2m1_g8_e4m3fn", 0.03),
        ("uniform:a=-1,b=2", qe.BlockFormat("int3_midrise", 4, "e4m3fn", rule="up", constant=0.9), 0.01),
    ],
)
def test_expected_errors_of_blocks(density: str, form: Any, scale: float) -> None:
    """Against the errors of the library, which integrate a density of scaled values instead."""
    proven = certify_block_error(density, form, scale)
    error = qe.quantization_error(qe.density(density), form, scale).mse
    assert math.isclose(float(error), middle(proven.mse), rel_tol=ERROR_RTOL)
    assert arb(proven.mse).rel_accuracy_bits() > 95
    verify(json.loads(proven.to_json()))


def test_blocks_of_one_value() -> None:
    """Each value is the largest of its block: with scales 1 and 2 on levels -1, 0, 1, thresholds of M at 1.5 alone."""
    form = qe.BlockFormat(qe.Grid([-1, 0, 1]), 1, qe.Grid([1, 2]))
    x = mpmath.mpf
    with mpmath.workdps(40):
        near = [
            mpmath.quad(lambda t, q=q: (t - q) ** 2 / 6, [a, b]) for q, a, b in ((0, 0, x("0.5")), (1, x("0.5"), 1.5))
        ]
        far = [mpmath.quad(lambda t, q=q: (t - q) ** 2 / 6, [a, b]) for q, a, b in ((2, 1.5, 3),)]
        expected = mpmath.nstr(2 * (sum(near) + sum(far)), 35)
    assert arb(certify_block_error("uniform:a=-3,b=3", form).mse).overlaps(arb(f"[{expected} +/- 1e-33]"))


def test_block_formats_without_enclosure() -> None:
    for form, words in (("int4_g128", "stored, unsigned scales"), ("int4", "unknown")):
        with pytest.raises(ValueError, match=words):
            certify_block_error("gaussian", form)
    with pytest.raises(ValueError, match="density must have no point masses"):
        certify_block_error("rectified(gaussian)", "mxfp4")


# -- the commands --------------------------------------------------------------------------------------------------


def run(*args: Any, status: int = 0) -> str:
    result = CliRunner().invoke(qerror_command, [str(arg) for arg in args])
    assert result.exit_code == status, result.output
    return result.output


def test_command_proves_and_checks(tmp_path: Path) -> None:
    path = tmp_path / "proof.json"
    said = run("certify", "e2m1", "--density", "laplace", "--rounding", "stochastic", "-o", path)
    proven = certify("laplace", "e2m1", rounding="stochastic")
    assert said.splitlines() == [
        "e2m1 on laplace, stochastic rounding, shift 0: proven",
        f"scale  {proven.scale}  the only best",
        f"MSE    {proven.mse}",
        f"certificate written to {path}",
    ]
    assert Certificate.load(path) == proven
    assert proven.scale in run("certify", "--check", path)
    path.write_text(path.read_text(encoding="utf-8").replace('"unique":true', '"unique":false'), encoding="utf-8")
    assert run("certify", "--check", path, status=1) == f"{path}: not proven: unique must be True\n"
    (row,) = json.loads(run("certify", "--check", path, "--json", status=1))["rows"]
    assert row == {"file": str(path), "proven": False, "error": "unique must be True"}
    (row,) = json.loads(run("certify", "int3", "--json"))["rows"]
    assert row["scale"] == certify("gaussian", "int3").scale


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("certify", "give one GRID to prove, or --check"),
        ("certify int4 --check proof.json", "give one GRID to prove, or --check"),
        ("certify int44", "unknown grid 'int44'"),
        ("certify --check nothing.json", "is no certificate"),
        ("certify int4 --digits 2", "digits must be an integer from 6 to 1000, got 2"),
        ("table --certified --shift mean", "leave --output, --model and --shift out"),
        ("table --certified --grids int4 --densities gaussian:std=2", "the table has no density 'gaussian:std=2'"),
    ],
)
def test_commands_refuse(words: str, message: str) -> None:
    assert message in run(*words.split(), status=2)


def test_command_prints_the_certified_table() -> None:
    words = "table --certified --grids e5m2 int4 --densities gaussian"
    said = run(*words.split()).splitlines()
    row = qe.load_table().certified("e5m2", "gaussian")
    assert said[0] == "e5m2 on gaussian, nearest: unique, 13 copies"
    assert said[1:3] == [f"  scale {row.scale}  table: 0 digits", f"  MSE   {row.mse}"]
    assert len(said) == 7
    everything = run("table", "--certified", "--rounding", "nearest", "stochastic").splitlines()
    assert len(everything) == 3 * 990 + 1
    assert max(map(len, everything)) <= 80
    rows = json.loads(run(*words.split(), "--json"))["rows"]
    assert rows[0]["scale"] == row.scale
    assert rows[1]["copies"] == 0


def test_rows_without_certificate_are_said() -> None:
    other = qe.scale_table(["int4"], ["gaussian"], shift="mean")
    with pytest.raises(
        ValueError, match="there is no certificate of int4 on gaussian, nearest, model exact, shift mean"
    ):
        other.certified("int4", "gaussian")
