"""The one instrument for latency: models raced against each other, in pairs, in one process.

    race({"dense": Path("dense.onnx"), "small": Path("small.onnx")})

    heat 1    load all models, in random order
      round 1   small dense again     each: as many runs as fill 5 ms, wall and CPU time
      round 2   dense again small     the order is drawn anew each round
      ...       ...                   `again` is the first model once more
    heat 2    load all models afresh, in the reverse order
      ...

    ratio     median over all rounds of (model's time / first model's time, same round)
    interval  95 %, from resampling heats
    noise     the same two numbers for `again`, whose true ratio is 1

A busy machine slows both sides of a pair alike, so the ratio holds where milliseconds do not:
compare ratios, and never milliseconds of two different races.
"""

from compressor.bench.measure import race
from compressor.bench.result import Race, RaceRow, Samples
from compressor.bench.sessions import offered_providers
from compressor.bench.statistics import TimeRatio
from compressor.bench.table import render

__all__ = ["Race", "RaceRow", "Samples", "TimeRatio", "offered_providers", "race", "render"]
