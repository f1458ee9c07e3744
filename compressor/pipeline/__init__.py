"""From a model to a release: one pipeline, and its two entrances.

compress.py         the entrance from Python
build.py            the entrance from the command line
compile.py          from a captured network to a small one
report_contents.py  everything that is known of a build, as plain values
finishing.py        race, keep the fastest form, write; variant_race.py has the forms
"""
