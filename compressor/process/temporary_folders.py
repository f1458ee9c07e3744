"""ONNX Runtime writes its profile, and the graph that it runs, to files. They end with the process.

On Linux the graph is written into memory, and its weights nowhere. The profile is a file that is
open and has no name any more while the model runs. So a kill leaves nothing of the model on the
disk. Elsewhere both are in a private temporary folder until the end.
"""

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from compressor.process.children import scratch

_MEMORY = hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir()
_WEIGHTS = "session.optimized_model_external_initializers_"


class Scratch:
    """What a session writes: `ask` before it is made, `begun` after that. Close it at the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._folder = self._stack.enter_context(scratch())
        self._graph: Path | None = None
        self._profile: BinaryIO | None = None

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, options: Any, graph: bool = False) -> None:
        """Have a profile written, and the graph if that is wanted."""
        options.enable_profiling = True
        options.profile_file_prefix = str(self._folder / "profile")
        if not graph:
            return
        self._graph, weights = self._folder / "graph.onnx", "weights.bin"
        if _MEMORY:
            place, nowhere = os.memfd_create("graph"), os.open(os.devnull, os.O_WRONLY)
            for file in (place, nowhere):
                self._stack.callback(os.close, file)
            self._graph, weights = Path(f"/proc/self/fd/{place}"), str(nowhere)
        options.optimized_model_filepath = str(self._graph)
        options.add_session_config_entry(f"{_WEIGHTS}file_name", weights)
        options.add_session_config_entry(f"{_WEIGHTS}min_size_in_bytes", "1024")

    def begun(self) -> None:
        """The session is made: its files are open, and need no names."""
        if os.name == "nt":  # what is open keeps its name there
            return
        (profile,) = self._folder.glob("profile*")
        self._profile = self._stack.enter_context(profile.open("rb"))
        profile.unlink()

    def events(self, end: Callable[[], str]) -> list[dict[str, Any]]:
        """What the profile says; `end` is the session's end_profiling."""
        name = end()
        data = Path(name).read_bytes() if self._profile is None else self._profile.read()
        found: list[dict[str, Any]] = json.loads(data)
        return found

    def graph(self) -> Any:
        """The graph that runs, without its weights; None where it was not wanted."""
        import onnx

        if self._graph is None:
            return None
        return onnx.load_model_from_string(self._graph.read_bytes()).graph
