"""The circumstances of a measurement: what a number cannot be read without.

No host name, user name or path: the result may be published as it is.
"""

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from compressor.base.free_memory import memory
from compressor.process.children import command

FLAGS = (  # the instruction sets that choose a kernel in ONNX Runtime: x86, then Arm
    *("sse4_1", "avx", "fma", "f16c", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "sve", "sve2", "i8mm", "bf16", "sme"),
)
PACKAGES = ("torch", "onnx", "onnxsim", "torch-pruning", "numpy")


def environment() -> dict[str, object]:
    """The machine and the versions, as they are now: a fresh dict that is ready for JSON.

    Memory is in bytes, the load average in runnable tasks over 1, 5 and 15 minutes, the clock in
    UTC. What the system does not tell is None. torch is looked up, never imported.
    """
    return {
        "processor": _processor(),
        "flags": _flags(),
        "cores": {
            "physical": _physical_cores(),
            "logical": os.cpu_count(),
            "usable": _usable_cores(),
        },
        "load_average": _load_average(),
        "memory_bytes": memory(),
        "gpus": _gpus(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: _version(name) for name in PACKAGES} | {"onnxruntime": _runtime()[0]},
        "providers": _runtime()[1],
    }


def _cpuinfo() -> Iterator[dict[str, str]]:
    """One dict per logical processor from /proc/cpuinfo; nothing where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return
    for block in text.strip().split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        yield {key.strip(): value.strip() for key, _, value in pairs}


def _processor() -> str | None:
    """The model name, `AMD EPYC 9B14` for example."""
    if platform.system() == "Darwin":
        return command("sysctl", "-n", "machdep.cpu.brand_string") or None
    names = (cpu["model name"] for cpu in _cpuinfo() if "model name" in cpu)
    return next(names, platform.processor() or None)


def _flags() -> list[str]:
    first = next(_cpuinfo(), {})
    found = first.get("flags") or first.get("Features") or ""  # x86, Arm
    return [flag for flag in FLAGS if flag in found.split()]


def _physical_cores() -> int | None:
    cores = {(cpu.get("physical id"), cpu["core id"]) for cpu in _cpuinfo() if "core id" in cpu}
    return len(cores) or None


def _usable_cores() -> int | None:
    """The logical cores this process may run on: fewer under taskset or in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _load_average() -> list[float] | None:
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except (AttributeError, OSError):  # Windows has none
        return None


def _gpus() -> list[str]:
    """Name, driver and memory of each NVIDIA GPU."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = "--query-gpu=name,driver_version,memory.total"
    return command("nvidia-smi", query, "--format=csv,noheader").splitlines()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _runtime() -> tuple[str | None, list[str]]:
    """Version and providers of ONNX Runtime, whichever of its distributions is installed."""
    try:
        import onnxruntime
    except ImportError:
        return None, []
    return onnxruntime.__version__, list(onnxruntime.get_available_providers())
