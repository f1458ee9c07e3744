"""ONNX models: export, lowering, simplification, sessions, and how far outputs are from torch."""
