"""Architectures of Hugging Face transformers: small, random, made from configuration objects.

    row("BertForMaskedLM", TEXT, words())        class, settings of its configuration, inputs

Nothing is downloaded, and transformers is imported only when a model is made. Two layers of 64
channels and four heads, unless an architecture asks for more; norms and biases are random, so that
none of them does nothing.
"""

from models.zoo.cases import Case
from models.zoo.transformers_zoo import (
    decoders,
    encoders,
    pictures,
    scenes,
    several,
    sound,
)


def cases() -> tuple[Case, ...]:
    """All of them, in a fixed order."""
    return (
        *encoders.CASES,
        *decoders.CASES,
        *several.CASES,
        *pictures.CASES,
        *scenes.CASES,
        *sound.CASES,
    )
