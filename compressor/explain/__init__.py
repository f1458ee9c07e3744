"""`compressor explain`: where the time of an ONNX model goes, and what bounds each operator.

profile.py     every operator's median time, from ONNX Runtime's own profile
roofline.py    what this machine can do at best: multiply-accumulates and bytes a second
judge.py       operator + roofline -> compute, memory, overhead, reorder, width, slow
stairs.py      the dearest layers at other widths, as a page
table.py       one model, or two side by side
"""

from compressor.explain.judge import Judged, explain
from compressor.explain.table import render

__all__ = ["Judged", "explain", "render"]
