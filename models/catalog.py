"""Every reference model, by name: what benchmarks and tests go through.

A value is what one types after `compressor build`, from the root of the checkout. Beside
the callable each file has an `example_inputs`; `models/digits.py` is trained and has data as well.
"""

from collections.abc import Mapping

CATALOG: Mapping[str, str] = {
    "chain": "models/chain.py:chain",
    "residual": "models/residual.py:residual",
    "preact": "models/preact.py:preact",
    "separable": "models/separable.py:separable",
    "grouped": "models/grouped.py:grouped",
    "shuffle": "models/shuffle.py:shuffle",
    "dense": "models/dense.py:dense",
    "unet": "models/unet.py:unet",
    "c2f": "models/split.py:c2f",
    "res2net": "models/split.py:res2net",
    "superres": "models/superres.py:superres",
    "vit": "models/vit.py:vit",
    "window": "models/window.py:window",
    "decoder": "models/decoder.py:decoder",
    "seq2seq": "models/seq2seq.py:seq2seq",
    "tagger": "models/tagger.py:tagger",
    "mixer": "models/mixer.py:mixer",
    "hardcoded": "models/hardcoded.py:hardcoded",
    "multi": "models/multi.py:multi",
    "digits": "models/digits.py:digits_resnet",
}
