"""The better of two scales for each block: exact values, plain quadrature, simulation, laws."""

from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import spherical_jn

import qerror as qe
from qerror.errors import best_of, difference_sums
from qerror.errors.differences import joint_cells, waves

# What the module asks for, and what its series leave at most in the cases here.
RELATIVE = 1e-8


def four_over_six(block_size, scale_format=None, constant=(1, 1.5), grid="e2m1"):
    return qe.BlockFormat(grid, block_size, scale_format, rule="best_of", constant=constant)


def mse_of(density, form, scale=1.0, **options):
    return float(qe.quantization_error(density, form, scale, **options).mse)


# -- exact values ----------------------------------------------------------------------------------------------------


def test_laplace_in_pairs():
    # 50-digit mpmath over the plane of (largest, other), cut at every change, Gauss-Legendre of two orders.
    assert mse_of(qe.Laplace(), four_over_six(2)) == pytest.approx(0.00090479349764068557399, rel=1e-13)


def test_gaussian_by_another_program():
    # A prototype that shares no code, with series to 1e-12.
    assert mse_of(qe.Gaussian(), four_over_six(16)) == pytest.approx(0.007396956199, abs=2e-12)
    # Neighbouring powers of two: .01244700 from the same, .0124490(63) against all exponents by simulation.
    powers = four_over_six(32, "e8m0", (1.125, 2.25))
    assert mse_of(qe.Gaussian(), powers) == pytest.approx(0.01244700, abs=6e-9)


def uniform_pairs(constants, rounding):
    """E[min] / 2 of uniform values on int3_narrow in fractions: E[M^2] = 1/2, the other is uniform below M."""
    zero, one = Fraction(0), Fraction(1)
    levels = [Fraction(k) for k in range(-3, 4)]
    scales = [Fraction(c) / 3 for c in constants]
    cuts = {zero, one} | {s * k / 2 for s in scales for k in range(7)}
    cuts = sorted(c for c in cuts if zero <= c <= one)

    def nearest_loss(u, scale):
        return min((u - scale * level) ** 2 for level in levels)

    def loss(u, scale):
        if rounding == "nearest" or u > scale * levels[-1]:
            return nearest_loss(u, scale)
        return min(abs((u - scale * a) * (scale * b - u)) for a, b in pairwise(levels) if scale * a <= u <= scale * b)

    def both(u, scale):
        return nearest_loss(u, scale) + nearest_loss(one, scale)

    total = zero
    for a, b in pairwise(cuts):
        # Differences are linear here: their roots from two places inside.
        p, q = a + (b - a) / 4, b - (b - a) / 4
        roots = set()
        for s, t in combinations(scales, 2):
            at_p, at_q = both(p, s) - both(p, t), both(q, s) - both(q, t)
            if at_p != at_q:
                roots.add(p + (q - p) * at_p / (at_p - at_q))
        for c, d in pairwise([a, *sorted(root for root in roots if a < root < b), b]):
            # The first of the least.
            scale = min(scales, key=lambda s, u=(c + d) / 2: both(u, s))
            # A parabola, by the open rule of three places.
            parts = [loss(c + (d - c) * Fraction(k, 4), scale) for k in (1, 2, 3)]
            total += (d - c) * ((2 * parts[0] - parts[1] + 2 * parts[2]) / 3 + loss(one, scale))
    return total / 4


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize(
    "constants",
    [
        ("1", "1.5"),
        ("1", "0.75"),
        ("0.9", "1.25"),
        ("1.5", "3"),
        # The largest value lies midway between the ends.
        ("0.9", "1.1"),
        ("1", "1.5", "0.75"),
        ("0.9", "1.25", "1.1"),
        # Equal in wide ranges: the first is taken.
        ("1.5", "3", "0.75"),
        ("3", "1.5", "0.75"),
    ],
)
def test_uniform_pairs_in_fractions(constants, rounding):
    density = qe.Uniform(std=float(1 / np.sqrt(3)))
    form = four_over_six(2, constant=tuple(map(float, constants)), grid="int3_narrow")
    expected = float(uniform_pairs(constants, rounding))
    assert mse_of(density, form, rounding=rounding) == pytest.approx(expected, rel=1e-12)


def test_single_values_take_the_better_end():
    # Scales c M / 6: 6 / 0.9 clips by a tenth of M, 6 / 0.8 by a fifth.
    terms = qe.quantization_error(qe.Gaussian(), four_over_six(1, constant=(0.8, 0.9)))
    assert float(terms.mse) == pytest.approx(0.01, rel=1e-12)
    assert float(terms.clipping) == pytest.approx(0.01, rel=1e-12)
    assert float(terms.maximum) == pytest.approx(0.01, rel=1e-12)


# -- plain quadrature ------------------------------------------------------------------------------------------------


def nearest(x, scale, levels):
    """Squared errors by comparison with every level."""
    return ((x[..., None] - scale[..., None] * levels) ** 2).min(axis=-1)


def plain_pairs(pdf, levels, scales_of, cuts, top):
    """E[min] / 2 of two values with an even pdf: max and the other by Gauss-Legendre between all changes."""
    node, weight = np.polynomial.legendre.leggauss(10)
    edges = np.unique(np.concatenate([cuts, np.linspace(0, top, 400)]))
    edges = edges[edges <= top]
    half = 0.5 * np.diff(edges)[:, None]
    m, dm = (edges[:-1, None] + half * (node + 1)).ravel(), (half * weight).ravel()
    first, second = scales_of(m)
    middles = 0.5 * (levels[1:] + levels[:-1])
    middles = middles[middles > 0]
    inner = np.concatenate([first[:, None] * middles, second[:, None] * middles], axis=1)
    inner = np.sort(np.clip(np.concatenate([0 * m[:, None], inner, m[:, None]], axis=1), 0, m[:, None]), axis=1)

    def sums(y):
        shape = (-1,) + (1,) * (y.ndim - 1)
        one, two = first.reshape(shape) + 0 * y, second.reshape(shape) + 0 * y
        own = nearest(m, first, levels).reshape(shape), nearest(m, second, levels).reshape(shape)
        return own[0] + nearest(y, one, levels), own[1] + nearest(y, two, levels)

    # The difference is linear between changes: its root from two points inside.
    a, b = inner[:, :-1], inner[:, 1:]
    p, q = a + 0.25 * (b - a), a + 0.75 * (b - a)
    at_p, at_q = (np.subtract(*sums(y)) for y in (p, q))
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.clip(np.nan_to_num(p - at_p * (q - p) / (at_q - at_p)), a, b)
    total = np.zeros(m.size)
    for c, d in ((a, root), (root, b)):
        y = c[..., None] + 0.5 * (d - c)[..., None] * (node + 1)
        total += (0.5 * (d - c)[..., None] * weight * np.minimum(*sums(y)) * pdf(y)).sum(axis=(1, 2))
    # 2 values may be the largest, 4 quadrants are alike, 2 values share the error.
    return float((4 * pdf(m) * total * dm).sum())


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
E2M1 = np.concatenate([-E2M1[:0:-1], E2M1])


@pytest.mark.parametrize(
    ("scale_format", "constants", "unit"),
    [
        (None, (1, 1.5), 1.0),
        (None, (0.7, 1.1), 1.0),
        ("e4m3fn", (1, 1.5), 1 / 300),
        ("e4m3fn", (1, 1.5), 1.0),
        ("e8m0", (1.0, 2.0), 0.7),
    ],
)
def test_gaussian_pairs_by_plain_quadrature(scale_format, constants, unit):
    density = qe.Gaussian()
    cuts = np.empty(0)
    if scale_format is None:

        def scales_of(m):
            return constants[0] * m / 6, constants[1] * m / 6
    else:
        stored = np.unique(qe.grid(scale_format).levels)
        stored = stored[stored >= 0] * unit
        between = 0.5 * (stored[1:] + stored[:-1])
        cuts = np.concatenate([between * 6 / c for c in constants])
        # Where the largest value itself meets a threshold.
        cuts = np.concatenate([cuts, np.outer(stored[stored < 4], 0.5 * (E2M1[1:] + E2M1[:-1])).ravel()])
        cuts = cuts[(cuts > 1e-4) & (cuts < 10)]

        def scales_of(m):
            return tuple(stored[np.searchsorted(between, c * m / 6)] for c in constants)

    expected = plain_pairs(density.pdf, E2M1, scales_of, np.append(cuts, 0.0), 10.0)
    # Where a root enters a cell the plain integrand has a kink that is not cut.
    form = four_over_six(2, scale_format, constants)
    assert mse_of(density, form, unit) == pytest.approx(expected, rel=2e-6)


def stochastic(x, scale, levels):
    """Expected squared errors between the two levels around, or beyond the last."""
    off = x[..., None] - scale[..., None] * levels
    above, below = np.where(off <= 0, -off, np.inf).min(axis=-1), np.where(off >= 0, off, np.inf).min(axis=-1)
    product = np.where(above * below == 0, 0.0, above * below)
    return np.where(np.isfinite(above + below), product, np.minimum(above, below) ** 2)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("constants", [(1, 1.5), (0.9, 1.25), (1.5, 1)])
def test_uniform_triples_by_a_lattice(constants, rounding):
    # E[M^2] = 3 / 5 for three values uniform up to 1, the two others uniform below M. Midpoints: errors of about h^2.
    y = (np.arange(4000) + 0.5) / 4000
    sums, losses = [], []
    for constant in constants:
        scale = np.full(y.size, constant / 6)
        for found, loss in ((sums, nearest), (losses, stochastic if rounding == "stochastic" else nearest)):
            one, top = loss(y, scale, E2M1), loss(np.ones(1), scale[:1], E2M1)
            found.append(top + one[:, None] + one)
    # The first of equals: where all are 0 it is the first whose values are rounded up now and then.
    expected = 0.6 * first_of_least(np.stack(sums), np.stack(losses)[:, None]).mean() / 3
    density = qe.Uniform(std=float(1 / np.sqrt(3)))
    form = four_over_six(3, constant=constants)
    # The loss jumps where the choice changes, between two places of the lattice.
    known = 1e-5 if rounding == "nearest" else 1e-4
    assert mse_of(density, form, rounding=rounding) == pytest.approx(expected, rel=known)


# -- simulation ------------------------------------------------------------------------------------------------------


NAMES = ("mse", "clipping", "bias", "cross", "maximum")


def first_of_least(sums, terms, power=1.0):
    """The terms (K, T, ...) of the first of the least sums (K, ...), which are equal within rounding."""
    chosen = (sums <= sums.min(axis=0) + 1e-12 * power).argmax(axis=0)
    return np.take_along_axis(terms, chosen[None, None], axis=0)[0]


def by_definition(x, form, unit, rounding):
    """The terms of each block, shape (5, blocks): what is rounded stochastically counts with its expectation."""
    levels = form.grid.levels
    top = np.abs(x).max(axis=1)
    sums, terms = [], []
    for constant in form.constants:
        scale = constant * top / form.grid.absmax
        if form.scale_format is not None:
            stored = form.scale_format.levels[form.scale_format.levels >= 0]
            scale = unit * stored[np.searchsorted(0.5 * (stored[1:] + stored[:-1]), scale / unit)]
        q = scale[:, None] * levels
        index = np.abs(x[:, :, None] - q[:, None, :]).argmin(axis=-1)
        error = np.take_along_axis(q, index, axis=1) - x
        beyond = (x < q[:, :1]) | (x > q[:, -1:])
        sums.append((error**2).sum(axis=1))
        loss = error**2
        if rounding == "stochastic":
            loss, error = stochastic(x, scale[:, None], levels), np.where(beyond, error, 0.0)
        largest = np.take_along_axis(loss, np.abs(x).argmax(axis=1)[:, None], axis=1)[:, 0] / form.block_size
        parts = [loss, np.where(beyond, loss, 0), error, x * error]
        terms.append(np.stack([part.mean(axis=1) for part in parts] + [largest]))
    return first_of_least(np.stack(sums), np.stack(terms), top**2)


def hold(terms, found):
    """Means of independent rows (5, n) agree with a prediction."""
    expected = np.array([float(getattr(terms, name)) for name in NAMES])
    mean, error = found.mean(axis=1), found.std(axis=1) / np.sqrt(found.shape[1])
    # What is 0 but for rounding has no score.
    assert (np.abs(mean - expected) / np.maximum(error, 1e-14) < 4.5).all()
    # An error of 1 % in the mse would show in the larger half of the cases.
    assert 0.01 * expected[0] / error[0] > 1


CASES = [
    (qe.Gaussian(), four_over_six(16, "e4m3fn"), 1 / 1536),
    (qe.Gaussian(), four_over_six(16, "e4m3fn"), 1 / 400),
    (qe.Laplace(mean=0.5), four_over_six(16), 1.0),
    (qe.StudentT(df=6), four_over_six(8, constant=(0.8, 1.1), grid="int4"), 1.0),
    (qe.StudentT(df=6), four_over_six(5, "e8m0", (1, 2), "int3"), 1.3),
    (qe.Uniform(), four_over_six(64, None, (1, 0.9), "nf4"), 1.0),
    (qe.GeneralizedGaussian(0.7), four_over_six(3, "e4m3fn"), 0.5),
    (qe.Histogram([3, 1, 5, 2, 0, 4], [-2, -1, -0.5, 0.1, 1, 2, 3]), four_over_six(16, "e4m3fn"), 1 / 400),
]


THREE = [
    (qe.Gaussian(), four_over_six(16, None, (1, 1.5, 1.25)), 1.0),
    # Families of blocks two of whose scales are the same.
    (qe.Gaussian(), four_over_six(32, "e8m0", (1, 1.5, 2)), 1.0),
    (qe.Gaussian(), four_over_six(8, "e8m0", (1, 0.75, 1.5), "int3"), 1.3),
]


@pytest.mark.parametrize(
    ("density", "form", "unit", "rounding"),
    [(*case, "nearest") for case in CASES + THREE] + [(*case, "stochastic") for case in CASES[:5:2] + THREE[1:]],
)
def test_simulation_agrees(density, form, unit, rounding):
    terms = qe.quantization_error(density, form, unit, rounding=rounding)
    x = density.sample((400_000 // form.block_size, form.block_size), 5)
    hold(terms, by_definition(x, form, unit, rounding))


@pytest.mark.parametrize(("density", "rounding"), [(qe.Gaussian(), "stochastic"), (qe.Logistic(mean=0.5), "nearest")])
def test_tensors_with_a_scale_of_their_own(density, rounding):
    # Tensors of four blocks, whose largest magnitude needs the block scale 256.
    size, count = 64, 6000
    form = four_over_six(16, "e4m3fn").replace(tensor_scale=256)
    x = density.sample((count, size), 3)
    unit = np.repeat(np.abs(x).max(axis=1) / (256 * 6), size // 16)
    found = by_definition(x.reshape(-1, 16), form, unit, rounding).reshape(5, count, -1).mean(axis=-1)
    hold(qe.quantization_error(density, form, size=size, rounding=rounding), found)


def test_the_median_of_three_sums():
    # What three constants have beyond the pairs is minus half the median of the sums less their mean: a small number,
    # of which the simulation of the whole error says little.
    constants = (1, 1.5, 1.25)
    density, form = qe.Gaussian(), four_over_six(16, constant=constants)
    single = [mse_of(density, form.replace(rule="absmax", constant=c)) for c in constants]
    pairs = [mse_of(density, form.replace(constant=pair)) for pair in combinations(constants, 2)]
    # E[min of a pair] is the mean of both and a change, of which three have a half each.
    beyond = mse_of(density, form) - (0.5 * sum(pairs) - sum(single) / 6)
    x = density.sample((60_000, 16), 8)
    sums = [nearest(x, np.abs(x).max(axis=1)[:, None] * c / 6, E2M1).mean(axis=1) for c in constants]
    drawn = -0.5 * (np.median(sums, axis=0) - np.mean(sums, axis=0))
    error = drawn.std() / np.sqrt(drawn.size)
    assert abs(drawn.mean() - beyond) < 4.5 * error
    # An error of 2 % would show.
    assert beyond > 50 * error


# -- laws ------------------------------------------------------------------------------------------------------------

FORMATS = st.sampled_from([("e2m1", None), ("e2m1", "e8m0"), ("int4_narrow", None), ("int3", "e8m0")])
FAMILIES = st.sampled_from([qe.Gaussian, qe.Laplace, qe.Uniform, qe.Logistic])
CONSTANTS = st.tuples(st.integers(60, 140), st.integers(60, 220)).filter(lambda pair: abs(pair[0] - pair[1]) > 3)


@settings(max_examples=10)
@given(FAMILIES, FORMATS, st.integers(1, 24), CONSTANTS)
def test_laws(family, parts, block_size, percent):
    grid, scale_format = parts
    constants = percent[0] / 100, percent[1] / 100
    form = four_over_six(block_size, scale_format, constants, grid)
    best = mse_of(family(), form)
    single = [mse_of(family(), form.replace(rule="absmax", constant=c)) for c in constants]
    # What is known is known relative to the mean of both.
    known = RELATIVE * sum(single)
    assert best <= min(single) + known
    assert mse_of(family(), form.replace(constant=constants[::-1])) == pytest.approx(best, rel=0, abs=known)
    # Of values twice as large errors are four times as large, scales of powers of two included.
    assert mse_of(family(std=2.0), form) == pytest.approx(4 * best, rel=0, abs=4 * known)


def test_three_constants_are_two_if_one_comes_twice_and_better_if_not():
    def terms(*constant):
        found = qe.quantization_error(qe.Gaussian(), four_over_six(16, None, constant))
        return [float(getattr(found, name)) for name in ("mse", "clipping", "cross", "maximum")]

    for three in ((1, 1, 1.5), (1.5, 1, 1.5)):
        np.testing.assert_allclose(terms(*three), terms(1, 1.5), rtol=0, atol=2e-9)
    best = terms(1, 1.25, 1.5)
    np.testing.assert_allclose(terms(1.5, 1, 1.25), best, rtol=0, atol=1e-9)
    assert best[0] < min(terms(1, 1.25)[0], terms(1, 1.5)[0], terms(1.25, 1.5)[0])


@pytest.mark.parametrize("scale_format", [None, "e8m0"])
def test_an_absurd_candidate_is_never_chosen(scale_format):
    form = four_over_six(8, scale_format, (1, 512))
    terms = qe.quantization_error(qe.Gaussian(), form)
    alone = qe.quantization_error(qe.Gaussian(), form.replace(rule="absmax", constant=1))
    for name in ("mse", "rounding", "cross"):
        # The mean of both is 60 times as large.
        assert float(getattr(terms, name)) == pytest.approx(float(getattr(alone, name)), rel=1e-6)


def test_the_largest_of_one_is_all():
    terms = qe.quantization_error(qe.Laplace(), four_over_six(1, "e4m3fn"), 0.5)
    assert float(terms.maximum) == pytest.approx(float(terms.mse), rel=1e-7)


def test_terms_of_the_better_scale_hang_together():
    density = qe.Laplace(mean=0.5)
    terms = qe.quantization_error(density, four_over_six(16, "e4m3fn"), 1 / 400)
    assert float(terms.clipping + terms.rounding) == float(terms.mse)
    assert 0 < terms.clipping < terms.mse
    assert terms.cross < 0
    assert float(terms.power) == pytest.approx(1.25, rel=1e-12)


def test_arrays_are_taken_one_by_one():
    densities = qe.Gaussian(std=np.array([1.0, 2.0]))
    found = qe.quantization_error(densities, four_over_six(4, "e8m0", (1, 2)), 1.0)
    assert found.mse.shape == (2,)
    assert found.mse[1] == pytest.approx(4 * found.mse[0], rel=RELATIVE)


def test_the_accuracy_that_is_claimed(monkeypatch):
    density, form = qe.StudentT(df=5), four_over_six(16)
    claimed = best_of.best_of_change(density, form, 1.0, 0.01)
    monkeypatch.setattr(best_of, "_TOLERANCE", 1e-12)
    better = best_of.best_of_change(density, form, 1.0, 0.01)
    assert claimed.accuracy < 1e-8 * 0.007
    assert abs(claimed.mse - better.mse) <= 2 * claimed.accuracy
    monkeypatch.setattr(difference_sums, "_LAST", 64)
    monkeypatch.setattr(best_of, "_REQUIRED", 1e-12)
    with pytest.raises(
        ValueError,
        match=r"density must be smoother, elements coarser or constants closer for rule best_of: .*qerror\.simulate",
    ):
        best_of.best_of_change(density, form, 1.0, 0.01)


# -- parts -----------------------------------------------------------------------------------------------------------


def test_waves_are_spherical_bessel_functions():
    k = np.concatenate([-np.geomspace(1e-9, 1e4, 200), [0.0], np.linspace(0, 50, 301)])
    for n, row in enumerate(waves(k)):
        sign = (1j * np.where(k < 0, -1, 1)) ** n
        np.testing.assert_allclose(row, spherical_jn(n, np.abs(k)) * sign, rtol=0, atol=1e-14)


def test_equal_values_are_equal_in_spite_of_rounding():
    # 3 / 6 and 2 / 4 of the largest magnitude: floats that may differ by an ulp hide a point mass of d.
    for size in np.linspace(0.1, 3, 50):
        cells = joint_cells(qe.grid("e2m1"), (size / 6, size * 1.5 / 6), 0.0, size, np.empty(0))
        same = cells.edges[1:][~cells.differs] / size
        # 0 up to 0.25 / 6, 1.5 of 6 and 1 of 4, 3 and 2, 6 and 4.
        np.testing.assert_allclose(same, [0.25 / 6, 1.75 / 6, 3.5 / 6, 1.0], rtol=1e-12)


# -- what is refused -------------------------------------------------------------------------------------------------


def test_what_best_of_does_not_know():
    with pytest.raises(ValueError, match=r"model must be 'exact' for rule best_of.*simulate"):
        qe.quantization_error(qe.Gaussian(), four_over_six(16), model="high_resolution")


def test_more_than_three_constants():
    with pytest.raises(
        ValueError, match=r"constant must be two or three numbers, got \(1.0, 1.2, 1.5, 2.0\); .*simulate"
    ):
        mse_of(qe.Gaussian(), four_over_six(16, constant=(1, 1.2, 1.5, 2)))
