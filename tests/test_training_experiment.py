"""The experiment in its quick mode, and the statistics that it reports."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sklearn", reason="scikit-learn, needed with torch, is not installed")

from click.testing import CliRunner  # noqa: E402

from qerror.training.experiment import (  # noqa: E402
    Case,
    Record,
    against_minmax,
    cases,
    final_accuracy,
    judged,
    run_study,
)
from qerror.training.experiment import figures as draw  # noqa: E402
from qerror.training.experiment.__main__ import main  # noqa: E402


@pytest.fixture(scope="module")
def records():
    return run_study(cases(["int4"], ["minmax", "iterative", "octav"], ["mlp"]), seeds=3, shorten=2, workers=1)


def by(records, **wanted):
    return [r for r in records if all(getattr(r.case, key) == value for key, value in wanted.items())]


@pytest.mark.slow
def test_quick_mode():
    result = CliRunner().invoke(main, ["--quick"])
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines()[2:7]] == sorted(
        ["analytic", "iterative", "lsq", "octav", "optimal"]
    )
    assert "46 cases in" in result.output


def test_networks_learn(records):
    for record in by(records, start="scratch"):
        assert record.accuracy[-1].min() > 0.85
        assert record.loss[-5:].mean() < 0.5 * record.loss[:5].mean()


def test_prediction_from_the_weights_is_exact(records):
    for record in by(records, grid="int4"):
        np.testing.assert_allclose(record.measured_db, record.empirical_db, atol=0.001)


def test_a_seed_is_the_same_network_whatever_is_trained_beside_it(records):
    alone = run_study(cases(["int4"], ["minmax"], ["mlp"])[:1], seeds=1, shorten=2, workers=1)
    mine, theirs = by(alone, rule="minmax")[0], by(records, rule="minmax", start="scratch", activations=False)[0]
    # The sums of a batched product may be ordered otherwise; the first steps show what is computed.
    np.testing.assert_allclose(mine.loss[:3, 0], theirs.loss[:3, 0], rtol=1e-5)


def record(rule, loss, accuracy):
    case = Case("mlp", "scratch", False, "int4", rule)
    empty = np.zeros((2, 1, len(accuracy)))
    return Record(case, ("1.weight",), np.asarray(loss, float), np.stack([accuracy, accuracy]), empty, empty, empty)


def test_differences_are_within_seeds():
    """Accuracies 0.1, 0.2, 0.3 higher in seeds of very different level: 20 points with the error of 10, 20 and 30."""
    base, gain = np.array([0.2, 0.5, 0.6]), np.array([0.1, 0.2, 0.3])
    pair = [record("minmax", np.ones((8, 3)), base), record("lsq", np.ones((8, 3)), base + gain)]
    mean, error, count = against_minmax(pair, "lsq", "accuracy")
    assert (mean, error, count) == (pytest.approx(20), pytest.approx(10 / np.sqrt(3)), 1)
    assert against_minmax(pair, "octav", "accuracy")[2] == 0
    # Student's t of 2 degrees of freedom is 4.30 at 95 %: 20 points are less than 4.30 * 10 / sqrt(3) = 24.8.
    assert judged(pair, "lsq", "accuracy") == (0, 1, 0)
    sure = [pair[0], record("lsq", np.ones((8, 3)), base - 0.1 - 0.01 * gain)]
    assert judged(sure, "lsq", "accuracy") == (0, 0, 1)
    row = final_accuracy(pair)[0]
    assert row["accuracy"] == pytest.approx(100 * base.mean())


def test_roughness_is_the_noise_upon_a_smooth_curve():
    rng = np.random.default_rng(0)
    curve = np.exp(-np.linspace(0, 3, 4000))[:, None]
    found = record("minmax", curve + 0.01 * rng.standard_normal((4000, 2)), np.zeros(2)).roughness()
    # 2000 dependent squares: about 3 %.
    np.testing.assert_allclose(found, 0.01, rtol=0.1)


def test_figures(records):
    case = Case("mlp", "scratch", False, "int4", "minmax")
    rules = ["minmax", "iterative", "octav"]
    assert [t.get_text() for t in draw.loss_curves(records, case).get_legend().get_texts()][1:] == rules
    assert len(draw.sqnr_over_training(records, case, 0).containers) == 3
    assert len(draw.predicted_against_measured(records).lines) == 4
    ax = draw.accuracy_against_bits(records, "mlp", "scratch", activations=True)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["int4\n4 bits"]
