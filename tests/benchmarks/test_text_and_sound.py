"""Text and sound without training: needs the data sets beside the checkout."""

import pytest

from benchmarks.accuracy import networks, text_and_sound

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # of the data's loader
    pytest.mark.filterwarnings("ignore:Unwrapped parameters detected:UserWarning"),  # of the peer
    pytest.mark.skipif(not networks.available(), reason="there is no shared/data"),
]


@pytest.fixture(scope="module")
def subjects():
    return list(text_and_sound.subjects(networks.loaders()))


def test_the_peer_prunes_heads_and_filters_and_the_result_runs(subjects):
    for subject in subjects:
        dense = text_and_sound.macs(subject.model, subject.inputs)
        small = text_and_sound.prune(subject, "group l2", 0.3)
        assert text_and_sound.macs(small, subject.inputs) < 0.9 * dense
        assert small(subject.inputs[:2]).shape == subject.model(subject.inputs[:2]).shape


@pytest.mark.parametrize("share", [0.7, 0.5])
def test_at_least_half_of_what_slicing_loses_of_sound_is_won_back(share, subjects):
    (sound,) = [one for one in subjects if one.name.startswith("keywords")]
    sliced, _, original, _ = text_and_sound._ours(sound, share, None)
    data = list(sound.calibration.split(64))
    repaired, left, _, _ = text_and_sound._ours(sound, share, data)
    assert left <= share + 1e-9
    assert original > 0.9
    assert repaired - sliced >= 0.5 * (original - sliced)
