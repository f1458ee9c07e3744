"""Latency as a budget: what kernels take on a device, and plans that meet a time there.

kernel_models.py     small ONNX models of kernels
measure_kernels.py   what kernels take, many side by side in one session
profiling.py         which kernels and widths a model needs; stairs; resumable
table.py             the table: interpolated, checked on load, saved as JSON
closed_loop.py       plans that are raced until one meets the time
"""
