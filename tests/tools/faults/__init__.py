"""The checks are checked: faults are planted in the passes, one at a time, and must be found.

tables/      what is changed, and a sentence that says so
planted.py   a copy of `passes/` with one such change, imported under a name of its own
networks.py  the networks that it has to shrink: the tests' and the catalogue's
judge.py     found by the proof? if not: is the result right all the same?
runner.py    all of them on the networks that run the changed lines
"""
