"""Delta debugging: what is needed stays, what is not goes, and the count of tries is kept to."""

from compressor.passes.base.minimise import runs, smallest


def halves(items):
    return ([one for one in items if one not in piece] for piece in runs(items))


def test_only_what_the_failure_needs_is_left():
    found, _ = smallest(list(range(20)), halves, lambda items: {3, 17} <= set(items))
    assert found == [3, 17]


def test_what_no_smaller_thing_shows_stays_whole():
    assert smallest([1, 2, 3], halves, lambda items: len(items) > 2) == ([1, 2, 3], 4)


def test_no_more_are_tried_than_may_be():
    seen = []

    def fails(items):
        seen.append(items)
        return 7 in items

    found, tried = smallest(list(range(20)), halves, fails, 3)
    assert tried == len(seen) == 3
    assert 7 in found


def test_runs_are_all_then_halves_then_single_ones():
    assert list(runs("abcde")) == ["abcde", "ab", "cd", "e", *"abcde"]
    assert list(runs("")) == []
