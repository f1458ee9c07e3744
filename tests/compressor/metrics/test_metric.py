"""Which way a metric is better, what counts as a number, and what keeps a limit."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from compressor.passes.base.errors import UsageError

from compressor.metrics.directions import HIGHER, LOWER, direction
from compressor.metrics.evaluate import READY, number, numbers
from compressor.metrics.metric import Drop, Metric, decided, deciding

NAN, INF = float("nan"), float("inf")

LESS = """rmse mae mape smape mse msle nll wer cer ter mer fid kid lpips perplexity ppl bpc bpb loss
error val_error train-loss err eer hamming brier ece kl divergence distance epe absrel abs_rel
val/loss test.rmse valRMSE RMSELoss topOneError top1_error top5_error_rate dice_loss fid_score
brier_score_loss KLDivergence crossEntropyLoss cross_entropy bits_per_byte WordErrorRate
fpr_at_95_tpr neg_log_likelihood negative_log_likelihood max_error davies_bouldin_score hd95
LearnedPerceptualImagePatchSimilarity FrechetInceptionDistance false_alarm_rate valloss"""

MORE = """accuracy acc top1 top5 Top-1 f1 auc auroc roc_auc ap AP50 map mAP map50 miou mIoU meanIoU
iou dice psnr ssim bleu BLEU-4 rouge1 rougeL rouge_l meteor r2 recall precision kappa mcc agreement
score snr si_sdr SI-SDR pesq stoi ndcg mrr hit_rate pearson spearman valAcc f1-score F1Score R2Score
mAP@0.5:0.95 val/accuracy recall_at_low_error accuracy_without_error neg_mean_squared_error
neg_log_loss neg_root_mean_squared_error explained_variance log_likelihood exact_match
true_positive_rate PeakSignalNoiseRatio MulticlassAccuracy hits@10"""

UNTOLD = """ev evaluate metric x 0 ten accuracy_drop one_minus_accuracy 1-accuracy inaccuracy
loss_accuracy d2_absolute_error_score neg_recall negative_recall within_error accuracy_std
loss_reduction"""


@pytest.mark.parametrize(
    ("names", "way"), [(LESS, "min"), (MORE, "max"), (UNTOLD, None)], ids=["less", "more", "untold"]
)
def test_the_name_of_a_metric_tells_which_way_is_better_or_that_it_does_not(names, way):
    assert {name: direction(name) for name in names.split()} == dict.fromkeys(names.split(), way)
    assert not LOWER & HIGHER


def test_units_and_other_writing_do_not_matter():
    assert direction("RMSE (px)") == "min"
    assert direction("r²") == "max"
    assert direction("PSNR [dB]") == "max"


def test_ready_made_metrics_know_their_direction():
    ways = {name: direction(name) for name in READY}
    assert ways.pop("mse") == "min"
    assert set(ways.values()) == {"max"}


def test_what_is_said_comes_before_the_name():
    assert deciding(["f1", "ev"], None) == Metric("f1", "max")
    assert deciding(["f1", "ev"], "ev:min") == Metric("ev", "min")
    assert deciding(["ev"], "ev:max") == Metric("ev", "max")
    assert deciding(["f1"], "f1:min") == Metric("f1", "min")
    assert deciding(["mAP@0.5:0.95"], "mAP@0.5:0.95") == Metric("mAP@0.5:0.95", "max")
    assert deciding(["a:b"], "a:b:min") == Metric("a:b", "min")


@pytest.mark.parametrize(
    ("measured", "wanted", "what", "hint"),
    [
        (["ev"], None, "not known whether 'ev' is better where it is higher", "--metric ev:max"),
        (["f1", "ev"], "ev", "not known whether 'ev'", "--metric ev:max"),
        (["f1"], "f1:low", "'low' does not say which way", "f1:min"),
        (["f1"], "f2", "no metric is called 'f2'", "f1"),
        (["f1"], "f2:min", "no metric is called 'f2'", "f1"),
        (["f1"], ":min", "no metric is called ''", "f1"),
        (["f1"], "", "no metric is called ''", "f1"),
        ([], None, "nothing is evaluated", "--evaluate"),
    ],
)
def test_what_cannot_be_known_is_an_error_with_the_words_to_say(measured, wanted, what, hint):
    with pytest.raises(UsageError, match=what) as refused:
        deciding(measured, wanted)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("better", "original", "small", "limit", "kept"),
    [
        ("max", 0.93, 0.92, 0.01, True),  # 0.93 - 0.92 is a little more
        ("max", 0.93, 0.9199, 0.01, False),
        ("min", 0.92, 0.93, 0.01, True),
        ("min", 1e-7, 0.4, 0.001, False),
        ("min", 0.4, 1e-7, 0.0, True),
        ("min", 1e-15, 9e-13, 0.0, False),  # tiny, and all of it
        ("max", 0.0, 0.0, 0.0, True),
        ("max", -1.0, -1.5, 0.4, False),
        ("max", -1.0, -1.5, 0.5, True),
        ("min", -2.0, -1.0, 0.5, False),
        ("max", 1e5 + 0.3, 1e5 + 0.2, 0.1, True),
        ("max", 1e308, -1e308, 1.0, False),
        ("max", -1e308, 1e308, 0.0, True),
        ("max", 0.5, NAN, 1e300, False),
        ("max", 0.5, INF, 1e300, False),
        ("min", 0.5, -INF, 1e300, False),
        ("min", 0.5, INF, 1e300, False),
    ],
)
def test_one_comparison_keeps_what_is_within_the_limit_and_finite(
    better, original, small, limit, kept
):
    drop = Drop("it", better, original, small)
    assert drop.kept(limit) is kept
    assert bool(drop.broken(limit)) is not kept


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_an_original_that_is_not_finite_is_an_error(value):
    with pytest.raises(UsageError, match=f"f1 of the original is {value}"):
        decided({"f1": {"original": value, "small": value}}, None)


def test_what_is_not_finite_is_worth_least():
    assert Metric("rmse", "min").gain(2.0) == -2.0
    assert Metric("f1", "max").gain(2.0) == 2.0
    assert [Metric("f1", way).gain(one) for way in ("min", "max") for one in (NAN, INF, -INF)] == [
        -INF
    ] * 6


@pytest.mark.parametrize(
    "value",
    [1, 1.0, np.float32(1), np.int64(1), np.array(1.0), np.array([[1]]), torch.tensor(1.0),
     torch.tensor([1]), torch.tensor(1.0, dtype=torch.bfloat16), Decimal(1), Fraction(1),
     torch.nn.Parameter(torch.ones(()))],
)  # fmt: skip
def test_numbers_of_every_library_are_numbers(value):
    found = number(value)
    assert (type(found), found) == (float, 1.0)
    assert math.isnan(number(torch.tensor(NAN)))


@pytest.mark.parametrize(
    "value",
    [None, True, np.bool_(True), torch.tensor(True), np.array([True]), "0.9", b"1", 1j,
     np.complex64(1), torch.tensor(1j), np.ones(2), torch.ones(2), torch.ones(0), [0.9], (0.9,),
     10**400, np.datetime64("2020-01-01"), np.ma.masked, torch.ones((), device="meta"), object()],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_number_is_refused_alone_and_by_name(value):
    for given in (value, {"f1": value}):
        with pytest.raises(UsageError, match=r"net\.py:ev returned") as refused:
            numbers(given, "net.py:ev", "ev")
        assert "return a number" in refused.value.hint


def test_a_number_without_a_name_is_called_after_its_function_and_names_are_given_once():
    assert numbers(0.5, "net.py:rmse", "rmse") == {"rmse": 0.5}
    assert numbers({"a": 1, 2: 3}, "net.py:ev", "ev") == {"a": 1.0, "2": 3.0}
    with pytest.raises(UsageError, match="returned no number"):
        numbers({}, "net.py:ev", "ev")
    with pytest.raises(UsageError, match="two numbers that are called '1'"):
        numbers({1: 0.5, "1": 0.6}, "net.py:ev", "ev")
