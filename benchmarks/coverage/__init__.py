"""The scoreboard: every model of a zoo at half of its channels ends in one of four outcomes.

equal    at least 35 % of the parameters gone, proven, ONNX Runtime agrees (where the row exports)
frozen   nothing or too little could go, or a stage refused the model; the row says why
wrong    shrunk, but not equal to the silenced original: must never happen
crash    a traceback, or a limit of time or memory exceeded

`zoo.py` finds the models, `child.py` judges one in a process of its own, `runner.py` feeds it,
`score.py` counts and draws.
"""
