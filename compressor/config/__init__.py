"""Everything that can be asked of a build, declared once.

    model.py           the recipe: one field an option, with its type, default, limits and words
    sources.py         flag > environment > file > default; unknown keys refused with a suggestion
    fields.py          the command line's options, made from the recipe's fields
    toml.py            a recipe as a commented file
    training.py        what can be said of training
    user_file.py       functions of the user's own, in one file
    unused_options.py  options that would do nothing are refused

A key of the file is an option without its dashes: `--max-drop 0.01` is `max-drop = 0.01` in
`compressor.toml` (or under `[tool.compressor]` in a pyproject), `COMPRESSOR_MAX_DROP=0.01` in the
environment, and `max_drop=0.01` from Python.
"""

from compressor.config.model import Recipe as Recipe

__all__ = ["Recipe"]
