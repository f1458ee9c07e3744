"""What pruning without training keeps: trained networks, unlabelled inputs, full test sets.

    networks.py   the networks and their data
    ours.py       one plan: as sliced, with its batch norms re-estimated, and repaired
    peer.py       Torch-Pruning at the same multiply-accumulates, batch norms re-estimated
    text_and_sound.py   a question classifier and a keyword spotter, beside the same peer
    distillation.py     ResNet-56, repaired and distilled
    claims.py     never worse than re-estimation; memory that does not grow
    rows.py       which of them are run, and the tables

Each row is written as soon as it is known, so that a run that was stopped goes on.
"""
