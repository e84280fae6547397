import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats

from fedreid_mpi.algorithms.accountant import epsilon_after
from fedreid_mpi.algorithms.differential_privacy import (
    clip_update,
    draw_noise,
    noise_scale,
    noise_to_signal,
)
from fedreid_mpi.algorithms.participants import select_poisson


def test_a_long_update_is_scaled_to_the_bound():
    update = torch.tensor([3.0, 0.0, -4.0])
    clip_update(update, 2.5)
    torch.testing.assert_close(update, torch.tensor([1.5, 0.0, -2.0]), rtol=1e-6, atol=0)


def test_an_update_within_the_bound_is_left_alone():
    update = torch.tensor([3.0, 0.0, -4.0])
    clip_update(update, 5.0)
    assert update.tolist() == [3.0, 0.0, -4.0]


@pytest.mark.parametrize("length", [1, 7, 1000, 300_001])
def test_no_clipped_update_is_longer_than_the_bound(length):
    for seed in range(20):
        random = np.random.default_rng(seed)
        values = random.standard_normal(length) * 10.0 ** random.uniform(-6, 2, length)
        update = torch.from_numpy((values + 1e-3).astype(np.float32))
        bound = 1e-4 * float(np.linalg.norm(update.numpy().astype(np.float64)))
        clip_update(update, bound)
        norm = np.linalg.norm(update.numpy().astype(np.float64))
        assert bound * (1 - 1e-6) < norm <= bound


def test_what_is_not_finite_stays_so():
    for bad in (math.nan, math.inf):
        update = torch.tensor([1.0, bad])
        clip_update(update, 1.0)
        assert not update.isfinite().all()


def test_the_noise_is_normal_seeded_and_of_its_scale():
    drawn = draw_noise(200_000, 3.0, 5, 2, "parameters")
    assert (drawn == draw_noise(200_000, 3.0, 5, 2, "parameters")).all()
    assert stats.kstest(drawn / 3.0, "norm").pvalue > 1e-4
    others = [
        draw_noise(200_000, 3.0, *each)
        for each in ((6, 2, "parameters"), (5, 3, "parameters"), (5, 2, "statistics"))
    ]
    for other in others:
        assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.01


def test_two_parts_together_are_one_mechanism_with_the_multiplier():
    """Their losses add up: 1/z² = Σ (bound / scale)²."""
    for bounds in ((1.0,), (0.5, 20.0)):
        spent = sum((bound / noise_scale(1.7, bound, len(bounds))) ** 2 for bound in bounds)
        assert spent == pytest.approx(1 / 1.7**2)


def test_the_ratio_of_noise_to_signal_by_hand():
    """Nine clients, 23.5 million values, one part: 10.4 · √23,500,000 / 9 = 5,602 times the signal."""
    assert noise_to_signal(10.4, 9, 23_500_000, 1) == pytest.approx(5601.7, abs=0.5)
    assert noise_to_signal(10.4, 9, 23_500_000, 2) == pytest.approx(5601.7 * math.sqrt(2), abs=0.5)


def test_poisson_sampling_takes_each_client_by_itself():
    rounds = 4000
    taken = np.zeros((rounds, 6))
    for round in range(1, rounds + 1):
        drawn = select_poisson(6, 1.5, 0, round)
        assert len(set(drawn)) == len(drawn)
        taken[round - 1, list(drawn)] = 1
    assert np.abs(taken.mean(0) - 0.25).max() < 5 * math.sqrt(0.25 * 0.75 / rounds)
    assert np.abs(np.corrcoef(taken.T) - np.eye(6)).max() < 5 / math.sqrt(rounds)
    counts = np.bincount(taken.sum(1).astype(int), minlength=7) / rounds
    assert np.abs(counts - stats.binom.pmf(range(7), 6, 0.25)).max() < 0.03
    assert counts[0] > 0.1  # rounds in which nobody trains


def test_poisson_sampling_of_all_takes_all_in_a_seeded_order():
    drawn = {select_poisson(6, 6, 0, round) for round in range(1, 9)}
    assert {tuple(sorted(each)) for each in drawn} == {(0, 1, 2, 3, 4, 5)}
    assert len(drawn) > 4


def test_poisson_sampling_draws_what_it_always_drew():
    """Pinned: a run can be repeated with a later version."""
    assert [select_poisson(9, 4.0, seed, 7) for seed in (3, 4)] == [(6, 1, 5, 3), (0, 1, 7, 8)]


def test_noise_is_what_it_always_was():
    """Pinned as well; it is not a stream that anything else is drawn from."""
    drawn = [draw_noise(2, 2.0, 3, 7, part).tolist() for part in ("parameters", "statistics")]
    np.testing.assert_allclose(drawn, [[-1.47301369, -2.99829372], [1.45576916, 2.60397525]], rtol=1e-8)


# Accountants of our own.


def gaussian_epsilon(mu, delta):
    """ε of the Gaussian mechanism in closed form (Balle and Wang, ICML 2018, theorem 5)."""

    def excess(epsilon):
        first = stats.norm.cdf(mu / 2 - epsilon / mu)
        return first - math.exp(epsilon + stats.norm.logcdf(-mu / 2 - epsilon / mu)) - delta

    return optimize.brentq(excess, 0, 500)


@pytest.mark.parametrize("delta", [1e-5, 1e-3])
@pytest.mark.parametrize(("rounds", "multiplier"), [(1, 1.0), (12, 2.0), (300, 10.4), (300, 40.0)])
def test_epsilon_with_all_clients_is_that_of_the_closed_form(rounds, multiplier, delta):
    expected = gaussian_epsilon(math.sqrt(rounds) / multiplier, delta)
    assert epsilon_after(rounds, 1.0, multiplier, delta) == pytest.approx(expected, rel=2e-3, abs=1e-3)


def test_the_example_of_the_documentation():
    assert epsilon_after(300, 1.0, 10.4, 1e-5) == pytest.approx(8.0, abs=0.01)


def losses(sampling, multiplier, removed, step, reach):
    """Distribution of the privacy loss of one round, to the nearest point of a grid.

    The outputs are those of one coordinate: N(0, z²) without the client, and with it the mixture
    (1 - q) N(0, z²) + q N(1, z²) (Mironov, Talwar and Zhang, 2019, theorem 4).
    """

    def loss(x):
        mixture = np.log1p(sampling * np.expm1((2 * x - 1) / (2 * multiplier**2)))
        return mixture if removed else -mixture

    x = np.linspace(-14 * multiplier, 14 * multiplier + 1, 2_000_001)
    without = stats.norm.cdf(x, 0, multiplier)
    mass = np.diff(
        (1 - sampling) * without + sampling * stats.norm.cdf(x, 1, multiplier) if removed else without
    )
    places = np.rint(loss((x[:-1] + x[1:]) / 2) / step).astype(int) + reach
    assert places.min() >= 0
    assert places.max() < 2 * reach
    return np.bincount(places, mass, 2 * reach)


def composed_epsilon(rounds, sampling, multiplier, delta, step=2e-4, reach=1 << 17):
    """ε by convolving the loss's distribution with itself (Koskela, Jälkö and Honkela, AISTATS 2020)."""
    worst = 0.0
    for removed in (True, False):
        spectrum = np.fft.rfft(np.fft.ifftshift(losses(sampling, multiplier, removed, step, reach)))
        mass = np.fft.fftshift(np.fft.irfft(spectrum**rounds)).clip(0)
        loss = (np.arange(2 * reach) - reach) * step

        def excess(epsilon, loss=loss, mass=mass):
            above = loss > epsilon
            return -(mass[above] * np.expm1(epsilon - loss[above])).sum() - delta

        worst = max(worst, optimize.brentq(excess, 0, loss[-1]))
    return worst


def renyi_epsilon(rounds, sampling, multiplier, delta):
    """ε by moments: Rényi divergence by numerical integration, and the usual conversion (Mironov, 2017)."""

    def moment(order, removed):
        def log_density(x):
            with_client = np.logaddexp(
                math.log1p(-sampling) + stats.norm.logpdf(x, 0, multiplier) if sampling < 1 else -np.inf,
                math.log(sampling) + stats.norm.logpdf(x, 1, multiplier),
            )
            without = stats.norm.logpdf(x, 0, multiplier)
            p, q = (with_client, without) if removed else (without, with_client)
            return order * p + (1 - order) * q

        reach = 12 * multiplier + order + 1
        return integrate.quad(lambda x: math.exp(log_density(x)), -reach, reach, limit=500)[0]

    best = math.inf
    for order in (2, 3, 4, 6, 8, 12, 16, 24, 32):
        divergence = max(math.log(moment(order, removed)) / (order - 1) for removed in (True, False))
        best = min(best, rounds * divergence + math.log(1 / delta) / (order - 1))
    return best


GRID = [
    (1, 0.5, 1.0, 1e-5),
    (12, 0.25, 1.0, 1e-3),
    (40, 0.1, 0.8, 1e-3),
    (100, 0.1, 1.5, 1e-5),
    (300, 0.05, 2.0, 1e-5),
    (300, 0.5, 8.0, 1e-5),
    (1000, 0.01, 1.0, 1e-5),
]


@pytest.mark.parametrize(("rounds", "sampling", "multiplier", "delta"), GRID)
def test_epsilon_with_sampling_is_that_of_two_accountants_of_our_own(rounds, sampling, multiplier, delta):
    epsilon = epsilon_after(rounds, sampling, multiplier, delta)
    assert epsilon == pytest.approx(composed_epsilon(rounds, sampling, multiplier, delta), rel=5e-3)
    assert epsilon < renyi_epsilon(rounds, sampling, multiplier, delta)


def test_no_rounds_cost_nothing_and_no_noise_bounds_nothing():
    assert epsilon_after(0, 0.5, 1.0, 1e-5) == 0
    assert epsilon_after(3, 0.5, 0.0, 1e-5) == math.inf
