"""Limits: entropies, rate-distortion functions, entropy-coded quantizers, the loss ladder."""

import itertools
import json
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qerror as qe
from qerror.densities.entropy import entropy_by_quadrature
from qerror.limits.channels import solve
from qerror.limits.dual_bound import dual_bound
from qerror.limits.entropy_coded_formats import entropy_coded_format
from qerror.limits.reproduction import Kernel, best_masses, best_values
from qerror.limits.shannon import differential_entropy, shannon_bound
from qerror.limits.smooth import SmoothChannels
from qerror.limits.source import source_of

LN2 = math.log(2)
# A uniform quantizer of small steps with ideal coding against Shannon's limit: pi e / 6 (Gish and Pierce 1968).
GISH_PIERCE_DB = 10 * math.log10(math.pi * math.e / 6)
# Bracket of a rate-distortion function, dB.
PROMISED_DB = 1e-4


def half_line(pdf, points):
    """-E[log2 f] of a symmetric pdf by mpmath, 30 digits."""
    with mpmath.workdps(30):
        return -2 * mpmath.quad(lambda x: pdf(x) * mpmath.log(pdf(x), 2), points)


def student(df):
    with mpmath.workdps(30):
        df = mpmath.mpf(df)
        w2 = df - 2
        peak = mpmath.gamma((df + 1) / 2) / (mpmath.sqrt(mpmath.pi * w2) * mpmath.gamma(df / 2))
    return lambda x: peak * (1 + x**2 / w2) ** (-(df + 1) / 2)


def generalized(beta):
    with mpmath.workdps(30):
        beta = mpmath.mpf(beta)
        alpha = mpmath.sqrt(mpmath.gamma(1 / beta) / mpmath.gamma(3 / beta))
        peak = beta / (2 * alpha * mpmath.gamma(1 / beta))
    return lambda x: peak * mpmath.exp(-((x / alpha) ** beta))


INF = mpmath.inf
K = mpmath.pi / mpmath.sqrt(3)
ENTROPIES = {
    "gaussian": (qe.Gaussian(), lambda x: mpmath.npdf(x), [0, 1, 4, 10, 20]),
    "laplace": (qe.Laplace(), lambda x: mpmath.exp(-mpmath.sqrt(2) * x) / mpmath.sqrt(2), [0, 1, 4, 16, 60]),
    "logistic": (qe.Logistic(), lambda x: K * mpmath.exp(-K * x) / (1 + mpmath.exp(-K * x)) ** 2, [0, 1, 4, 16, 60]),
    "uniform": (qe.Uniform(), lambda x: 1 / (2 * mpmath.sqrt(3)), [0, mpmath.sqrt(3)]),
    "t 2.5": (qe.StudentT(2.5), student(2.5), [0, 1, 4, 1e2, 1e4, 1e8, 1e16, INF]),
    "t 5": (qe.StudentT(5), student(5), [0, 1, 4, 1e2, 1e4, 1e8, INF]),
    "t 90": (qe.StudentT(90), student(90), [0, 1, 4, 10, 100, INF]),
    "gg 0.5": (qe.GeneralizedGaussian(0.5), generalized(0.5), [0, 1e-6, 1e-3, 0.1, 1, 10, 100, 1000]),
    "gg 1.5": (qe.GeneralizedGaussian(1.5), generalized(1.5), [0, 0.1, 1, 4, 20, 60]),
    "gg 8": (qe.GeneralizedGaussian(8), generalized(8), [0, 1, 1.5, 2, 3]),
}


@pytest.mark.parametrize("name", ENTROPIES)
def test_entropy_in_closed_form_is_the_integral(name):
    density, pdf, points = ENTROPIES[name]
    exact = float(half_line(pdf, points))
    assert float(density.entropy) == pytest.approx(exact, abs=2e-14)
    assert entropy_by_quadrature(density) == pytest.approx(exact, abs=2e-13)


@pytest.mark.parametrize("df", [2.1, 39.999, 79.9, 80.1, 1e4, 1e9])
def test_entropy_of_student_t_by_mpmath(df):
    with mpmath.workdps(40):
        nu = mpmath.mpf(df)
        step = mpmath.digamma((nu + 1) / 2) - mpmath.digamma(nu / 2)
        exact = (nu + 1) / 2 * step + mpmath.log(mpmath.sqrt(nu - 2) * mpmath.beta(nu / 2, mpmath.mpf(1) / 2))
        exact = float(exact / mpmath.log(2))
    assert qe.StudentT(df).entropy == pytest.approx(exact, abs=4e-15)


def test_entropies_of_other_densities():
    assert qe.Histogram([1, 2, 0, 3], [0, 1, 3, 4, 5]).entropy == pytest.approx(
        -(1 / 6 * math.log2(1 / 6) + 1 / 3 * math.log2(1 / 6) + 0.5 * math.log2(0.5)), abs=1e-15
    )
    assert qe.Rectified(qe.Gaussian()).entropy == -math.inf
    assert qe.Empirical([1.0, 2.0]).entropy == -math.inf
    far = qe.Mixture([qe.Gaussian(-100, 1), qe.Gaussian(100, 3)], [0.25, 0.75])
    apart = 0.25 * 2 - 0.75 * math.log2(0.75) + qe.Gaussian().entropy + 0.75 * math.log2(3)
    assert far.entropy == pytest.approx(apart, abs=1e-12)
    assert qe.Gaussian(0, [1, 2]).entropy.tolist() == [qe.Gaussian().entropy, qe.Gaussian(0, 2).entropy]
    both = qe.Mixture([qe.Gaussian(0, [1, 2]), qe.Laplace()], [1, 1])
    assert both.entropy[1] == qe.Mixture([qe.Gaussian(0, 2), qe.Laplace()], [1, 1]).entropy
    assert differential_entropy(qe.Laplace()) == qe.Laplace().entropy


@given(st.sampled_from(sorted(ENTROPIES)), st.floats(-50, 50), st.floats(1e-3, 1e3))
@settings(max_examples=30, deadline=None)
def test_entropy_moves_with_the_scale(name, mean, std):
    kind = type(ENTROPIES[name][0])
    shape = {key: value for key, value in ENTROPIES[name][0]._parameters().items() if key not in ("mean", "std")}
    assert kind(**shape, mean=mean, std=std).entropy == pytest.approx(
        ENTROPIES[name][0].entropy + math.log2(std), abs=1e-12
    )


# -- the rate-distortion function ------------------------------------------------------------------------------------

BRACKETED = {
    "laplace": (0.1, 0.5, 1, 2, 4, 7, 10),
    "logistic": (0.1, 1, 3, 8),
    "uniform": (0.1, 0.7, 1, 2, 5, 10),
    "student-t:df=5": (0.5, 1, 4, 8),
    "generalized-gaussian:beta=1.5": (0.1, 1, 4, 10),
    "mixture(0.5*gaussian:mean=-1,std=0.3; 0.5*laplace:mean=2,std=0.1)": (1.3, 4),
}


def width_db(bracket):
    return 10 * math.log10(bracket[1] / bracket[0])


@pytest.mark.parametrize(("name", "bits"), [(name, b) for name, rates in BRACKETED.items() for b in rates])
def test_bracket_is_as_narrow_as_promised_and_above_shannon(name, bits):
    density = qe.density(name)
    limit = qe.rate_distortion(density, bits=bits)
    assert 0 <= width_db(limit.mse_bracket) <= PROMISED_DB
    assert limit.mse_bracket[0] <= limit.mse <= limit.mse_bracket[1] < float(density.std) ** 2
    assert limit.mse_bracket[1] >= shannon_bound(density, bits)
    assert limit.status is qe.Status.BRACKETED


def test_parts_that_lie_far_from_each_other():
    """At one bit the code tells the parts apart, and each is its variance; R(D) has a corner there."""
    narrow = qe.Mixture([qe.Gaussian(-1, 0.01), qe.Gaussian(1, 0.01)], [0.5, 0.5])
    for bits, mse in ((1, 1e-4), (2, 1e-4 / 4), (4, 1e-4 / 64)):
        limit = qe.rate_distortion(narrow, bits=bits)
        assert limit.mse == pytest.approx(mse, rel=3e-6)
        assert width_db(limit.mse_bracket) < PROMISED_DB
    far = qe.Mixture([qe.Gaussian(-100, 1), qe.Gaussian(100, 3)], [0.25, 0.75])
    # H(1/4) bits name the part; the others are shared out so that both have the same error (reverse water-filling).
    named = 0.25 * 2 - 0.75 * math.log2(0.75)
    limit = qe.rate_distortion(far, bits=4)
    assert limit.mse == pytest.approx(3 ** (2 * 0.75) * 4.0 ** (named - 4), rel=3e-6)
    assert width_db(limit.mse_bracket) < PROMISED_DB


def test_gaussian_is_a_closed_form():
    limit = qe.rate_distortion(qe.Gaussian(3, 2), bits=[0.5, 1, 4])
    assert limit.mse.tolist() == [2.0, 1.0, 4 / 256]
    assert limit.status is qe.Status.CLOSED_FORM
    assert limit.mse_bracket[0].tolist() == limit.mse_bracket[1].tolist() == limit.mse.tolist()
    assert qe.rate_distortion(qe.Gaussian(), mse=[0.25, 1.0, 2.0]).bits.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("bits", [0.1, 0.5, 1, 3, 7])
def test_the_solver_brackets_the_gaussian_closed_form(bits):
    """Through a mixture of one, which the closed form does not know."""
    limit = qe.rate_distortion(qe.Mixture([qe.Gaussian()], [1]), bits=bits)
    assert limit.mse_bracket[0] <= 4.0**-bits <= limit.mse_bracket[1]
    assert width_db(limit.mse_bracket) < PROMISED_DB


def blahut(x, p, y, width, rounds):
    """Blahut's own iteration on full matrices: rate (nats) and mse of the channel, and his lower bound of the rate."""
    distance = np.square(x[:, None] - y)
    kernel = np.exp(-distance / (2 * width**2))
    q = np.full(y.size, 1 / y.size)
    for _ in range(rounds):
        g = p @ (kernel / (kernel @ q)[:, None])
        q = q * g
    z = kernel @ q
    mse = float(p @ ((kernel * distance) @ q / z))
    g = p @ (kernel / z[:, None])
    # Between the points log g rises by no more than that: log g + y^2 / (2 v) is convex.
    line = -float(p @ np.log(z)) - math.log(g.max()) - (y[1] - y[0]) ** 2 / (8 * width**2)
    return float(-p @ np.log(z)) - mse / (2 * width**2), mse, line


@pytest.mark.parametrize(("name", "bits"), [("laplace", 0.5), ("laplace", 2), ("uniform", 1)])
def test_bracket_holds_against_blahuts_iteration(name, bits):
    """His upper value is never below our lower one, his lower one never above our upper one, on quantized sources."""
    density = qe.density(name)
    limit = qe.rate_distortion(density, bits=bits)
    width = math.sqrt(limit.mse)
    # The source in 1500 cells, each at its mean: its R(D) is below that of the density, by at most the lost variance.
    edges = np.linspace(float(density.quantile(1e-9)), float(density.isf(1e-9)), 1501)
    mass, first, second = density.cell_moments(edges, 0.5 * (edges[1:] + edges[:-1]))
    held = mass > 0
    mean = 0.5 * (edges[1:] + edges[:-1])[held] + first[held] / mass[held]
    lost = float((second[held] - first[held] ** 2 / mass[held]).sum())
    rate, mse, line = blahut(mean, mass[held] / mass[held].sum(), np.linspace(edges[0], edges[-1], 401), width, 150)
    # (sqrt(D) + sqrt(lost))^2 bounds the distortion towards the density; at the quantized source's own rate.
    ours = qe.rate_distortion(density, bits=rate / LN2)
    assert (math.sqrt(mse) + math.sqrt(lost)) ** 2 >= ours.mse_bracket[0]
    low = (line - rate) * 2 * width**2
    assert max(0.0, math.sqrt(max(low, 0.0)) - math.sqrt(lost)) ** 2 <= ours.mse_bracket[1]
    assert low / mse > 0.9, "his lower bound is near, so that the test can fail"


@pytest.mark.parametrize("name", ["laplace", "uniform"])
def test_dual_bound_holds_for_any_channel_and_any_distance_of_points(name):
    """The inequality behind it, on a lattice ten times as fine, for a channel that is far from the best."""
    density, width = qe.density(name), 0.3
    source = source_of(density, width)
    low, high = float(source.x.min()), float(source.x.max())
    y = np.linspace(low, high, math.ceil((high - low) / (3 * width)) + 1)
    q = np.full(y.size, 1 / y.size)
    z = Kernel(source.x, y, width).mixed(q)
    cost, _ = dual_bound(source.x, source.w, z, width, source.beyond)
    # With one G for all x, the greatest g, the cost is the logarithm of that; a local one costs no more.
    fine = np.linspace(y[0], y[-1], 6001)
    x, r = source.x.ravel(), (source.w / z).ravel()
    g = np.array([(r * np.exp(-0.5 * ((x - at) / width) ** 2)).sum() for at in fine[::3]])
    assert cost <= math.log(g.max()) + 1e-5
    # The line is below every point of the function.
    line = -float((source.w * np.log(z)).sum()) - cost
    for bits in (0.5, 1, 2):
        limit = qe.rate_distortion(density, bits=bits)
        assert line - limit.mse_bracket[1] / (2 * width**2) <= bits * LN2 + 1e-9


@pytest.mark.parametrize("wrong", [0.99, 1.01])
def test_a_limit_that_is_wrong_by_a_percent_is_seen(wrong):
    limit = qe.rate_distortion(qe.Laplace(), bits=1)
    assert not limit.mse_bracket[0] <= wrong * limit.mse <= limit.mse_bracket[1]


def test_best_masses_meet_their_conditions():
    density, width = qe.Laplace(), 0.4
    source = source_of(density, width)
    y = np.linspace(-12, 12, 61)
    kernel = Kernel(source.x, y, width)
    q = best_masses(kernel, source.w, np.full(61, 1 / 61), 1e-9)
    g = kernel.gathered(source.w / kernel.mixed(q))
    assert (g <= 1 + 1e-9).all()
    assert (q * (1 - g)).sum() <= 2e-9
    assert q.sum() == pytest.approx(source.inside, abs=1e-8)
    dense = np.exp(-0.5 * ((source.x[:, :, None] - y) / width) ** 2)
    assert kernel.mixed(q) == pytest.approx(dense @ q, rel=1e-9)


def test_laplace_at_small_rates():
    """Its R(D) leaves Shannon's bound at once: D(R) is below the bound of a Gaussian and far above its own."""
    rates = np.array([0.05, 0.2])
    limit = qe.rate_distortion(qe.Laplace(), bits=rates)
    assert (limit.mse < 4.0**-rates).all()
    assert (limit.mse > shannon_bound(qe.Laplace(), rates)).all()
    assert (np.diff(limit.mse) < 0).all()


@given(st.sampled_from(["laplace", "uniform", "logistic"]), st.floats(0.2, 4), st.floats(1.05, 2))
@settings(max_examples=3, deadline=None)
def test_the_function_is_convex_and_falls(name, bits, factor):
    density = qe.density(name)
    rates = np.array([bits, 0.5 * (1 + factor) * bits, factor * bits])
    mse = qe.rate_distortion(density, bits=rates)
    low, high = mse.mse_bracket
    assert (high[:-1] > low[1:]).all()
    assert low[1] <= 0.5 * (high[0] + high[2])
    back = qe.rate_distortion(density, mse=float(mse.mse[1]))
    assert back.bits_bracket[0] - 5e-5 <= rates[1] <= back.bits_bracket[1] + 5e-5


@pytest.mark.parametrize("width", [0.3, 0.05, 1e-3])
def test_a_smooth_channel_of_a_gaussian_by_its_closed_form(width):
    """Z is a Gaussian of variance 1 + v, and Y given x one of variance v / (1 + v) about x / (1 + v)."""
    rate, mse = SmoothChannels(qe.Gaussian()).at(width)
    v = width**2
    exact = v / (1 + v) + (v / (1 + v)) ** 2
    log_z = 0.5 * math.log(v / (1 + v)) - 0.5 / (1 + v)
    assert -1e-13 < mse / exact - 1 < 3e-9
    assert -1e-13 < rate + log_z + 0.5 * exact / v < 3e-9


@pytest.mark.parametrize("name", ["student-t:df=3", "logistic", "mixture(9*gaussian; 1*gaussian:std=10)"])
@pytest.mark.parametrize("given", [{"bits": 5.0}, {"mse": 1e-3}])
def test_smooth_channels_and_those_of_a_lattice_have_one_bracket(name, given, monkeypatch):
    density = qe.density(name)
    smooth = qe.rate_distortion(density, **given)
    monkeypatch.setattr("qerror.limits.rate_distortion._of_smooth", lambda *_, **__: None)
    lattice = qe.rate_distortion(density, **given)
    for one, other in ((smooth.mse_bracket, lattice.mse_bracket), (smooth.bits_bracket, lattice.bits_bracket)):
        assert max(one[0], other[0]) <= min(one[1], other[1])


def test_what_is_not_smooth_on_the_scale_of_the_kernel_is_seen():
    assert SmoothChannels(qe.Laplace()).at(0.01) is None
    assert SmoothChannels(qe.Uniform()).at(1e-3) is None
    assert SmoothChannels(qe.Mixture([qe.Gaussian(-1, 0.01), qe.Gaussian(1, 0.01)], [0.5, 0.5])).at(0.05) is None


@pytest.mark.parametrize("name", ["laplace", "generalized-gaussian:beta=0.5", "student-t:df=5"])
def test_values_that_are_moved_meet_their_conditions(name):
    """At every value g = 1 and g' = 0: the sums of the kernel over the nodes, one by one."""
    density = qe.density(name)
    source = source_of(density, 0.8)
    ends = np.linspace(source.x[0, 0], source.x[-1, -1], 2 + int(np.ptp(source.x)))
    mass = np.maximum(np.diff(density.cdf(ends)), 1e-12)
    y, q = best_values(source.x, source.w, 0.5 * (ends[1:] + ends[:-1]), mass, 0.8, 1e-7)
    x, w = source.x.ravel(), source.w.ravel()
    kernel = np.exp(-0.5 * ((x[:, None] - y) / 0.8) ** 2)
    ratio = kernel * (w / (kernel @ q))[:, None]
    assert q.sum() == pytest.approx(source.inside, abs=3e-7)
    assert (q * np.abs(ratio.sum(axis=0) - 1)).sum() < 3e-7
    assert (q * ((x[:, None] - y) * ratio).sum(axis=0) ** 2).sum() < 3e-8


@given(st.floats(-20, 20), st.floats(1e-3, 1e3))
@settings(max_examples=3, deadline=None)
def test_the_function_moves_with_scale_and_mean(mean, std):
    unit = qe.rate_distortion(qe.Laplace(), bits=1.3)
    moved = qe.rate_distortion(qe.Laplace(mean, std), bits=1.3)
    assert 10 * abs(math.log10(moved.mse / (std**2 * unit.mse))) < PROMISED_DB


def test_points_of_a_sample():
    """A discrete source: nothing is lost from its entropy on, and two equal values are a coin."""
    coin = qe.Empirical([-1.0, 1.0])
    assert qe.rate_distortion(coin, bits=1).mse == 0.0
    # Csiszar's bound and Blahut's iteration on a fine lattice of reproduction values.
    rate, mse, line = blahut(np.array([-1.0, 1.0]), np.array([0.5, 0.5]), np.linspace(-1, 1, 401), 0.7, 4000)
    limit = qe.rate_distortion(coin, bits=rate / LN2)
    assert limit.mse_bracket[0] <= mse * (1 + 1e-9)
    assert limit.mse_bracket[1] >= (line - rate) * 2 * 0.7**2 * (1 - 1e-9)
    assert width_db(limit.mse_bracket) < 1e-3
    assert qe.rate_distortion(qe.Empirical([2.0, 2.0]), bits=0.5).mse == 0.0


def test_sample_is_near_its_density_and_gathered_values_are_near_the_sample():
    x = np.random.default_rng(3).laplace(0, 1 / math.sqrt(2), 200_000)
    sample, exact = (qe.rate_distortion(d, bits=[0.5, 2.0]) for d in (qe.Empirical(x), qe.Laplace()))
    assert sample.mse == pytest.approx(exact.mse, rel=0.02)
    few = x[:2000]
    # The Gauss rules of cells integrate the kernel of that width as the values do.
    source = source_of(qe.Empirical(few), 0.3)
    assert (source.w > 0).sum() < 400
    for at in (-1.0, 0.1, 2.0):
        kernel = np.exp(-0.5 * ((source.x - at) / 0.3) ** 2)
        assert (source.w * kernel).sum() == pytest.approx(np.exp(-0.5 * ((few - at) / 0.3) ** 2).mean(), rel=1e-7)


def test_solve_says_what_it_reached():
    point = solve(qe.Uniform(), 0.25, 1e-4)
    assert 0 <= point.gap <= 1e-4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "give one of bits and mse"),
        ({"bits": 1, "mse": 0.1}, "give one of bits and mse"),
        ({"bits": 0}, "bits must be positive"),
        ({"bits": 13}, "bits must be from 0.01 to 12, got 13"),
        ({"mse": -1.0}, "mse must be positive"),
    ],
)
def test_bad_rates(arguments, words):
    with pytest.raises(ValueError, match=words):
        qe.rate_distortion(qe.Laplace(), **arguments)


def test_arrays_of_densities_are_refused():
    many = qe.Laplace(0, [1, 2])
    for call in (
        lambda: qe.rate_distortion(many, bits=1),
        lambda: qe.entropy_coded(many, bits=1),
        lambda: qe.loss_ladder(many, "int4"),
        lambda: entropy_coded_format(many, "int4"),
    ):
        with pytest.raises(ValueError, match=r"density must have shape \(\), got \(2,\)"):
            call()


# -- entropy-coded quantizers ----------------------------------------------------------------------------------------


def gaussian_uniform(step, shift):
    """Entropy and mse of uniform thresholds with means as levels on a unit Gaussian, by closed forms of math.erf."""
    edges = [step * (k + 0.5 + shift) for k in range(-math.ceil(12 / step), math.ceil(12 / step))]
    cdf = [0.5 * math.erfc(-t / math.sqrt(2)) for t in edges]
    pdf = [math.exp(-t * t / 2) / math.sqrt(2 * math.pi) for t in edges]
    cells = zip([0.0, *cdf], [*cdf, 1.0], [0.0, *pdf], [*pdf, 0.0], strict=True)
    parts = [(b - a, f - g) for a, b, f, g in cells if b - a > 1e-14]
    return -sum(p * math.log2(p) for p, _ in parts), 1 - sum(m * m / p for p, m in parts)


@pytest.mark.parametrize("bits", [0.5, 1, 2, 3])
def test_uniform_thresholds_of_a_gaussian_by_closed_forms(bits):
    """The same entropy by bisection over the step, with formulas of its own."""
    found = qe.entropy_coded(qe.Gaussian(), bits=bits)
    reached = []
    for shift in (0.0, 0.5):
        low, high = 0.05, 50.0
        if gaussian_uniform(high, shift)[0] > bits:
            continue
        for _ in range(80):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if gaussian_uniform(middle, shift)[0] > bits else (low, middle)
        reached.append(gaussian_uniform(high, shift)[1])
    assert found.uniform_mse == pytest.approx(min(reached), rel=1e-6)
    assert bits - 1e-6 <= found.uniform_bits <= bits


@pytest.mark.parametrize("name", ["gaussian", "logistic"])
def test_high_rates_are_a_quarter_bit_from_shannon(name):
    density = qe.density(name)
    found = qe.entropy_coded(density, bits=7)
    behind = 10 * math.log10(found.mse / shannon_bound(density, 7))
    assert behind == pytest.approx(GISH_PIERCE_DB, abs=2e-3)
    assert behind / (20 * math.log10(2)) == pytest.approx(0.2546, abs=5e-4)


@pytest.mark.parametrize("bits", [0.3, 1, 2.5])
@pytest.mark.parametrize("name", ["gaussian", "laplace", "student-t:df=5"])
def test_levels_and_thresholds_meet_their_conditions(name, bits):
    density = qe.density(name)
    found = qe.entropy_coded(density, bits=bits)
    assert bits - 1e-4 <= found.bits <= bits + 1e-9
    assert found.mse <= found.uniform_mse
    ends = np.concatenate([[-np.inf], found.thresholds, [np.inf]])
    mass, first, second = density.cell_moments(ends, found.levels)
    assert first == pytest.approx(np.zeros(mass.size), abs=1e-12)
    assert found.mse == pytest.approx(second.sum(), rel=1e-12)
    assert found.bits == pytest.approx(-(mass * np.log2(mass)).sum(), abs=1e-12)
    # (t - q)^2 - slope log2 P is the same on both sides of every threshold that counts, for one slope.
    t, q, inner = found.thresholds, found.levels, np.minimum(mass[1:], mass[:-1]) > 1e-4
    left, right = ((t - q[:-1]) ** 2 - (t - q[1:]) ** 2)[inner], np.diff(-np.log2(mass))[inner]
    slope = (left @ right) / (right @ right)
    assert left == pytest.approx(slope * right, abs=0.02 * found.mse)
    assert slope == pytest.approx(2 * LN2 * found.mse, rel=0.6)
    # Within the limits, and better than Lloyd-Max of as many bits.
    assert found.mse >= qe.rate_distortion(density, bits=found.bits).mse_bracket[0]


def one_cell_shorter(bits):
    """Cells of one length and a last one that is no longer, on a uniform density of unit variance: Gyorgy and Linder.

    They prove (2000, theorem 1) that these are the best quantizers of that entropy.
    """
    count = math.ceil(2**bits - 1e-9)

    def entropy(a):
        rest = 1 - (count - 1) * a
        return -(count - 1) * a * math.log2(a) - (rest * math.log2(rest) if rest > 0 else 0.0)

    low, high = 1 / count, 1 / (count - 1)
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if entropy(middle) > bits else (low, middle)
    return (count - 1) * high**3 + (1 - (count - 1) * high) ** 3


@pytest.mark.parametrize("bits", [0.3, 0.7, 1, 1.58, 2.5, 3.3])
def test_entropy_coding_of_a_uniform_density_is_the_proven_best(bits):
    found = qe.entropy_coded(qe.Uniform(), bits=bits)
    assert found.mse == pytest.approx(one_cell_shorter(bits), rel=1e-6)
    assert found.mse >= one_cell_shorter(bits) * (1 - 1e-9)


def laplace_cells(t, d):
    """Entropy and mse of the thresholds +-(t + k d) on a Laplace density of unit variance, by geometric series."""
    b = 1 / math.sqrt(2)
    inner, q = math.exp(-t / b), math.exp(-d / b)
    bits = -(1 - inner) * math.log2(1 - inner) - inner * math.log2(inner)
    bits += inner * (1 - math.log2(1 - q) - q / (1 - q) * math.log2(q))
    centre = 2 * b * b - inner * (t * t + 2 * b * t + 2 * b * b)
    mean = b - d * q / (1 - q)
    second = (2 * b * b - q * (d * d + 2 * b * d + 2 * b * b)) / (1 - q)
    return bits, centre + inner * (second - mean**2)


@pytest.mark.parametrize("bits", [0.5, 1, 2, 3])
def test_entropy_coding_of_a_laplace_density_has_equal_cells_but_one(bits):
    """The structure of the best one: Sullivan, IEEE Trans. Inf. Theory 42 (1996); two lengths are all that is free."""

    def least(t):
        low, high = 1e-3, 40.0
        if laplace_cells(t, high)[0] > bits:
            return math.inf
        for _ in range(80):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if laplace_cells(t, middle)[0] > bits else (low, middle)
        return laplace_cells(t, high)[1]

    best = min(least(t) for t in np.linspace(0.02, 3, 1500))
    found = qe.entropy_coded(qe.Laplace(), bits=bits)
    # A scan in steps of 0.002 is above the best by less than this.
    assert best * (1 - 1e-5) <= found.mse <= best * (1 + 1e-6)


def test_entropy_coding_of_a_bounded_density_and_of_a_sample():
    uniform = qe.entropy_coded(qe.Uniform(), bits=3)
    assert uniform.mse == pytest.approx(1 / 64, rel=1e-12)
    x = np.random.default_rng(0).standard_normal(5000)
    sample = qe.entropy_coded(qe.Empirical(x), bits=2)
    assert 1.99 < sample.bits <= 2
    assert sample.mse == pytest.approx(qe.entropy_coded(qe.Gaussian(), bits=2).mse, rel=0.05)
    with pytest.raises(ValueError, match=r"bits must be one number from 0.01 to 12, got \[1, 2\]"):
        qe.entropy_coded(qe.Gaussian(), bits=[1, 2])


def test_a_coded_format_and_its_hull():
    curve = entropy_coded_format(qe.Gaussian(), "int4")
    hull = curve.hull
    assert curve.bits == pytest.approx(qe.code_entropy(qe.Gaussian(), "int4", curve.scale), abs=0)
    assert curve.mse == pytest.approx(qe.quantization_error(qe.Gaussian(), "int4", curve.scale).mse, abs=0)
    # Convex and falling, and no point below it.
    slopes = np.diff(curve.mse[hull]) / np.diff(curve.bits[hull])
    assert (np.diff(slopes) > 0).all()
    assert (slopes < 0).all()
    inside = curve.bits <= curve.bits[hull[-1]]
    assert (curve.mse[inside] >= curve.least_mse(curve.bits[inside]) * (1 - 1e-12)).all()
    best = qe.optimal_scale(qe.Gaussian(), "int4").error.mse
    assert curve.least_mse(4.0) == pytest.approx(best, rel=1e-9)
    # Never below the best entropy-coded quantizer.
    for bits in (1.0, 2.0, 3.0):
        assert curve.least_mse(bits) >= qe.entropy_coded(qe.Gaussian(), bits=bits).mse * (1 - 1e-6)
    assert math.isnan(curve.least_mse(-1.0))


# -- the ladder ------------------------------------------------------------------------------------------------------


def test_the_ladder_of_int4_on_a_gaussian():
    """Each rung from its own source: DESIGN's and Max's tables, and 6.02 dB a bit."""
    ladder = qe.loss_ladder(qe.Gaussian(), "int4", 0.25)
    mse = [rung.mse for rung in ladder.rungs]
    assert mse[0] == 4.0**-4
    assert mse[2] == pytest.approx(0.009501008008192, rel=1e-12)
    assert mse[3] == pytest.approx(0.0118640377104254, rel=1e-12)
    assert [rung.name for rung in ladder.rungs] == ["Shannon", "entropy-coded", "Lloyd-Max", "best scale", "in use"]
    assert ladder.rungs[3].status is qe.Status.EXACT
    assert ladder.lost_db[-1] == pytest.approx(float(qe.excess_db(qe.Gaussian(), "int4", 0.25)), abs=1e-12)
    assert "in all" in repr(ladder)
    assert json.loads(json.dumps(ladder.to_dict()))["rungs"][3]["status"] == "EXACT"
    assert ladder._repr_html_().count("<tr>") == 6


@given(
    st.sampled_from(["gaussian", "laplace", "uniform", "logistic"]),
    st.sampled_from(["int3", "int4", "int4_midrise", "e2m1", "nf4", "ternary"]),
    st.floats(0.05, 2.0),
)
@settings(max_examples=6, deadline=None)
def test_steps_are_not_negative_and_add_up(name, grid, scale):
    ladder = qe.loss_ladder(qe.density(name), grid, scale)
    assert min(ladder.lost_db) >= -ladder.error_db - 1e-9
    whole = 10 * math.log10(ladder.rungs[-1].mse / ladder.rungs[0].mse)
    assert ladder.total_db == pytest.approx(whole, abs=1e-12)
    assert sum(ladder.lost_db) == pytest.approx(ladder.total_db, abs=1e-12)


@pytest.mark.parametrize("form", ["mxfp4", "nf4_g64_bf16"])
def test_ladders_of_blocks(form):
    ladder = qe.loss_ladder(qe.Gaussian(), form)
    assert ladder.bits == qe.block_format(form).bits_per_value()
    assert min(ladder.lost_db) >= 0
    # The octave mean of MXFP4's rule: DESIGN section 6.
    if form == "mxfp4":
        assert ladder.sqnr_db[-1] == pytest.approx(18.745, abs=6e-4)


def test_ladders_of_data():
    x = np.random.default_rng(1).standard_normal((64, 64))
    ladder = qe.loss_ladder(x, "int4")
    assert ladder.rungs[-1].mse == pytest.approx(qe.fit(x, "int4").total.mse, rel=1e-12)
    assert ladder.rungs[2].status is qe.Status.EXACT
    assert min(ladder.lost_db) >= -ladder.error_db
    blocks = qe.loss_ladder(x, "mxfp4")
    assert blocks.rungs[-1].mse == pytest.approx(qe.evaluate(x, "mxfp4").total.mse, rel=1e-12)
    assert all(a.mse <= b.mse for a, b in itertools.pairwise(blocks.rungs))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: qe.loss_ladder("gaussian", "int4"), "qerror.density"),
        (lambda: qe.loss_ladder(qe.Gaussian(), "int16"), "at most 12 bits a value, got 16"),
        (lambda: qe.loss_ladder(qe.Gaussian(), "mxfp4", shift=0.1), "shift must be 0"),
        (lambda: qe.loss_ladder(np.ones((2, 32)), "mxfp4", 0.1), "left out"),
        (lambda: qe.loss_ladder(qe.Gaussian(), "int4", -1.0), "scale must be positive"),
    ],
)
def test_bad_ladders(call, words):
    with pytest.raises(ValueError, match=words):
        call()
