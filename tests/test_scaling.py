"""The scaling law is found again from losses that follow it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptlib.corpora.scaling import ScalingLaw, fit

N, D = (values.ravel() for values in np.meshgrid([3e4, 1e5, 3e5, 1e6], [1e5, 3e5, 1e6]))


@given(
    E=st.floats(0.5, 2.0), alpha=st.floats(0.2, 0.8), beta=st.floats(0.2, 0.8),
    at_smallest=st.floats(0.2, 2.0),
)
@settings(deadline=None, max_examples=15)
def test_the_law_predicts_larger_runs_from_exact_losses(E, alpha, beta, at_smallest):
    true = ScalingLaw(E, at_smallest * 3e4 ** alpha, alpha, at_smallest * 1e5 ** beta, beta)
    law = fit(N, D, [true.loss(n, d) for n, d in zip(N, D, strict=True)])
    for n, d in ((3e6, 1e6), (1e6, 3e6), (3e6, 3e6)):
        assert law.loss(n, d) == pytest.approx(true.loss(n, d), abs=0.02)


def test_exponents_of_the_grid_are_found_exactly():
    true = ScalingLaw(1.5, 30.0, 0.4, 90.0, 0.5)
    law = fit(N, D, [true.loss(n, d) for n, d in zip(N, D, strict=True)])
    for name in ("E", "A", "alpha", "B", "beta"):
        assert getattr(law, name) == pytest.approx(getattr(true, name), rel=1e-6)


def test_a_larger_model_and_more_text_never_predict_a_higher_loss():
    rng = np.random.default_rng(0)
    law = fit(N, D, 2 + 20 / N ** 0.4 + rng.normal(0, 0.02, len(N)))
    assert law.loss(2e6, 1e6) <= law.loss(1e6, 1e6) and law.loss(1e6, 2e6) <= law.loss(1e6, 1e6)


@pytest.mark.parametrize(("arguments", "fragment"), [
    ((N, D, N[:3]), "and 3 losses: give equally many, and at least six"),
    ((N[:5], D[:5], N[:5]), "at least six"),
    ((-N, D, N), "parameters should be numbers above 0"),
    ((N, D, ["a"] * 12), "losses"),
    ((N, D, N), "no law with positive terms fits these losses"),
], ids=["different lengths", "too few", "negative", "words", "losses that rise with size"])
def test_bad_values_are_named(arguments, fragment):
    with pytest.raises(ValueError, match=fragment):
        fit(*arguments)
