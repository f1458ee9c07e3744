"""What ONNX Runtime writes while it is watched is in no file that a kill would leave."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from compressor.explain.profile import profile
from compressor.process.temporary_folders import Scratch

MODEL = (Path(__file__).parents[1] / "format1" / "signed" / "model.onnx").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is a private temporary folder")
def test_neither_the_graph_nor_the_profile_has_a_name_while_the_model_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[int] = []
    begun = Scratch.begun

    def looking(self):
        (profile,) = (path for path in tmp_path.rglob("*") if path.is_file())
        seen.append(profile.stat().st_size)
        begun(self)
        seen.append(len([path for path in tmp_path.rglob("*") if path.is_file()]))

    monkeypatch.setattr(Scratch, "begun", looking)
    found = profile(MODEL, runs=3)
    assert seen == [0, 0]
    assert {one.kind for one in found} == {"FusedGemm", "Gemm"}
    assert all(one.macs for one in found)  # read off the graph: weights are not in the profile
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("memory", [True, False])
def test_graph_and_profile_are_read_wherever_they_are(memory, monkeypatch):
    if not memory:
        monkeypatch.setattr("compressor.process.temporary_folders._MEMORY", False)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    with Scratch() as scratch:
        scratch.ask(options, graph=True)
        session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        scratch.begun()
        session.run(None, {session.get_inputs()[0].name: np.ones((2, 4), np.float32)})
        events = scratch.events(session.end_profiling)
        nodes = [node.op_type for node in scratch.graph().node]
    assert nodes == ["FusedGemm", "Gemm"]
    assert "Gemm" in json.dumps(events)
