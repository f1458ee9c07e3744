"""A sweep on several machines: who builds what, what is sent, what is kept where one fails."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from compressor.passes.base.errors import ContractError, GateError, UsageError, WrongError
from typer.testing import CliRunner

from compressor.cli.app import app
from compressor.config import Recipe
from compressor.latency import sweep as sweeps
from compressor.latency.remote import Lost, Order, distributed, fulfilled, order
from compressor.pipeline import build as builds
from compressor.storage import manifest
from tests.compressor.latency.test_sweep import Builder
from tests.compressor.pipeline.test_latency_build import NET

ROOT = Path(__file__).resolve().parents[3]


def recipe(folder, latency="0.8,0.65,0.5", **more):
    return Recipe.of(model="net.py:net", latency=latency, output=folder, **more)


def release(latency) -> dict[str, bytes]:
    """Files as a build makes them."""
    folder = Path("made") / latency
    folder.parent.mkdir(exist_ok=True)
    Builder()(recipe(folder, latency))
    (folder / "manifest.json").write_text(json.dumps(manifest.make(folder, {})))
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    return found


class Machines:
    """Each build ends in the order in which it began, with what `outcomes` has for its time."""

    def __init__(self, *names, **outcomes):
        self.names, self.outcomes = names, outcomes
        self.orders: list[Order] = []
        self.running: list[tuple[str, Order]] = []
        self.most = 0

    def machines(self):
        return self.names

    def start(self, machine, order):
        assert machine not in [one for one, _ in self.running], "it builds something already"
        self.orders.append(order)
        self.running.append((machine, order))
        self.most = max(self.most, len(self.running))
        return len(self.orders) - 1

    def ended(self, builds):
        number = min(builds)
        _, order = self.running.pop(0)
        assert self.orders[number] is order
        outcome = self.outcomes.get(f"at{order.recipe.latency}")
        if isinstance(outcome, BaseException) and not isinstance(outcome, (GateError, UsageError)):
            raise outcome
        return number, outcome or release(order.recipe.latency)

    @property
    def asked(self):
        return [order.recipe.latency for order in self.orders]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------------------- who builds what


def test_all_machines_build_and_each_one_thing_at_a_time():
    cluster = Machines("one", "two")
    front = sweeps.sweep(recipe("front"), distributed(cluster))
    assert cluster.asked == ["0.8", "0.65", "0.5"]
    assert cluster.most == 2
    assert [one.ratio for one in front.points] == [0.79, 0.64, 0.49]
    for one in ("0.8", "0.65", "0.5"):
        manifest.check(Path("front", one), manifest.read(Path("front", one)))


def test_what_was_built_here_or_there_is_not_sent_again():
    sweeps.sweep(recipe("front", "0.8,0.5"), sweeps.one_by_one(Builder()))
    cluster = Machines("one")
    front = sweeps.sweep(recipe("front"), distributed(cluster))
    assert cluster.asked == ["0.65"]
    assert [one.asked for one in front.points] == ["0.8", "0.65", "0.5"]


def test_a_time_that_is_not_met_there_is_part_of_the_front():
    cluster = Machines("one", **{"at0.65": GateError("the budget is not met")})
    front = sweeps.sweep(recipe("front"), distributed(cluster))
    assert [one.why for one in front.points] == ["", "the budget is not met", ""]


def test_a_command_that_is_wrong_there_ends_the_sweep_and_keeps_what_is_built():
    cluster = Machines("one", **{"at0.65": UsageError("no such file", where="net.py:3")})
    with pytest.raises(UsageError, match=r"no such file\n  at:  one, net.py:3"):
        sweeps.sweep(recipe("front"), distributed(cluster))
    assert cluster.asked == ["0.8", "0.65"]
    kept = json.loads(Path("front/front.json").read_text())
    assert [one["asked"] for one in kept["points"]] == ["0.8"]


def test_what_a_machine_loses_is_built_by_the_next_run():
    cluster = Machines("one", "two", **{"at0.8": Lost("the node died")})
    with pytest.raises(UsageError, match=r"lost on one\n  why:  the node died"):
        sweeps.sweep(recipe("front"), distributed(cluster))
    assert cluster.asked == ["0.8", "0.65", "0.5"]  # the last two on the other
    again = Machines("one")
    front = sweeps.sweep(recipe("front"), distributed(again))
    assert again.asked == ["0.8"]
    assert all(one.ratio for one in front.points)


def test_a_cluster_without_machines_is_refused():
    with pytest.raises(UsageError, match="no machine that builds"):
        sweeps.sweep(recipe("front"), distributed(Machines()))


@pytest.mark.parametrize("error", [ContractError("ours"), KeyboardInterrupt()])
def test_what_ends_the_command_leaves_what_is_built_and_no_lock(error):
    cluster = Machines("one", **{"at0.65": error})
    with pytest.raises(type(error)):
        sweeps.sweep(recipe("front"), distributed(cluster))
    assert sorted(os.listdir("front")) == ["0.8", "front.html", "front.json"]
    assert not Path(".front.lock").exists()


# ---------------------------------------------------------------------------- back and there


def test_a_release_that_arrives_changed_is_not_published():
    changed = release("0.8") | {"report.json": b"{}"}
    with pytest.raises(WrongError, match=r"report.json was changed"):
        sweeps.sweep(recipe("front"), distributed(Machines("one", **{"at0.8": changed})))
    assert sorted(os.listdir("front")) == ["front.html", "front.json"]


def test_files_that_the_recipe_names_are_sent_and_keys_are_not():
    for name in ("net.py", "net.pt", "key.pem", "other.py"):
        Path(name).write_text(name)
    made = order(recipe("front", weights=Path("net.pt"), sign=Path("key.pem"),
                        data=f"{Path.cwd()}/other.py:batches"))  # fmt: skip
    assert made.named == {"net.py": b"net.py", "net.pt": b"net.pt"}
    assert made.recipe.sign is None
    assert made.recipe.output is None


def test_the_other_side_writes_what_was_sent_and_gives_the_release_back(monkeypatch):
    monkeypatch.setattr(builds, "build", lambda recipe, watch: Builder()(recipe))
    sent = order(recipe(None, "0.8"))
    back = fulfilled(Order(sent.recipe, {"data/net.pt": b"weights"}, sent.source))
    assert Path("data/net.pt").read_bytes() == b"weights"
    assert json.loads(back["report.json"])["latency"]["ratio"] == 0.79
    assert os.listdir() == ["data"]


def test_another_version_of_the_compressor_builds_nothing():
    refused = fulfilled(Order(recipe(None, "0.8"), {"net.py": b""}, "another"))
    assert isinstance(refused, UsageError)
    assert "another version" in refused.what
    assert os.listdir() == []


# ---------------------------------------------------------------------------- the command


def run(line):
    return CliRunner().invoke(app, line.split())


SWEEP = "sweep net.py:net --latency 0.8,0.5 -o front"


def test_without_ray_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = run(f"{SWEEP} --ray auto")
    assert done.exit_code == 2
    assert "pip install 'compressor[ray]'" in done.stderr
    assert not Path("front").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:many", "auto"])
def test_a_cluster_that_does_not_answer_is_named(monkeypatch, address):
    def init(**options):
        assert options["address"] == "auto", "nobody listens there, and Ray tries for minutes"
        raise ConnectionError("no Ray here\nmore")

    ray = ModuleType("ray")
    ray.__dict__.update(init=init, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", ray)
    done = run(f"{SWEEP} --ray {address}")
    assert done.exit_code == 2
    assert f"cannot use the Ray cluster at {address}\n  why:  " in done.stderr
    assert "more" not in done.stderr
    assert not Path("front").exists()


# ---------------------------------------------------------------------------- Ray itself


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes of one processor each, on this machine."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'compressor[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        node = {"num_cpus": 1, "object_store_memory": 80 << 20}
        made = Cluster(
            initialize_head=True, connect=False, head_node_args={**node, "include_dashboard": False}
        )
        made.add_node(**node)
        yield SimpleNamespace(address=made.address, grow=lambda: made.add_node(**node),
                              shrink=made.remove_node)  # fmt: skip
        made.shutdown()


@pytest.fixture
def swept(cluster, process, project, tmp_path):
    """Start a sweep over two times, of code that is given."""

    def start(code, *more):
        (project / "remote.py").write_text(code)
        words = f"sweep remote.py:net --latency 0.8,0.5 --ray {cluster.address} -o {tmp_path}/front"
        return process(" ".join([words, *more]))

    return start


@pytest.mark.slow
def test_two_workers_make_a_front(swept, tmp_path):
    started = swept(NET, "--bench-seconds 1 --allow-slower")
    _, stderr = started.communicate()
    assert started.returncode == 0, stderr
    assert "0.8: started on" in stderr
    front = json.loads((tmp_path / "front/front.json").read_text())
    assert [one["asked"] for one in front["points"]] == ["0.8", "0.5"]
    for one in front["points"]:
        if not one["why"]:
            folder = tmp_path / "front" / one["asked"]
            manifest.check(folder, manifest.read(folder))


@pytest.mark.slow
def test_code_that_fails_on_a_worker_is_named_with_its_line(swept):
    started = swept("def net():\n    return 1 / 0\n")
    _, stderr = started.communicate()
    assert started.returncode == 2, stderr
    assert "remote.py:2 in net" in stderr
    assert "division by zero" in stderr


@pytest.mark.slow
def test_a_process_that_dies_is_a_build_that_was_lost(swept, tmp_path):
    started = swept("import os\n\ndef net():\n    os._exit(1)\n")
    _, stderr = started.communicate()
    assert started.returncode == 2, stderr
    assert "builds were lost on" in stderr
    assert "Traceback" not in stderr
    assert sorted(os.listdir(tmp_path / "front")) == ["front.html", "front.json"]


SLEEPER = """
import os, time
from pathlib import Path

def net():
    Path({folder!r}, f"{{os.getpid()}}.pid").touch()
    time.sleep(600)
"""


def pids(folder, count):
    """Of the builds that wait, once there are so many: each imports torch first."""
    for _ in range(3000):
        found = [int(path.stem) for path in folder.glob("*.pid")]
        if len(found) == count:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{found} wait")


@pytest.mark.slow
def test_an_interrupt_stops_the_builds_on_the_workers(swept, tmp_path):
    started = swept(SLEEPER.format(folder=str(tmp_path)))
    waiting = pids(tmp_path, 2)
    started.send_signal(signal.SIGINT)
    _, stderr = started.communicate(timeout=60)
    assert started.returncode == 130, stderr
    assert "what is built is kept" in stderr
    for _ in range(100):
        if not any(Path("/proc", str(pid)).exists() for pid in waiting):
            return
        time.sleep(0.1)
    raise AssertionError("builds run on")


@pytest.mark.slow
def test_a_node_that_dies_loses_its_build_only(swept, cluster, tmp_path):
    third = cluster.grow()
    started = swept(SLEEPER.format(folder=str(tmp_path)), "--latency 0.8,0.65,0.5")
    waiting = pids(tmp_path, 3)
    cluster.shrink(third)
    time.sleep(1)
    for pid in waiting:
        if Path("/proc", str(pid)).exists():
            os.kill(pid, signal.SIGKILL)
    _, stderr = started.communicate(timeout=120)
    assert started.returncode == 2, stderr
    assert stderr.count("lost with") == 3
