"""Scores against their formulas written out, the limits of FS-KNNS, and the published switches."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from scipy.stats import entropy
from sklearn.covariance import LedoitWolf

from photopic.core.errors import DataError, PhotopicError
from photopic.guard.open_set import (
    KNN,
    MSP,
    SCORERS,
    SIRC,
    SSD,
    Doctor,
    Energy,
    Entropy,
    FewShotKNN,
    FewShotKNNS,
    Mahalanobis,
    MaxLogit,
    NotFittedDetectorError,
    ReAct,
    RelativeMahalanobis,
    ViM,
    scorer,
)

RNG = np.random.default_rng(0)
WIDTH, CLASSES = 8, 4
HEAD = (RNG.normal(size=(CLASSES, WIDTH)), RNG.normal(size=CLASSES))
CLEAN = np.abs(RNG.normal(size=(200, WIDTH))) + np.repeat(np.eye(CLASSES, WIDTH) * 3, 50, axis=0)
LABELS = np.repeat(np.arange(CLASSES), 50)
SHOTS = np.abs(RNG.normal(size=(20, WIDTH))) + np.eye(WIDTH)[7] * 3
TEST = np.abs(RNG.normal(size=(60, WIDTH)))
X, Y = np.concatenate([CLEAN, SHOTS]), np.append(LABELS, [-1] * 20)


def logits(rows: np.ndarray) -> np.ndarray:
    return rows @ HEAD[0].T + HEAD[1]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def kth(rows: np.ndarray, bank: np.ndarray, k: int) -> np.ndarray:
    """By brute force: every similarity, sorted."""
    return np.array([sorted((float(a @ b) for b in unit(bank)), reverse=True)[k - 1] for a in unit(rows)])


def test_scores_of_logits_are_their_formulas() -> None:
    z = logits(TEST)
    p = softmax(z, axis=1)
    expected = {
        MSP: 1 - p.max(1),
        MaxLogit: -z.max(1),
        Energy: -logsumexp(z, axis=1),
        Doctor: (1 - (p**2).sum(1)) / (p**2).sum(1),
        Entropy: entropy(p, axis=1),
    }
    for kind, values in expected.items():
        found = kind().fit(logits(CLEAN)).rejection_scores(z)
        np.testing.assert_allclose(found, values, atol=1e-12, err_msg=kind.__name__)
        through_head = kind(head=HEAD).fit(CLEAN).rejection_scores(TEST)
        np.testing.assert_allclose(through_head, found, atol=1e-12)


def test_very_sure_samples_still_differ() -> None:
    sure = [[60.0, 0.0], [50.0, 0.0], [40.0, 0.0]]
    for kind in (MSP, Doctor, Entropy):
        found = kind().fit(sure).rejection_scores(sure)
        assert found[0] < found[1] < found[2], kind
    assert MSP().fit(sure).rejection_scores([[60.0, 0.0]])[0] == pytest.approx(np.exp(-60), rel=1e-12)


def test_neighbours_are_those_of_brute_force() -> None:
    for k in (1, 5):
        np.testing.assert_allclose(KNN(k=k).fit(CLEAN).rejection_scores(TEST), 1 - kth(TEST, CLEAN, k), atol=1e-12)
    expected = 1 - kth(TEST, CLEAN, 5) + kth(TEST, SHOTS, 5)
    np.testing.assert_allclose(FewShotKNN().fit(X, Y).rejection_scores(TEST), expected, atol=1e-12)


def test_the_threshold_of_neighbours_leaves_each_sample_out() -> None:
    detector = KNN(contamination=0.1).fit(CLEAN)
    alone = [1 - kth(CLEAN[[i]], np.delete(CLEAN, i, 0), 1)[0] for i in range(len(CLEAN))]
    assert -detector.offset_ == pytest.approx(np.quantile(alone, 0.9))
    assert (detector.predict(CLEAN) == 1).all()  # each is its own neighbour


def test_mahalanobis_distances_are_those_of_the_inverse() -> None:
    means = np.stack([CLEAN[each == LABELS].mean(0) for each in range(CLASSES)])
    inside = np.cov((CLEAN - means[LABELS]).T, bias=True)
    apart = TEST[:, None] - means
    near = np.einsum("ncw,wv,ncv->nc", apart, np.linalg.inv(inside), apart).min(1)
    np.testing.assert_allclose(Mahalanobis("empirical").fit(CLEAN, LABELS).rejection_scores(TEST), near, rtol=1e-9)
    whole, centred = np.cov(CLEAN.T, bias=True), TEST - CLEAN.mean(0)
    background = np.einsum("nw,wv,nv->n", centred, np.linalg.inv(whole), centred)
    relative = RelativeMahalanobis("empirical").fit(CLEAN, LABELS).rejection_scores(TEST)
    np.testing.assert_allclose(relative, near - background, rtol=1e-9, atol=1e-9)


def test_ssd_is_the_difference_of_two_shrunk_distances() -> None:
    parts = []
    for rows in (CLEAN, SHOTS):
        shrunk = LedoitWolf().fit(unit(rows))
        parts.append(shrunk.mahalanobis(unit(TEST)))
    np.testing.assert_allclose(SSD().fit(X, Y).rejection_scores(TEST), parts[0] - parts[1], rtol=1e-9)


def test_react_sirc_and_vim_are_their_formulas() -> None:
    limit = np.quantile(CLEAN, 0.9)
    cut = -logsumexp(logits(np.minimum(TEST, limit)), axis=1)
    np.testing.assert_allclose(ReAct(HEAD).fit(CLEAN).rejection_scores(TEST), cut, atol=1e-12)
    u0, u1, clean = 1 - softmax(logits(TEST), axis=1).max(1), -np.abs(TEST).sum(1), -np.abs(CLEAN).sum(1)
    a, b = clean.mean() + 3 * clean.std(), 1 / clean.std()
    combined = np.log(u0 * (1 + np.exp(b * (u1 - a))) + 1e-6)
    np.testing.assert_allclose(SIRC(HEAD).fit(CLEAN).rejection_scores(TEST), combined, rtol=1e-9)
    origin = -np.linalg.pinv(HEAD[0]) @ HEAD[1]
    minor = np.linalg.svd(CLEAN - origin)[2][4:]  # right singular vectors, the largest first

    def residual(rows: np.ndarray) -> np.ndarray:
        return np.linalg.norm((rows - origin) @ minor.T, axis=1)

    alpha = logits(CLEAN).max(1).mean() / residual(CLEAN).mean()
    with_virtual = np.column_stack([logits(TEST), alpha * residual(TEST)])
    detector = ViM(HEAD).fit(CLEAN)
    p = softmax(with_virtual, axis=1)[:, -1]
    np.testing.assert_allclose(detector.rejection_scores(TEST), np.log(p / (1 - p)), rtol=1e-8)


# --- FS-KNNS


def parts(detector: FewShotKNNS) -> tuple[np.ndarray, np.ndarray]:
    """u0 and u1 of the test samples, scaled as the inductive variant does, by brute force."""
    u0, u1 = [], []
    for rows, own in ((CLEAN, 0), (SHOTS, 1), (TEST, 2)):
        near = kth_left_out(rows, CLEAN, own == 0)
        u1.append(1 - near + kth_left_out(rows, SHOTS, own == 1))
        u0.append(1 - softmax(logits(rows), axis=1).max(1))
    ends0, ends1 = np.concatenate(u0[:2]), np.concatenate(u1[:2])
    scaled0 = (u0[2] - ends0.min()) / np.ptp(ends0)
    return scaled0, (u1[2] - ends1.min()) / np.ptp(ends1)


def kth_left_out(rows: np.ndarray, bank: np.ndarray, own: bool) -> np.ndarray:
    if not own:
        return kth(rows, bank, 5)
    return np.array([kth(rows[[i]], np.delete(bank, i, 0), 5)[0] for i in range(len(rows))])


@pytest.mark.parametrize(
    ("settings", "weight"), [({"alpha": 0.0}, 0.5), ({"gate": -np.inf}, 1.0), ({"gate": np.inf}, 0.0)]
)
def test_limits_of_the_switch(settings: dict[str, float], weight: float) -> None:
    detector = FewShotKNNS(HEAD, **settings).fit(X, Y)
    u0, u1 = parts(detector)
    np.testing.assert_allclose(detector.rejection_scores(TEST), u0 + weight * u1, atol=1e-12)


def test_between_the_limits_it_is_the_published_formula() -> None:
    detector = FewShotKNNS(HEAD, alpha=7.0, beta=0.5).fit(X, Y)
    u0, u1 = parts(detector)
    low, high = detector.second_range_
    shots = (detector.reference_scores_ - low) / (high - low)
    gate = shots.mean() - 0.5 * shots.std()
    expected = u0 + u1 / (1 + np.exp(-7.0 * (u1 - gate)))
    np.testing.assert_allclose(detector.rejection_scores(TEST), expected, atol=1e-12)


def test_only_the_published_normalisation_depends_on_what_else_is_scored() -> None:
    one = TEST[:1]
    inductive = FewShotKNNS(HEAD).fit(X, Y)
    assert inductive.rejection_scores(one)[0] == pytest.approx(inductive.rejection_scores(TEST)[0], abs=1e-12)
    published = FewShotKNNS(HEAD, normalisation="transductive").fit(X, Y)
    whole = published.rejection_scores(TEST)
    assert np.abs(published.rejection_scores(TEST[1:4]) - whole[1:4]).max() > 1e-3
    u0 = 1 - softmax(logits(TEST), axis=1).max(1)
    off = FewShotKNNS(HEAD, normalisation="transductive", gate=np.inf).fit(X, Y).rejection_scores(TEST)
    np.testing.assert_allclose(off, (u0 - u0.min()) / np.ptp(u0), atol=1e-12)


def test_a_reference_counts_among_its_own_five_only_as_published() -> None:
    published = FewShotKNNS(HEAD, self_similarity=True).fit(X, Y).reference_scores_
    np.testing.assert_allclose(published, 1 - kth(SHOTS, CLEAN, 5) + kth(SHOTS, SHOTS, 5), atol=1e-12)
    corrected = FewShotKNNS(HEAD).fit(X, Y).reference_scores_
    assert (corrected < published).all()


def test_the_published_index_is_the_fifth_largest_of_a_thousand_and_fails_with_two_hundred() -> None:
    many = np.abs(RNG.normal(size=(1000, WIDTH)))
    rows, classes = np.concatenate([CLEAN, many]), np.append(LABELS, [-1] * 1000)
    ours, published = (
        FewShotKNN(published_index=each).fit(rows, classes).rejection_scores(TEST) for each in (False, True)
    )
    np.testing.assert_array_equal(ours, published)
    with pytest.raises(DataError, match=r"entry 995 .* only 200"):
        FewShotKNN(published_index=True).fit(rows[:400], classes[:400])


# --- what cannot be used


@pytest.mark.parametrize(
    ("name", "rows", "classes", "message"),
    [
        ("rmds", CLEAN, np.zeros(200), "2 classes or more"),
        ("rmds", CLEAN, None, "2 classes or more"),
        ("knn", np.where(CLEAN[3, 2] == CLEAN, np.nan, CLEAN), None, "contains NaN"),
        ("knn", CLEAN[:1], None, "found 1 sample"),
        ("fs-knn", CLEAN, LABELS, "no references"),
        ("fs-knns", X[:203], Y[:203], "6 references or more .* found 3"),
        ("ssd", X[:201], Y[:201], "2 references or more .* found 1"),
        ("msp", SHOTS, [-1] * 20, "all 20 samples are references"),
        ("msp", CLEAN, LABELS[:7], "inconsistent numbers of samples"),
        ("msp", CLEAN[:, :3], LABELS, "weight of shape .classes, 3."),
        ("mahalanobis", CLEAN, np.append(LABELS[1:].astype(float), np.nan), "NaN"),
    ],
)
def test_degenerate_input_is_refused_in_a_line(name: str, rows: np.ndarray, classes: object, message: str) -> None:
    with pytest.raises(PhotopicError, match=message) as caught:
        scorer(name, head=HEAD).fit(rows, classes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SCORERS)
def test_another_width_and_too_early_are_refused(name: str) -> None:
    detector = scorer(name, head=HEAD)
    with pytest.raises(NotFittedDetectorError, match="call fit"):
        detector.predict(TEST)
    detector.fit(X, Y)
    with pytest.raises(DataError, match=r"X has 5 features, but .* is expecting 8"):
        detector.predict(TEST[:, :5])
    scores = detector.rejection_scores(TEST)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(detector.score_samples(TEST), -scores)


def test_a_scorer_of_logits_without_classes_to_choose_from_is_refused() -> None:
    with pytest.raises(DataError, match="2 classes or more"):
        MSP().fit([[1.0], [2.0]])


def test_settings_are_checked() -> None:
    with pytest.raises(PhotopicError, match="expected one of msp"):
        scorer("mps")
    with pytest.raises(PhotopicError, match="no setting k; it has"):
        scorer("msp", k=3)
    with pytest.raises(DataError, match="last layer"):
        ViM().fit(CLEAN)
    with pytest.raises(DataError, match="dims: expected"):
        ViM(HEAD, dims=WIDTH).fit(CLEAN)
    with pytest.raises(DataError, match="contamination"):
        MSP(contamination=0.9).fit(CLEAN)
    with pytest.raises(DataError, match="k: expected a whole number"):
        KNN(k=0).fit(CLEAN)


def test_degenerate_directions_do_not_break_distances() -> None:
    flat = np.column_stack([CLEAN, np.zeros(len(CLEAN)), CLEAN[:, 0]])  # one constant, one doubled feature
    for detector in (Mahalanobis(), Mahalanobis("empirical"), RelativeMahalanobis()):
        assert np.isfinite(detector.fit(flat, LABELS).rejection_scores(flat)).all()
    same = np.ones((10, 3))
    assert (Mahalanobis().fit(same).rejection_scores(same) == 0).all()


def test_calibration_keeps_its_rate_on_new_samples() -> None:
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(40):
        rows = rng.normal(size=(700, 5))
        detector = KNN().fit(rows[:100]).calibrate(rows[100:200], 0.1)
        rates.append((detector.predict(rows[200:]) == -1).mean())
    assert np.mean(rates) == pytest.approx(0.1, abs=0.02)
