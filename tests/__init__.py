import compressor as compressor  # before anything imports ONNX Runtime: its telemetry is off then
