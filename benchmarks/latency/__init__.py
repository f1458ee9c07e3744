"""What plans by time are worth, raced in ONNX Runtime: `python -m benchmarks latency`.

met          a build at half the latency: measured over budget, and MACs turned into latency
macs         at the MACs of Torch-Pruning's default: original, ours, theirs, theirs rounded
align        Torch-Pruning's default model, padded
written      the shrunk model beside a dense one that was written with its widths
cell         a build at a share of the MACs: never slower than the original, or refused
prediction   random plans: the table's ratio against the race's
graphs       one network as several tools write and simplify it
contest      accuracy at half the latency, beside Torch-Pruning's
same, wider  the gate under random load: false alarms, and slow-downs that it finds

Every race has the original twice: what a ratio of 1 looks like then.
"""
