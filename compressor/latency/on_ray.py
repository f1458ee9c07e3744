"""A cluster of Ray's as machines of a sweep: `pip install 'compressor[ray]'`.

A build claims all processors and GPUs of one node, so neither another build nor any other task of
the cluster runs there meanwhile; a node without processors (a head started with --num-cpus=0) is
left out. Two nodes on one machine would race beside each other: start one on each. Ray's workers
are nice (15): where other programs share a node, start it with RAY_worker_niceness=0.

The folder where the command is run is sent to the nodes, but for its `.gitignore`d files, the
output and keys (`keys.py`); Ray's limit is 512 MB. The compressor, and what the user's code imports
from elsewhere, has to be installed there.
"""

import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from compressor.base.messages import listed
from compressor.base.optional import needed
from compressor.latency.keys import NAMES, patterns, private
from compressor.latency.remote import Lost, Order, Outcome, fulfilled
from compressor.passes.base.errors import UsageError

PATIENCE = 5.0
"""Seconds to wait for an answer, and between looks at which nodes are there."""


@contextmanager
def connected(
    address: str,
    output: Path,
    keys: Sequence[Path] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Iterator["RayCluster"]:
    """The cluster at an address of `ray.init`. At the end, what still runs there is stopped.

    The present folder is sent, without `output`, `keys` and what looks like a key: `say` is told
    which files that are. Raises UsageError where the cluster cannot be reached.
    """
    ray = needed("ray", "a sweep on several machines", "ray")
    _check_open(address)
    here, target = Path.cwd(), output.resolve()
    kept = private(here, keys)
    if kept:
        say(f"not sent, as keys stay here: {listed(kept)}")
    outputs = [target.relative_to(here).as_posix()] if target.is_relative_to(here) else []
    excludes = [*NAMES, *patterns([*outputs, *kept])]
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"working_dir": str(here), "excludes": excludes},
        )
    except (OSError, RuntimeError, ValueError) as error:  # not there, another version, no address
        ray.shutdown()
        raise _unreachable(address, str(error)) from error
    try:
        yield RayCluster(ray)
    finally:
        ray.shutdown()


def _check_open(address: str) -> None:
    """Ray tries for minutes where nobody listens."""
    try:
        place = urlsplit(address if "//" in address else f"//{address}")
        if place.hostname and place.port:
            socket.create_connection((place.hostname, place.port), PATIENCE).close()
    except (OSError, ValueError) as error:
        raise _unreachable(address, str(error)) from error


def _unreachable(address: str, why: str) -> UsageError:
    return UsageError(
        f"cannot use the Ray cluster at {address}",
        why=why.strip().partition("\n")[0],
        hint="`ray status` says where one runs: --ray auto, HOST:PORT or ray://HOST:PORT",
    )


class RayCluster:
    """Nodes by their names; builds are known by Ray's references."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._nodes: dict[str, Any] = {}
        # a process for each build: what the user's code left in one is not in the next
        self._task = ray.remote(max_retries=0, max_calls=1)(fulfilled)

    def machines(self) -> Sequence[str]:
        """Nodes that are alive and have processors."""
        alive = [one for one in self._ray.nodes() if one["Alive"] and _has(one, "CPU")]
        self._nodes = {f"{one['NodeManagerHostname']} ({one['NodeID'][:6]})": one for one in alive}
        return tuple(self._nodes)

    def start(self, machine: str, order: Order) -> Any:
        """A task that claims the whole node."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = self._nodes[machine]
        return self._task.options(
            num_cpus=_has(node, "CPU"),
            num_gpus=_has(node, "GPU"),
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(order)

    def ended(self, builds: Collection[Any]) -> tuple[Any, Outcome] | None:
        """Raises what is neither the user's mistake nor the machine's."""
        done, _ = self._ray.wait(list(builds), timeout=PATIENCE)
        return (done[0], self._outcome(done[0])) if done else None

    def _outcome(self, build: Any) -> Outcome:
        errors = self._ray.exceptions
        try:
            found: Outcome = self._ray.get(build)
        except errors.RayTaskError as error:
            if "No module named 'compressor'" in str(error):
                raise UsageError(
                    "the compressor is not installed on a node of the cluster",
                    hint="install the same version on every machine",
                ) from error
            raise (error.cause or error) from error
        except errors.RayError as error:
            return Lost(str(error).strip().partition("\n")[0])
        return found


def _has(node: Any, resource: str) -> float:
    return float(node["Resources"].get(resource, 0))
