"""Losses other than the square: |e| and |e|^p, their expectation, best scales and codebooks."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qerror as qe
from qerror.densities.powers import power_moments
from qerror.errors.losses import expected_loss, exponent_of, loss_sums
from qerror.literature.block_maximum import block_maximum_codebook, block_maximum_error
from qerror.search.block_codebooks import block_codebook
from qerror.search.loss_codebooks import best_medians, descend, loss_cells
from qerror.search.losses import _bound, _Curve, best_scale_of_loss

RNG = np.random.default_rng(21)


def laplace(x):
    return mpmath.exp(-mpmath.sqrt(2) * abs(x)) / mpmath.sqrt(2)


def student(x):
    df = mpmath.mpf(5)
    peak = mpmath.gamma((df + 1) / 2) / (mpmath.sqrt(mpmath.pi * (df - 2)) * mpmath.gamma(df / 2))
    return peak * (1 + x**2 / (df - 2)) ** (-(df + 1) / 2)


PDFS = {
    "gaussian": (mpmath.npdf, [0, 3, 8, 20]),
    "laplace": (laplace, [0, 4, 16, 60]),
    "student-t:df=5": (student, [0, 4, 30, 1e3, 1e5, 1e8, mpmath.inf]),
    "uniform": (lambda x: 1 / (2 * mpmath.sqrt(3)), [0, mpmath.sqrt(3)]),
}


def by_mpmath(name, grid, scale, p):
    """E|x - Q(x)|^p of a symmetric density and grid by quadrature between levels and thresholds, 20 digits."""
    pdf, marks = PDFS[name]
    levels, thresholds = (scale * a for a in (qe.grid(grid).levels, qe.grid(grid).thresholds))
    with mpmath.workdps(20):
        ends = {mpmath.mpf(float(t)) for t in (*levels, *thresholds) if t > 0} | {mpmath.mpf(m) for m in marks}
        ends = sorted(end for end in ends if end <= marks[-1])
        total = mpmath.mpf(0)
        for low, high in itertools.pairwise(ends):
            at = float(low) + 1e-9 if high == mpmath.inf else 0.5 * float(low + high)
            q = mpmath.mpf(float(levels[np.searchsorted(thresholds, at)]))
            total += mpmath.quad(lambda x, q=q: abs(x - q) ** p * pdf(x), [low, high])
        return float(2 * total)


# -- the expected loss -----------------------------------------------------------------------------------------------

CASES = [
    ("gaussian", "int4_midrise", 0.3, 1.0),
    ("gaussian", "e2m1", 0.5, 2.4),
    ("laplace", "e2m1", 0.4, 1.0),
    ("laplace", "int4_narrow", 0.45, 1.3),
    ("student-t:df=5", "ternary", 1.2, 1.0),
    ("student-t:df=5", "int3_narrow", 0.9, 3.7),
    ("uniform", "int3_midrise", 0.41, 1.5),
]


@pytest.mark.parametrize(("name", "grid", "scale", "p"), CASES)
def test_expected_loss_by_mpmath(name, grid, scale, p):
    terms = qe.quantization_error(qe.density(name), grid, scale, loss=p)
    exact = by_mpmath(name, grid, scale, p)
    assert terms.loss == pytest.approx(exact, rel=2e-13, abs=0)
    assert terms.loss != pytest.approx(exact * (1 + 1e-11), rel=2e-13, abs=0)


EVERY = {
    "gaussian": qe.Gaussian(0.3, 1.2),
    "laplace": qe.Laplace(-0.2),
    "logistic": qe.Logistic(),
    "uniform": qe.Uniform(),
    "t": qe.StudentT(4.5),
    "gg": qe.GeneralizedGaussian(0.5),
    "mixture": qe.Mixture([qe.Gaussian(-1, 0.3), qe.StudentT(6, 1, 0.5)], [1, 2]),
    "rectified": qe.Rectified(qe.Gaussian()),
    "histogram": qe.Histogram([1, 2, 0, 3], [0, 1, 3, 4, 5]),
    "sample": qe.Empirical(np.random.default_rng(1).normal(size=400)),
    "arrays": qe.Gaussian(0, [1.0, 2.0]),
}


@pytest.mark.parametrize("name", EVERY)
def test_the_square_by_the_same_route_is_the_mean_squared_error(name):
    """Gauss-Jacobi rules and sums of powers against closed forms and moments about levels."""
    density, scale = EVERY[name], np.array([0.2, 0.5])
    ours = expected_loss(density, qe.grid("int4"), scale, 0.1, 2.0)
    known = qe.quantization_error(density, "int4", scale, 0.1)
    assert np.asarray(ours.loss) == pytest.approx(np.asarray(known.mse), rel=1e-12)
    assert np.asarray(ours.clipping) == pytest.approx(np.asarray(known.clipping), rel=1e-12, abs=1e-300)
    assert np.asarray(ours.snr_db) == pytest.approx(np.asarray(known.sqnr_db), abs=1e-10)


@pytest.mark.parametrize("p", [1.0, 1.4, 2.4, 4.0])
@pytest.mark.parametrize("name", ["gaussian", "t", "mixture", "rectified", "sample"])
def test_slope_is_the_derivative(name, p):
    density, z = EVERY[name], np.full(2, 0.1)

    def at(scale):
        return loss_sums(density, qe.grid("e2m1"), scale, z, p)

    scale, h = np.array([0.231, 0.517]), 1e-6
    difference = (at(scale + h).loss - at(scale - h).loss) / (2 * h)
    assert at(scale).by_scale == pytest.approx(difference, rel=2e-5, abs=1e-7)


@pytest.mark.parametrize("p", ["absolute", 1.5, 2.4])
def test_samples_are_what_casting_gives(p):
    x = RNG.laplace(size=3000)
    terms = qe.quantization_error(qe.Empirical(x), "e2m1", [0.3, 0.6], 0.2, loss=p)
    error = np.abs(x - qe.fake_quantize(x[None], "e2m1", np.array([[0.3], [0.6]]), 0.2)) ** exponent_of(p)
    assert terms.loss == pytest.approx(error.mean(axis=1), rel=1e-13)
    assert terms.size == pytest.approx((np.abs(x) ** exponent_of(p)).mean(), rel=1e-13)


def test_heavy_tails_have_no_moment():
    assert qe.quantization_error(qe.StudentT(2.5), "int4", 0.3, loss=3.0).loss == math.inf
    assert math.isfinite(qe.quantization_error(qe.StudentT(2.5), "int4", 0.3, loss=2.4).loss)
    with pytest.raises(ValueError, match="has a moment of, got 3"):
        qe.optimal_scale(qe.StudentT(2.5), "int4", loss=3.0)


def test_a_tail_near_its_last_moment_by_a_beta_function():
    """E|t|^p of Student's t in closed form."""
    df, p = 5.0, 4.0
    b = mpmath.gamma((p + 1) / 2) * mpmath.gamma((df - p) / 2) / (mpmath.sqrt(mpmath.pi) * mpmath.gamma(df / 2))
    exact = float(b * mpmath.mpf(df - 2) ** (p / 2))
    edges, zero = np.array([[-np.inf, 0.0, np.inf]]), np.zeros((1, 2))
    assert power_moments(qe.StudentT(df), edges, zero, np.zeros(1), p, 1).sum() == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("form", ["nf4_g64", "mxfp4", "e2m1_g16_e4m3fn"])
def test_block_formats_by_whole_blocks(form):
    """Against casting, by its standard error; one per cent more would be seen."""
    block = qe.block_format(form).block_size
    x = RNG.standard_normal((20_000, block))
    mean = np.abs(x - qe.fake_quantize(x, form)).mean(axis=1)
    exact = float(qe.quantization_error(qe.Gaussian(), form, loss="absolute").loss)
    error = mean.std() / math.sqrt(mean.size)
    assert abs(mean.mean() - exact) < 4 * error < 0.01 * exact


# -- the best scale --------------------------------------------------------------------------------------------------


def test_medians_in_closed_form():
    """Two levels: the median of |x| is the best scale of the absolute error."""
    for density, median in ((qe.Laplace(), math.log(2) / math.sqrt(2)), (qe.Uniform(), math.sqrt(3) / 2)):
        found = qe.optimal_scale(density, "binary", loss="absolute")
        assert found.scale == pytest.approx(median, rel=1e-9)
        assert found.status is qe.Status.EXACT
    assert qe.optimal_scale(qe.Gaussian(0, [1, 2]), "binary", loss="absolute").scale == pytest.approx(
        float(qe.Gaussian().quantile(0.75)) * np.array([1, 2]), rel=1e-9
    )


@pytest.mark.parametrize("name", ["gaussian", "laplace", "student-t:df=5"])
@pytest.mark.parametrize("grid", ["int4", "e2m1", "nf4", "ternary"])
def test_the_square_by_bounds_of_intervals_is_the_known_optimum(name, grid):
    known = qe.optimal_scale(qe.density(name), grid)
    found = best_scale_of_loss(qe.density(name), qe.grid(grid), np.array(0.0), 2.0)
    assert found.scale == pytest.approx(float(known.scale), rel=1e-9)
    assert found.error.loss == pytest.approx(float(known.error.mse), rel=1e-13)
    assert found.status is qe.Status.EXACT


@pytest.mark.parametrize(("grid", "p"), [("int4", "absolute"), ("e3m0", 1.5), ("int6", "absolute"), ("e3m0", 4.0)])
def test_no_scale_of_a_dense_scan_is_better(grid, p):
    density = qe.Mixture([qe.Gaussian(), qe.Laplace(0, 3)], [0.9, 0.1])
    found = qe.optimal_scale(density, grid, loss=p, certify=True)
    scan = qe.quantization_error(density, grid, np.geomspace(found.scale / 50, found.scale * 20, 400), loss=p)
    assert scan.loss.min() >= found.error.loss * (1 - 1e-12)
    assert scan.loss.min() <= found.error.loss * 1.001
    assert found.status is qe.Status.EXACT


def breakpoints(x, grid):
    """All scales at which a value lies on a level: on one of them the absolute error of a sample is least."""
    scales = (x[:, None] / grid.levels[grid.levels != 0]).ravel()
    return np.unique(scales[scales > 0])


@given(
    st.lists(st.integers(-30, 30), min_size=1, max_size=12),
    st.sampled_from(["binary", "ternary", "int3", "e2m1", "nf4"]),
    st.sampled_from([0.0, 0.5]),
)
@settings(max_examples=40, deadline=None)
def test_least_absolute_error_of_samples_by_enumeration(values, grid, shift):
    """On lattices, where many values meet thresholds and levels at once."""
    x, levels = np.array(values, float), qe.grid(grid)
    if not np.any(x != shift):
        return
    found = qe.optimal_scale(qe.Empirical(x), grid, shift=shift, loss="absolute")
    y = x - shift
    scales = breakpoints(y, levels)
    every = np.abs(y[:, None, None] - scales[:, None] * levels.levels).min(axis=2).mean(axis=0)
    assert found.status is qe.Status.EXACT
    assert found.error.loss == pytest.approx(every.min(), rel=1e-12, abs=1e-15)


@given(st.integers(0, 10**6), st.sampled_from(["int3", "e2m1", "nf4"]), st.sampled_from([1.2, 2.4, 3.0]))
@settings(max_examples=4, deadline=None)
def test_powers_of_samples_against_a_dense_scan(seed, grid, p):
    x = np.random.default_rng(seed).laplace(size=60)
    found = qe.optimal_scale(qe.Empirical(x), grid, loss=p)
    scales = np.geomspace(found.scale / 30, found.scale * 10, 20_000)
    levels = qe.grid(grid).levels
    best = min(
        (np.abs(x[:, None, None] - part[:, None] * levels).min(axis=2) ** p).mean(axis=0).min()
        for part in np.array_split(scales, 20)
    )
    assert found.status is qe.Status.EXACT
    assert best >= found.error.loss * (1 - 1e-12)


@given(
    st.sampled_from(["gaussian", "t", "mixture", "sample", "gg"]),
    st.sampled_from(["int4", "e2m1", "nf4", "ternary"]),
    st.floats(1.0, 4.0),
    st.floats(0.05, 3.0),
    st.floats(1.001, 1.6),
)
@settings(max_examples=60, deadline=None)
def test_the_bound_of_an_interval_holds(name, grid, p, low, factor):
    curve = _Curve(EVERY[name], qe.grid(grid), 0.1, p)
    ends = curve.at(np.array([low, low * factor]))
    a, b = ends.select(slice(0, 1)), ends.select(slice(1, 2))
    bound, meet = _bound(a, b, curve.falls(a, b))
    inside = curve.at(np.linspace(low, low * factor, 41))
    assert low <= meet[0] <= low * factor
    assert bound[0] <= inside.loss.min() * (1 + 1e-12)


def test_bounds_close_in_with_the_square_of_the_width():
    curve = _Curve(qe.Gaussian(), qe.grid("int4"), 0.0, 1.0)
    gaps = []
    for width in (0.02, 0.01, 0.005):
        ends = curve.at(np.array([0.3, 0.3 + width]))
        a, b = ends.select(slice(0, 1)), ends.select(slice(1, 2))
        gaps.append(float(ends.loss.min() - _bound(a, b, curve.falls(a, b))[0][0]))
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2] > 0


def test_what_is_not_proven_says_so():
    scanned = qe.optimal_scale(qe.Gaussian(), "int4", loss=2.4, certify=False)
    assert scanned.status is qe.Status.SCANNED
    assert scanned.scale == pytest.approx(qe.optimal_scale(qe.Gaussian(), "int4", loss=2.4).scale, rel=1e-9)
    # Point masses beside a continuous part have no bounds.
    assert qe.optimal_scale(qe.Rectified(qe.Gaussian()), "uint4", loss=1.5).status is qe.Status.SCANNED
    assert "not proven" in repr(scanned)
    assert qe.optimal_scale(qe.Empirical([0.0, 0.0]), "int4", loss="absolute").status is qe.Status.DEGENERATE


def test_values_on_levels_have_no_error():
    found = qe.optimal_scale(qe.Empirical([-2.0, 1.0, 3.0, 7.0]), "int4", loss="absolute")
    assert (float(found.scale), float(found.error.loss), found.status) == (1.0, 0.0, qe.Status.EXACT)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: qe.quantization_error(qe.Gaussian(), "int4", 1.0, loss="huber"), "loss must be 'squared', 'absolute'"),
        (lambda: qe.optimal_scale(qe.Gaussian(), "int4", loss=0.5), "a power from 1 to 4, got 0.5"),
        (lambda: qe.optimal_scale(qe.Gaussian(), "int4", loss=float("nan")), "a power from 1 to 4, got nan"),
        (lambda: qe.optimal_scale(qe.Gaussian(), "int4", loss=True), "got True"),
        (lambda: qe.optimal_scale(qe.Gaussian(), "mxfp4", loss=1.0), "loss must be 'squared' for a block format"),
        (lambda: qe.optimal_scale(qe.Gaussian(), "int4", loss=1.0, shift="optimal"), "shift must be"),
        (lambda: qe.quantization_error(qe.Gaussian(), "mxfp4", loss=2.4), "'squared' or 'absolute' for a block format"),
        (lambda: qe.quantization_error(qe.Gaussian(), "int4", 1, loss=1, rounding="stochastic"), "rounding must be"),
        (lambda: qe.quantization_error(qe.Gaussian(), "int4", 1, loss=1, model="high_resolution"), "model must be"),
        (lambda: qe.lloyd_max(qe.Empirical([1.0, 2.0, 3.0]), 2, loss=3), "'squared' or 'absolute' for a sample"),
        (lambda: qe.lloyd_max(qe.Gaussian(), 4, block_size=8, loss=3), "'squared' or 'absolute' for blocks"),
    ],
)
def test_bad_losses(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# -- codebooks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"), [("gaussian", 2), ("gaussian", 64), ("laplace", 16), ("t", 3), ("t", 32), ("mixture", 8)]
)
def test_levels_are_the_medians_of_their_cells(name, count):
    density = EVERY[name]
    levels = qe.lloyd_max(density, count, loss="absolute").levels
    middle = 0.5 * (levels[1:] + levels[:-1])
    edges = np.concatenate([[-np.inf], middle, [np.inf]])
    below, above = (density.moments(*ends, 0.0)[0] for ends in ((edges[:-1], levels), (levels, edges[1:])))
    assert below == pytest.approx(above, abs=1e-13)


def test_three_medians_of_a_laplace_density():
    """Q exp(-q / 2) = half of it: the outer level is half a threshold beyond it by ln 2, t = 2 ln 2 b, q = 2 t."""
    b = 1 / math.sqrt(2)
    levels = qe.lloyd_max(qe.Laplace(), 3, loss="absolute").levels
    # Beyond a threshold t the density is exponential again: its median is t + b ln 2, and t is half of the level.
    assert levels == pytest.approx([-2 * b * math.log(2), 0, 2 * b * math.log(2)], rel=1e-11, abs=1e-14)


@pytest.mark.parametrize("p", [1.5, 2.4, 4.0])
def test_levels_of_other_powers_cannot_be_moved(p):
    density = qe.StudentT(5)
    levels = qe.lloyd_max(density, 6, loss=p).levels
    best = qe.quantization_error(density, qe.Grid(levels), 1.0, loss=p).loss
    for i, step in itertools.product(range(6), (-1e-3, 1e-3)):
        moved = levels.copy()
        moved[i] += step
        assert qe.quantization_error(density, qe.Grid(moved), 1.0, loss=p).loss > best


def test_the_square_by_the_same_newton_is_lloyd_max():
    known = qe.lloyd_max(qe.Gaussian(), 8).levels
    start = np.linspace(-2, 2, 8)
    levels, mse = descend(lambda q: loss_cells(qe.Gaussian(), q, 2.0), start, 1.0)
    assert levels == pytest.approx(known, abs=1e-12)
    assert mse == pytest.approx(0.0345477607885, rel=1e-12)


def test_bof4_and_af4_are_reproduced():
    """By the density of scaled values; the audit of published codebooks integrates over the block maximum instead."""
    book = block_codebook(qe.Gaussian(), 16, 64, fixed=(-1, 0, 1), power=1.0)
    known = block_maximum_codebook(64, "weighted absolute")
    assert book.grid.levels == pytest.approx(known, abs=1e-11)
    # BOF4 (MAE), block 64: arXiv 2505.06653, Table 6, estimated from drawn weights (3.6e-6 dB worse: `qerror audit`).
    assert book.grid.levels[[1, 8, 14]] == pytest.approx([-0.70263058, 0.07896000, 0.72991782], abs=3e-4)
    assert qe.lloyd_max(qe.Gaussian(), 16, block_size=64, fixed=(-1, 0, 1), loss="absolute").levels == pytest.approx(
        known, abs=1e-11
    )
    form = qe.BlockFormat(book.grid, 64)
    assert qe.quantization_error(qe.Gaussian(), form, loss="absolute").loss == pytest.approx(book.mse, rel=1e-13)
    # Values that are no maximum, 63 of 64; the others have no error.
    error = block_maximum_error(known, 64, "weighted absolute")
    assert book.mse == pytest.approx(63 / 64 * error, rel=1e-10)
    # AF4 counts the scaled values alike: weights g^0.
    blocks = qe.BlockScaled(qe.Gaussian(), form).reweighted(0)
    levels, _ = descend(lambda q: loss_cells(blocks, q, 1.0), known, 1.0, ~np.isin(known, (-1, 0, 1)))
    assert levels == pytest.approx(block_maximum_codebook(64, "absolute"), abs=1e-11)


@given(st.lists(st.integers(-9, 9), min_size=4, max_size=9, unique=True), st.integers(2, 4), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_medians_of_samples_by_enumeration(values, count, seed):
    x = np.sort(np.array(values, float))
    weight = np.random.default_rng(seed).integers(1, 5, x.size).astype(float)

    def cost(levels):
        return (weight * np.abs(x[:, None] - np.asarray(levels)).min(axis=1)).sum()

    found = best_medians(x, weight, count)
    assert cost(found) == pytest.approx(min(cost(x[list(c)]) for c in itertools.combinations(range(x.size), count)))
    repeated = qe.lloyd_max(qe.Empirical(np.repeat(x, weight.astype(int))), count, loss="absolute").levels
    assert cost(repeated) == pytest.approx(cost(found))
