"""Which way a metric is better, by its name.

    val/rmse, topOneError, fid_score            "min"
    mAP@0.5, rouge_l, neg_mean_squared_error    "max"
    accuracy_drop, ev, 1-accuracy               None: the name does not tell

A name is cut into words: at what is no letter or digit, and where lower case turns to upper. Where
two of its words say different things it is not known, unless the last one is what the name is
about, as in "dice loss".
"""

import re
import unicodedata
from typing import Literal

Direction = Literal["min", "max"]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _phrases(way: Direction, text: str) -> list[tuple[tuple[str, ...], Direction]]:
    return [(tuple(phrase.split()), way) for phrase in text.split(", ")]


LOWER = _set(
    """
    absrel ade aee atd bce bpb bpc brier ce cer chamfer cost crossentropy crps davies dcf der
    deviance deviation distance divergence dtw ece eer emd entropy epe err error errors fad
    failures fde fid fnr fpr frechet frr fvd hamming hausdorff hd hinge incorrect jsd kid kl kld
    latency levenshtein logloss loss losses lost lpips lsd mad mae mape mase mcd medae mer
    misses mistakes mmd mpe mpjpe mse msle nll nlpd nmae nme nmse nrmse penalty perplexity
    pinball ppl rae regret residual residuals risk rmse rmsle rrmse rse sad silog smape sqrel
    sse ssd ter violations wape wasserstein wer wil wmape wrong
    """
)
HIGHER = _set(
    """
    acc accuracies accuracy agreement ap aps ar au auc auprc auroc bertscore bleu chrf cider
    clipscore coherence comet concordance corr correct correlation d2 dcg dice elbo em f1 f2
    fbeta fps fscore fmeasure hit hitrate hits iou jaccard kappa kendall map match matches
    matthews mcc meteor miou mos mrr ndcg pck pcc pearson pesq plcc pq prauc precision preserved
    psnr purity quality r2 recall reward rocauc sacrebleu sdr sensitivity silhouette similarity
    sisdr sisnr snr spearman specificity spice srcc ssim msssim stoi success tau throughput tnr
    top tpr vif vmaf wip
    """
)
WEAK = frozenset({"score", "scores"})
"""Better where higher, unless another word says otherwise: an FID score is an FID."""

NOUNS = _set(
    "cost deviance deviation distance divergence err error errors loss losses penalty regret"
)
"""As the last word of a name they are what it is about, whatever stands before: "dice loss"."""

PHRASES: tuple[tuple[tuple[str, ...], Direction], ...] = (
    *_phrases(
        "min",
        "abs rel, sq rel, image patch similarity, negative log likelihood, neg log likelihood, "
        "bits per, fall out, miss rate, false positive, false negative, false alarm",
    ),
    *_phrases(
        "max",
        "true positive, true negative, negative predictive value, positive predictive value, "
        "explained variance, r squared, signal noise ratio, signal to noise, "
        "signal distortion ratio, log likelihood, f measure, v measure, si sdr, si snr, win rate, "
        "io u",
    ),
)
"""Words that say more together than one by one, the longer ones first."""

UNCLEAR = _set(
    """
    change complement decrease degradation delta diff difference drop gain gap improvement
    inaccuracy increase inv inverse inverted minus negated negative non not one reduction std
    stddev threshold uncertainty variance
    """
)
"""They may turn the meaning of the others round."""

FILLERS = _set(
    """
    average avg balanced dev eval macro mean median micro norm normalised normalized of pct
    percent percentage rate sum test total train val valid validation value weighted
    """
)
"""They say nothing about the direction where they stand last."""

BORDERS = frozenset({"above", "at", "below", "under", "versus", "vs", "within", "without"})
"""What stands behind is the circumstance: the recall *at* some error is a recall."""


def direction(name: str) -> Direction | None:
    """Whether less or more is better; None where the name does not tell."""
    parts = _words(name)
    whole = [word.lower() for word in parts]
    if whole[:1] == ["1"]:  # 1 - accuracy
        return None
    told = _told(whole)
    if told is None:  # mIoU is one word, valLoss two
        told = _told([piece for word in parts for piece in _pieces(word)])
    return told


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", name))


def _pieces(word: str) -> list[str]:
    """``KLDivergence`` is kl and divergence."""
    found = re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[^\WA-Z_]+|[A-Z]+", word)
    return [one.lower() for one in found]


def _told(words: list[str]) -> Direction | None:
    border = next((at for at, word in enumerate(words) if word in BORDERS), len(words))
    words = words[:border]
    if "neg" in words and ("neg", "log", "likelihood") not in _runs(words, 3):
        rest = [word for word in words if word != "neg"]
        return "max" if _told(rest) == "min" else None  # as scikit-learn turns its losses
    found: list[Direction] = []
    for phrase, way in PHRASES:
        if (at := _find(words, phrase)) >= 0:
            found.append(way)
            words = words[:at] + words[at + len(phrase) :]
    if UNCLEAR & set(words):
        return None
    found += [said for word in words if (said := _of_word(word)) is not None]
    if len(set(found)) == 1:
        return found[0]
    while words and (words[-1] in FILLERS or words[-1].isdigit()):
        words = words[:-1]
    if found:
        return "min" if words and words[-1] in NOUNS else None
    return "max" if WEAK & set(words) else None


def _runs(words: list[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(words[at : at + length]) for at in range(len(words) - length + 1)}


def _find(words: list[str], phrase: tuple[str, ...]) -> int:
    """Where the phrase begins; -1 where it is not there."""
    places = range(len(words) - len(phrase) + 1)
    return next((at for at in places if tuple(words[at : at + len(phrase)]) == phrase), -1)


def _of_word(word: str) -> Direction | None:
    """What one word says: itself, or without the number behind it (``map50``, ``rouge2``)."""
    for one in (word, word.rstrip("0123456789")):
        if one in LOWER:
            return "min"
        if one in HIGHER or one.startswith("rouge"):
            return "max"
    return "min" if word.endswith(("loss", "error")) else None
