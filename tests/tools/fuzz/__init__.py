"""Random networks: grown, compressed, and checked from several sides.

genome.py    a network as a short program: one step a line, printed, parsed, cut down
steps/       what a step can be, in tables
network.py   the module a genome describes, and how genomes grow
check.py     capture, couple, plan, shrink, prove, and the user's own module with zeros
reduce.py    the smallest genome that still fails
inflate.py   channels added to a known network, and taken out again
tally.py     what came of many networks
"""
