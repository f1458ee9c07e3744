"""Latency as a budget: what kernels take on a device, and plans that meet a time there.

snippets.py     small ONNX models of kernels
probe.py        what kernels take, many side by side in one session
profiling.py    which kernels and widths a model needs; stairs; resumable
table.py        the table: interpolated, checked on load, saved as JSON
"""
