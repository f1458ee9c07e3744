"""Kernel tables: found stairs, interpolation, files, and what is measured for a model."""

import itertools
import json
import math
import re

import numpy as np
import pytest
import torch
from compressor.passes.base.errors import UsageError
from compressor.passes.cost.kernels import Kernel
from typer.testing import CliRunner

from compressor import passes
from compressor.cli.app import app
from compressor.timing import caches, measure_kernels, profiling
from compressor.timing.caches import Caches
from compressor.timing.kernel_models import BUILDERS
from compressor.timing.measure_kernels import REFERENCE, Setting
from compressor.timing.profiling import Wanted, profile, stair, usual, wanted
from compressor.timing.table import Family, Stair, Table, load
from models._random import normal, seeded
from tests.passes.cost.test_latency import Chain

# ------------------------------------------------------------------------------ stairs


def blocks_of(unit, misfits=(), count=68, dearer=2.0):
    """Times of widths 1, 2, 3 ... on a device that computes blocks."""
    times = []
    for width in range(1, count + 1):
        odd = (width & -width) in misfits and width % unit
        times.append(-(-width // unit) * (dearer if odd else 1.0))
    return np.array(times)


@pytest.mark.parametrize("unit", [1, 4, 8, 16, 32])
def test_blocks_are_found_by_their_times(unit):
    assert stair(blocks_of(unit)).unit == unit


def test_blocks_are_found_in_noise():
    noise = np.random.default_rng(0).normal(1, 0.01, 68)
    assert stair(blocks_of(16, {1, 2}) * noise).unit == 16


def test_a_first_step_that_narrow_widths_undercut_hides_no_blocks():
    """As an AVX-512 machine was measured: 17 to 19 input channels need no block of 16."""
    second = [0.44, 0.44, 0.46, 0.51, 0.51, 0.52, 0.55, 0.51, 0.62, 0.63, 0.65, 0.51, 0.7, 0.71,
              0.74, 0.51]  # fmt: skip
    third = [0.78, 0.8, 0.82, 0.76, 0.87, 0.9, 0.92, 0.75, 0.96, 0.98, 1.01, 0.76, 1.06, 1.07,
             1.09, 0.75]  # fmt: skip
    fourth = [own + 0.25 for own in third]
    times = [*(own / 2 for own in second), *second, *third, *fourth, 1.3, 1.3, 1.3, 1.27]
    assert stair(times).unit == 16


def test_what_a_width_that_fits_no_block_costs_is_found():
    found = stair(blocks_of(16, {1, 2}))
    assert found.misfit == {1: 2.0, 2: 2.0, 4: 1.0, 8: 1.0}
    assert found.top(31) == (32, 2.0)
    assert found.top(28) == (32, 1.0)
    assert found.top(32) == (32, 1.0)
    assert found.top(9) == (16, 2.0)  # narrower than a block: as it was measured


# ------------------------------------------------------------------------------ tables


def table() -> Table:
    family = Family("conv", REFERENCE.fixed, ((16, 32), (16, 64), (1,)),
                    np.array([1.0, 4.0, 2.0, 8.0]).reshape(2, 2, 1))  # fmt: skip
    other = Family("softmax", (), ((8, 16), (1, 100)), np.array([[0.1, 1.0], [0.2, 2.0]]))
    return Table(Setting(), {"processor": "P", "flags": []}, 0.5,
                 {("conv", 0): Stair(16, {1: 1.5})}, {one.name: one for one in (family, other)},
                 CACHES, 12.0)  # fmt: skip


def conv(*widths: int) -> Kernel:
    return Kernel("conv", REFERENCE.fixed, widths)


def narrow() -> Table:
    """A family with a kernel of its own for inputs fewer than a block."""
    nodes, times = ((1, 15, 16), (16,), (1,)), np.array([1.0, 8.0, 4.0]).reshape(3, 1, 1)
    family = Family("conv", REFERENCE.fixed, nodes, times)
    own = Stair(16, {}, tuple(width / 16 for width in range(1, 17)))
    return Table(Setting(), {}, 1.0, {("conv", 0): own}, {family.name: family})


def test_fewer_inputs_than_a_block_take_what_their_own_family_takes():
    """Not what the first block of the swept family says: its results are written all the same."""
    assert [narrow().time(conv(width, 16, 1)) for width in (1, 8, 15, 16)] == [1.0, 4.5, 8.0, 4.0]


def test_layers_that_are_mostly_reading_keep_their_stairs():
    """The head of a VGG: weights that no cache holds, measured as they are read."""

    class Head(torch.nn.Sequential):
        def __init__(self) -> None:
            layers = torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64)
            super().__init__(*layers, torch.nn.ReLU(), torch.nn.Linear(64, 10))

    coupling = passes.couple(passes.capture(seeded(Head, 0), (normal(2, 64),), {}))
    families = []
    for (kind, fixed), nodes in wanted(coupling).families.items():
        sizes = [math.prod(widths[:2]) for widths in itertools.product(*nodes)]
        times = np.array(sizes, dtype=np.float64).reshape([len(own) for own in nodes])
        families.append(Family(kind, fixed, nodes, times))
    table = Table(Setting(), {}, 1.0, {}, {one.name: one for one in families})
    stops = table.cost(coupling).stops(coupling.groups[0].cells)
    table.caches = Caches((0.0, 1e3), (0.0, 1.0))  # more by the byte than any kernel takes
    cost = table.cost(coupling)
    assert len(stops) > 8
    assert cost.stops(coupling.groups[0].cells) == stops
    assert cost.dense >= sum(table.time(kernel) for kernel in cost.kernels())


CACHES = Caches((8e6, 16e6), (0.0, 1e-6))


def test_weights_that_fit_into_the_caches_are_read_for_nothing():
    assert CACHES.reading(4e6, 4e6) == 0
    assert CACHES.reading(6e6, 6e6) == pytest.approx(6e6 * 0.5e-6)
    assert CACHES.reading(6e6, 60e6) == pytest.approx(6e6 * 1e-6)  # level from there on


def test_a_network_beyond_the_caches_takes_longer_than_its_kernels():
    coupling = chain()
    needed = wanted(coupling)
    families = [Family(kind, fixed, nodes, np.ones([len(own) for own in nodes]))
                for (kind, fixed), nodes in needed.families.items()]  # fmt: skip
    table = Table(Setting(), {}, 0.5, {}, {one.name: one for one in families})
    within = table.cost(coupling)
    assert within.dense == pytest.approx(0.5 * len(within.kernels()))
    weights = 4 * (9 * 3 * 48 + 9 * 48 * 64 + 64 * 48 + 48 * 10)
    table.caches = Caches((0.0, 1e9), (0.0, 1e-3))
    others = 4 * (48 + 64 + 64) * 8 * 8
    # what a kernel reads beyond the caches by itself is in its own time already
    own = sum((4 * size) ** 2 for size in (9 * 3 * 48, 9 * 48 * 64, 64 * 48, 48 * 10)) * 1e-12
    assert table.cost(coupling).dense == pytest.approx(
        within.dense + 0.5 * (weights * (weights + others) * 1e-12 - own)
    )


def test_times_are_interpolated_between_widths():
    times = table()
    assert times.time(conv(16, 16, 1)) == 0.5
    assert times.time(conv(16, 40, 1)) == pytest.approx(0.5 * 2.5)
    assert times.time(conv(16, 128, 1)) == pytest.approx(0.5 * 8)  # beyond: in proportion
    assert times.time(conv(20, 16, 1)) == times.time(conv(32, 16, 1))  # the same stair
    assert times.time(conv(21, 16, 1)) == 1.5 * times.time(conv(32, 16, 1))


def test_the_usual_kernels_can_all_be_built():
    kernels = [
        Kernel(kind, fixed, widths)
        for (kind, fixed), nodes in usual().families.items()
        for widths in itertools.product(*nodes)
    ]
    assert len(kernels) == usual().points
    assert all(kernel.kind in BUILDERS for kernel in kernels)


def test_a_family_that_was_not_measured_is_like_the_nearest_one():
    fixed = tuple((k, (56, 56) if k == "pixels" else v) for k, v in REFERENCE.fixed)
    there = table().time(Kernel("conv", fixed, (16, 16, 1)))
    assert there == pytest.approx(4 * table().time(conv(16, 16, 1)))


def test_a_family_that_was_not_measured_has_the_stairs_of_its_kind():
    fixed = tuple((k, "clip" if k == "activation" else v) for k, v in REFERENCE.fixed)
    found = [table().time(Kernel("conv", fixed, (width, 16, 1))) for width in (20, 21, 32)]
    assert found[0] == found[2]
    assert found[1] == 1.5 * found[2]


def test_a_kind_that_was_not_measured_is_refused():
    with pytest.raises(UsageError, match="no kernel of the kind 'pool'"):
        table().time(Kernel("pool", (), (1,)))


def test_a_table_is_the_same_after_a_file(tmp_path):
    table().save(tmp_path / "device.json")
    again = load(tmp_path / "device.json")
    assert again.to_json() == table().to_json()
    assert again.time(conv(21, 24, 1)) == table().time(conv(21, 24, 1))


BROKEN = {
    "no JSON": (lambda text: text[:-20], "it is no JSON"),
    "another format": (lambda text: text.replace('"format":2', '"format":7'), "format is 7"),
    "a list": (lambda text: "[1]", "format is None"),
    "no families": (lambda text: text.replace("families", "fam"), "'families' is missing"),
    "a time of nothing": (lambda text: text.replace("[1.0,4.0", "[0.0,4.0"), "times above 0"),
    "a time too few": (lambda text: text.replace("[1.0,4.0", "[1.0"), "needs 4 times"),
    "widths that do not ascend": (lambda text: text.replace("[16,64]", "[64,16]"), "ascend"),
    "no caches": (lambda text: text.replace("caches", "cash"), "'caches' is missing"),
    "caches that shrink": (lambda text: text.replace("8000000.0,", "99000000.0,"), "ascend"),
    "reading in no time": (lambda text: text.replace("[0.0,1e-06]", "[0.0,-1e-06]"), "0 or more"),
    "no threads": (lambda text: text.replace('"threads":1', '"threads":0'), "by 1 to 4096 threads"),
    "a table for a value": (
        lambda text: re.sub(r'"fixed":\{"(\w+)":', r'"fixed":{"\1":{"a":1},"b":', text),
        "a value, or a list of values",
    ),
    "words for numbers": (lambda text: text.replace("[1.0,4.0", '["a",4.0'), "could not convert"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_table_is_refused_in_words(name, tmp_path):
    change, said = BROKEN[name]
    table().save(tmp_path / "device.json")
    text = (tmp_path / "device.json").read_text()
    assert change(text) != text
    (tmp_path / "device.json").write_text(change(text))
    with pytest.raises(UsageError, match="is no table of kernel times") as caught:
        load(tmp_path / "device.json")
    assert said in caught.value.why


# ------------------------------------------------------------------------------ measuring


def chain() -> passes.Coupling:
    return passes.couple(passes.capture(seeded(Chain, 0), (normal(2, 3, 8, 8),), {}))


def test_every_kernel_of_a_network_is_wanted_up_to_its_width():
    needed = wanted(chain())
    kinds = sorted(kind for kind, _ in needed.families)
    assert kinds == ["conv", "conv", "linear", "pool"]  # two of 3x3 are one family
    (nodes,) = (n for (kind, f), n in needed.families.items()
                if kind == "conv" and dict(f)["kernel"] == (3, 3))  # fmt: skip
    assert nodes == ((1, 3, 7, 8, 15, 16, 32, 48), (16, 32, 48, 64), (1,))


def test_every_kind_of_kernel_runs():
    conv = dict(REFERENCE.fixed)
    turned = tuple(sorted((conv | {"transposed": True}).items()))
    linear = (("bias", True), ("flat", False))
    pool = (("kernel", (2, 2)), ("op", "max"), ("padding", (0, 0)), ("pixels", (8, 8)),
            ("stride", (2, 2)))  # fmt: skip
    acting = [tuple(sorted((conv | {"activation": name}).items()))
              for name in ("clip", "sigmoid", "tanh", "leaky_relu", "hardsigmoid")]  # fmt: skip
    kernels = [
        *(Kernel("conv", fixed, (16, 16, 1)) for fixed in acting),
        Kernel("conv", turned, (16, 16, 1)),
        Kernel("depthwise", REFERENCE.fixed, (16, 1)),
        Kernel("grouped", REFERENCE.fixed, (32, 32, 8, 1)),
        Kernel("grouped", turned, (32, 64, 8, 1)),
        Kernel("linear", linear, (16, 32, 8)),
        Kernel("matmul", (), (16, 8, 8, 4)),
        Kernel("softmax", (), (16, 32)),
        Kernel("layer_norm", (), (16, 32)),
        Kernel("pool", pool, (16,)),
        *(Kernel("elementwise", (("op", op),), (4096,))
          for op in ("add", "gelu", "silu", "permute", "mean", "cat", "slice")),
    ]  # fmt: skip
    ratios, reference = measure_kernels.measure(kernels, Setting())
    assert len(ratios) == len(kernels)
    assert reference > 0
    assert all(ratio > 0 for ratio in ratios)


def test_what_profiling_takes_is_no_part_of_a_kernel(monkeypatch):
    tiny = Kernel("linear", (("bias", True), ("flat", False)), (1, 1, 1))
    profiled = measure_kernels._profiled

    def on_a_clock_of_our_own(graph, setting):
        """A node seems to take 1.5 us longer than it does: nothing, 90 us, 0.5 us, 90 us."""
        _, nodes, cpu = profiled(graph, setting)
        real = {"k0_": 0.0, "k1_": 90.0, "k2_": 0.5, "k3_": 90.0}
        return {name: [us + 1.5 * nodes[name]] * 11 for name, us in real.items()}, nodes, cpu

    monkeypatch.setattr(measure_kernels, "_profiled", on_a_clock_of_our_own)
    (found,), reference = measure_kernels.measure([tiny], Setting())
    assert reference == pytest.approx(90e-6)
    assert found * reference == pytest.approx(0.5e-6)


def test_the_caches_of_this_machine_are_measured():
    found = caches.measured(Setting())
    assert len(found.held) == len(found.slower) == len(caches.COPIES)
    assert found.slower[0] == 0
    assert list(found.slower) == sorted(found.slower)
    assert found.reading(1e8) >= found.reading(1e7) >= 0
    assert caches.measured(Setting("CUDAExecutionProvider")) == Caches()


def test_twice_the_work_takes_longer():
    small, large = Kernel("conv", REFERENCE.fixed, (32, 32, 1)), REFERENCE
    (one, four), _ = measure_kernels.measure([small, large], Setting())
    assert one < 0.6 * four


def test_a_table_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    path = tmp_path / "device.json"
    monkeypatch.setattr(profiling, "stairs", lambda setting: {("conv", 0): Stair(16)})
    needed = wanted(chain())
    families = dict(needed.families)
    first = dict(list(families.items())[:2])
    _, done = profile(path, Wanted(first), Setting())
    assert done
    known = json.loads(path.read_text())["families"]
    assert len(known) == 2
    found, done = profile(path, needed, Setting())
    again = json.loads(path.read_text())["families"]
    assert done
    assert again[:2] == known  # not measured again
    assert len(again) == len(families) == len(found.families)


def test_measuring_stops_when_the_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setattr(profiling, "stairs", lambda setting: {("conv", 0): Stair(16)})
    found, done = profile(tmp_path / "device.json", wanted(chain()), Setting(), seconds=0.0)
    assert not done
    assert (tmp_path / "device.json").exists()
    assert len(found.families) < 4


def test_a_table_of_another_device_is_not_added_to(tmp_path):
    table().save(tmp_path / "device.json")
    with pytest.raises(UsageError, match="another device") as caught:
        profile(tmp_path / "device.json", wanted(chain()), Setting())
    assert "processor: P there" in caught.value.why


def test_the_command_writes_a_table_and_says_what_is_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(profiling, "stairs", lambda setting: {("conv", 0): Stair(16)})
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "def net():\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(),"
        " torch.nn.Conv2d(16, 4, 1))\n"
    )
    path = tmp_path / "device.json"
    line = f"profile {tmp_path}/net.py:net --input-shape 2,3,8,8 -o {path} --json"
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["complete"]
    assert said["families"] == len(load(path).families) == 2
    wrong = CliRunner().invoke(app, f"{line} --threads 2".split())
    assert wrong.exit_code == 2
    assert "another device or setting" in wrong.stderr
