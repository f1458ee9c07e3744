"""What a model multiplies is counted, wherever in it that is, or refused."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from compressor.passes.base.errors import UsageError
from onnx import TensorProto, defs, helper, numpy_helper
from onnx.helper import make_node as node
from onnx.helper import make_tensor_value_info as value

from compressor.gate import arithmetic
from compressor.gate.operators import IDLE, RULES, NodeCall
from compressor.gate.values import Values

X = value("x", TensorProto.FLOAT, [8, 16])
ONE = 8 * 16 * 16
"""Of one product of x with w."""

MS = {"domain": "com.microsoft"}


def tensor(name: str, *shape: int, kind: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, kind), name)


def macs(path: Path, batch: int = 1, given=None) -> int:
    return arithmetic.macs({"it": path}, batch, given)["it"]


def scalar(name: str, of: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(of), name)


W = tensor("w", 16, 16)
SCALE, ZERO = scalar("s", np.float32(0.1)), scalar("z", np.uint8(1))


def saved(
    path: Path,
    nodes,
    weights=(W,),
    inputs=(X,),
    outputs=("y",),
    opset=20,
    functions=(),
    ir=10,
    **more,
) -> Path:
    made = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "net", list(inputs), made, list(weights), **more)
    domains = ["com.microsoft", "own", "com.microsoft.nchwc", "ai.onnx.ml"]
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(one, 1) for one in domains)]
    onnx.save(
        helper.make_model(graph, opset_imports=opsets, ir_version=ir, functions=functions), path
    )
    return path


@pytest.fixture
def counted(tmp_path):
    """Save a model, and count it."""

    def count(*args, batch: int = 1, given=None, **kwargs) -> int:
        return macs(saved(tmp_path / "net.onnx", *args, **kwargs), batch, given)

    return count


# ---------------------------------------------------------------------------- single operators


def q(name: str, *shape: int):
    return value(name, TensorProto.FLOAT, list(shape))


IMAGE = q("x", "N", 4, 8, 8)
BYTES = value("x", TensorProto.UINT8, [8, 16])
PIXELS = value("x", TensorProto.UINT8, [1, 4, 8, 8])
FILTERS = tensor("k", 8, 4, 3, 3)
BYTE_FILTERS = tensor("k", 8, 4, 3, 3, kind=np.uint8)
BYTE_W = tensor("w", 16, 16, kind=np.uint8)
CONV = 36 * 8 * 36


def unit(kind: str, gates: int, ways: int = 1, **more):
    weights = [tensor("wx", ways, gates * 5, 16), tensor("r", ways, gates * 5, 5)]
    called = node(kind, ["x", "wx", "r"], ["y"], hidden_size=5, **more)
    return [called], weights, [q("x", 7, 2, 16)], 20, ways * 14 * gates * 5 * 21


OPERATORS = {
    "MatMul": ([node("MatMul", ["x", "w"], ["y"])], [W], [X], 20, ONE),
    "MatMul of vectors": ([node("MatMul", ["w", "w"], ["y"])], [tensor("w", 16)], [X], 20, 16),
    "Gemm": (
        [node("Gemm", ["x", "w"], ["y"], transA=1)],
        [tensor("w", 8, 5)],
        [X],
        20,
        16 * 8 * 5,
    ),
    "Conv": ([node("Conv", ["x", "k"], ["y"])], [FILTERS], [IMAGE], 20, CONV),
    "Conv in groups": (
        [node("Conv", ["x", "k"], ["y"], group=4)],
        [tensor("k", 8, 1, 3, 3)],
        [IMAGE],
        20,
        36 * 8 * 9,
    ),
    "ConvTranspose": (
        [node("ConvTranspose", ["x", "k"], ["y"])],
        [tensor("k", 4, 8, 3, 3)],
        [IMAGE],
        20,
        4 * 64 * 72,
    ),
    "DeformConv": (
        [node("DeformConv", ["x", "k", "o"], ["y"])],
        [FILTERS],
        [IMAGE, q("o", "N", 18, 6, 6)],
        19,
        CONV,
    ),
    "Einsum of two": (
        [node("Einsum", ["x", "w"], ["y"], equation="ij,jk->ik")],
        [W],
        [X],
        20,
        ONE,
    ),
    "Einsum with dots": (
        [node("Einsum", ["x", "w"], ["y"], equation="...j,jk->...k")],
        [W],
        [X],
        20,
        ONE,
    ),
    "Einsum without an output": (
        [node("Einsum", ["x", "w"], ["y"], equation="ij, jk")],
        [W],
        [X],
        20,
        ONE,
    ),
    "Einsum of three": (
        [node("Einsum", ["x", "w", "w"], ["y"], equation="ij,jk,kl->il")],
        [W],
        [X],
        20,
        2 * ONE,
    ),
    "RNN": unit("RNN", 1),
    "GRU": unit("GRU", 3),
    "LSTM both ways": unit("LSTM", 4, 2, direction="bidirectional"),
    "MatMulInteger": ([node("MatMulInteger", ["x", "w"], ["y"])], [BYTE_W], [BYTES], 20, ONE),
    "ConvInteger": ([node("ConvInteger", ["x", "k"], ["y"])], [BYTE_FILTERS], [PIXELS], 20, CONV),
    "QLinearMatMul": (
        [node("QLinearMatMul", ["x", "s", "z", "w", "s", "z", "s", "z"], ["y"])],
        [BYTE_W, SCALE, ZERO],
        [BYTES],
        20,
        ONE,
    ),
    "QLinearConv": (
        [node("QLinearConv", ["x", "s", "z", "k", "s", "z", "s", "z"], ["y"])],
        [BYTE_FILTERS, SCALE, ZERO],
        [PIXELS],
        20,
        CONV,
    ),
    "Conv between Q and DQ": (
        [
            node("QuantizeLinear", ["x", "s", "z"], ["a"]),
            node("DequantizeLinear", ["a", "s", "z"], ["b"]),
            node("DequantizeLinear", ["k", "s", "z"], ["c"]),
            node("Conv", ["b", "c"], ["y"]),
        ],
        [BYTE_FILTERS, SCALE, ZERO],
        [IMAGE],
        20,
        CONV,
    ),
    "Attention": (
        [node("Attention", ["q", "k", "v"], ["y"])],
        [],
        [q("q", 2, 4, 6, 8), q("k", 2, 4, 10, 8), q("v", 2, 4, 10, 8)],
        23,
        2 * 4 * 6 * 10 * 16,
    ),
    "Attention of grouped queries": (
        [node("Attention", ["q", "k", "v"], ["y"], q_num_heads=4, kv_num_heads=2)],
        [],
        [q("q", 2, 6, 32), q("k", 2, 10, 16), q("v", 2, 10, 16)],
        23,
        2 * 6 * 10 * 64,
    ),
    "DFT": (
        [node("DFT", ["x", "", "a"], ["y"])],
        [scalar("a", np.int64(1))],
        [q("x", 2, 9, 1)],
        20,
        2 * 9 * 2 * 9,
    ),
    "FusedMatMul": (
        [node("FusedMatMul", ["x", "w"], ["y"], transA=1, **MS)],
        [tensor("w", 8, 5)],
        [X],
        20,
        16 * 8 * 5,
    ),
    "a chain of fused ones": (
        [
            node("FusedMatMul", ["x", "w"], ["a"], transB=1, **MS),
            node("FastGelu", ["a"], ["b"], **MS),
            node("FusedMatMul", ["b", "w"], ["y"], **MS),
        ],
        [W],
        [X],
        20,
        2 * ONE,
    ),
    "FusedGemm": (
        [node("FusedGemm", ["x", "w"], ["y"], activation="Relu", **MS)],
        [W],
        [X],
        20,
        ONE,
    ),
    "FusedConv": (
        [node("FusedConv", ["x", "k"], ["y"], activation="Relu", **MS)],
        [FILTERS],
        [IMAGE],
        20,
        CONV,
    ),
    "DynamicQuantizeMatMul": (
        [node("DynamicQuantizeMatMul", ["x", "w", "s", "z"], ["y"], **MS)],
        [BYTE_W, SCALE, ZERO],
        [X],
        20,
        ONE,
    ),
    "MatMulIntegerToFloat": (
        [node("MatMulIntegerToFloat", ["x", "w", "s", "s", "z", "z"], ["y"], **MS)],
        [BYTE_W, SCALE, ZERO],
        [BYTES],
        20,
        ONE,
    ),
    "QGemm": (
        [node("QGemm", ["x", "s", "z", "w", "s", "z", "", "s", "z"], ["y"], **MS)],
        [BYTE_W, SCALE, ZERO],
        [BYTES],
        20,
        ONE,
    ),
    "MatMulNBits": (
        [node("MatMulNBits", ["x", "b", "c"], ["y"], K=32, N=24, bits=4, block_size=32, **MS)],
        [tensor("b", 24, 1, 16, kind=np.uint8), tensor("c", 24)],
        [q("x", 8, 32)],
        20,
        8 * 32 * 24,
    ),
    "Attention with its projection": (
        [node("Attention", ["x", "w", "b"], ["y"], num_heads=2, **MS)],
        [tensor("w", 16, 48), tensor("b", 48)],
        [q("x", 2, 6, 16)],
        20,
        2 * 6 * (16 * 48 + 6 * 32),
    ),
    "QAttention": (
        [node("QAttention", ["x", "w", "b", "s", "s", "", "z", "z"], ["y"], num_heads=2, **MS)],
        [tensor("w", 16, 48, kind=np.uint8), tensor("b", 48), SCALE, ZERO],
        [value("x", TensorProto.UINT8, [2, 6, 16])],
        20,
        2 * 6 * (16 * 48 + 6 * 32),
    ),
    "MultiHeadAttention": (
        [node("MultiHeadAttention", ["q", "k", "v"], ["y"], num_heads=4, **MS)],
        [],
        [q("q", 2, 6, 32), q("k", 2, 10, 32), q("v", 2, 10, 32)],
        20,
        2 * 6 * 10 * 64,
    ),
    "GroupQueryAttention": (
        [
            node(
                "GroupQueryAttention",
                ["q", "k", "v", "", "", "l", "t"],
                ["y"],
                num_heads=4,
                kv_num_heads=2,
                **MS,
            )
        ],
        [scalar("l", np.array([5], np.int32)), scalar("t", np.array([6], np.int32))],
        [q("q", 1, 6, 64), q("k", 1, 6, 32), q("v", 1, 6, 32)],
        20,
        6 * 6 * 128,
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_counted_by_their_sizes(name, counted):
    nodes, weights, inputs, opset, wanted = OPERATORS[name]
    assert counted(nodes, weights, inputs, opset=opset) == wanted


def test_every_operator_of_the_standard_is_counted_or_counts_as_none_or_is_refused():
    every = {one.name for one in defs.get_all_schemas_with_history() if not one.domain}
    refused = {"Det", "LinearAttention", "SequenceMap"}
    assert every <= RULES[""].keys() | IDLE[""] | arithmetic.CONTROL.keys() | refused
    for domain, idle in IDLE.items():
        assert not idle & RULES.get(domain, {}).keys()


# ---------------------------------------------------------------------------- graphs in graphs


def branch(name: str, products: int, kind: str = "MatMul", **more) -> onnx.GraphProto:
    """So many products of x with w, one after another."""
    names = ["x", *(f"{name}{at}" for at in range(products))]
    nodes = [node(kind, [a, "w"], [b], **more) for a, b in pairwise(names)]
    return helper.make_graph(nodes, name, [], [q(names[-1], 8, 16)])


def body(name: str, *nodes: onnx.NodeProto, end: str = "h2", go: str = "on") -> onnx.GraphProto:
    """Of a loop that carries h."""
    given = [value(f"i{name}", TensorProto.INT64, []), value("on", TensorProto.BOOL, [])]
    ends = [value(go, TensorProto.BOOL, []), value(end, TensorProto.FLOAT, None)]
    return helper.make_graph(nodes, name, [*given, value("h", TensorProto.FLOAT, None)], ends)


ASKED = value("c", TensorProto.BOOL, [])
TEN = scalar("ten", np.int64(10))
PRODUCT = node("MatMul", ["h", "w"], ["h2"])


def either(then: onnx.GraphProto, other: onnx.GraphProto) -> onnx.NodeProto:
    return node("If", ["c"], ["y"], then_branch=then, else_branch=other)


def looped(graph: onnx.GraphProto, times: str = "ten", start: str = "") -> onnx.NodeProto:
    return node("Loop", [times, start, "x"], ["y"], body=graph)


def test_of_two_branches_the_dearer_counts_unless_the_condition_is_fixed(counted):
    nodes = [either(branch("a", 1), branch("b", 10))]
    assert counted(nodes, inputs=[X, ASKED]) == 10 * ONE
    fixed = scalar("c", True)
    assert counted(nodes, [W, fixed]) == ONE
    assert counted(nodes, [W, fixed], inputs=[X, ASKED]) == 10 * ONE  # the caller may give another
    nodes = [either(branch("a", 1), branch("b", 3, "FusedMatMul", **MS))]
    assert counted(nodes, inputs=[X, ASKED]) == 3 * ONE


def test_a_loop_counts_as_often_as_it_runs(counted):
    assert counted([looped(body("b", PRODUCT))], [W, TEN]) == 10 * ONE
    assert counted([looped(body("b", PRODUCT), start="c")], [W, TEN, scalar("c", False)]) == 0
    fused = body("b", node("FusedMatMul", ["h", "w"], ["h2"], **MS))
    assert counted([looped(fused)], [W, TEN]) == 10 * ONE
    nested = body("b", node("Loop", ["ten", "", "h"], ["h2"], body=body("c", PRODUCT)))
    assert counted([looped(nested)], [W, TEN]) == 100 * ONE
    behind = [node("Loop", ["ten", "", "x"], ["t"], body=body("b", PRODUCT))]
    assert counted([*behind, node("MatMul", ["t", "w"], ["y"])], [W, TEN]) == 11 * ONE


def test_a_loop_over_the_size_of_an_input_is_counted(counted):
    nodes = [node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"])]
    nodes += [looped(body("b", PRODUCT), times="n")]
    assert counted(nodes, [W, scalar("zero", np.int64(0))]) == 8 * ONE


def test_a_loop_whose_runs_are_not_known_is_refused_if_it_multiplies(counted):
    count = value("n", TensorProto.INT64, [])
    with pytest.raises(UsageError, match="how often Loop runs is not known"):
        counted([looped(body("b", PRODUCT), times="n")], inputs=[X, count])
    with pytest.raises(UsageError, match="how often Loop runs is not known"):
        counted([looped(body("b", PRODUCT), times="")])
    sums = [node("ReduceSum", ["h2"], ["r"], keepdims=0), node("Greater", ["r", "s"], ["go"])]
    leaves = body("b", PRODUCT, *sums, go="go")
    with pytest.raises(UsageError, match="how often Loop runs is not known") as refused:
        counted([looped(leaves)], [W, TEN, SCALE])
    assert "fixed number of runs" in refused.value.hint
    idle = body("b", node("Relu", ["h"], ["h2"]))
    nodes = [node("Loop", ["n", "", "x"], ["t"], body=idle), node("MatMul", ["x", "w"], ["y"])]
    assert counted(nodes, inputs=[X, count]) == ONE


@pytest.mark.parametrize(
    ("broken", "lacks"),
    [
        (node("Loop", ["ten", "", "x"], ["y"]), "body"),
        (node("Scan", ["x"], ["y"], num_scan_inputs=1, body=3), "body"),
        (node("If", ["c"], ["y"], then_branch=branch("a", 1)), "else_branch"),
    ],
)
def test_an_operator_without_its_graph_is_refused(broken, lacks, tmp_path):
    graph = helper.make_graph([broken], "g", [X, ASKED], [q("y", 8, 16)], [W, TEN])
    values = Values(helper.make_model(graph), {}, tmp_path)
    call = NodeCall(broken, lambda _: (8, 16), lambda _: np.asarray(3))
    with pytest.raises(UsageError, match=f"it has no {lacks}"):
        arithmetic.CONTROL[broken.op_type](call, values)


def test_what_grows_from_run_to_run_is_refused_where_it_is_multiplied(counted):
    longer = node("Concat", ["h", "x"], ["h2"], axis=0)
    grows = body("b", longer, node("MatMul", ["h", "w"], ["unused"]))
    with pytest.raises(UsageError, match="MatMul are not known"):
        counted([looped(grows)], [W, TEN])
    beside = body("b", longer, node("MatMul", ["x", "w"], ["unused"]))
    assert counted([looped(beside)], [W, TEN]) == 10 * ONE


def test_a_scan_counts_every_step(counted):
    inner = helper.make_graph(
        [node("MatMul", ["a", "w"], ["b"]), node("Add", ["b", "e"], ["d"]),
         node("Identity", ["d"], ["o"])],
        "step", [q("a", 1, 16), q("e", 16)], [q("d", 1, 16), q("o", 1, 16)],
    )  # fmt: skip
    scan = node("Scan", ["start", "x"], ["end", "y"], body=inner, num_scan_inputs=1)
    assert counted([scan], [W, tensor("start", 1, 16)]) == 8 * 16 * 16


def test_functions_are_counted_where_they_are_called(counted):
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    twice = helper.make_function(
        "own", "Twice", ["a", "b"], ["r"],
        [node("MatMul", ["a", "b"], ["q"]), node("MatMul", ["q", "b"], ["r"])], opsets,
    )  # fmt: skip
    four = helper.make_function(
        "own", "Four", ["a", "b"], ["r"],
        [node("Twice", ["a", "b"], ["q"], domain="own"),
         node("Twice", ["q", "b"], ["r"], domain="own")], opsets,
    )  # fmt: skip
    called = node("Four", ["x", "w"], ["y"], domain="own")
    assert counted([called], functions=[twice, four]) == 4 * ONE
    inside = branch("a", 1, "Twice", domain="own")
    nodes = [either(inside, branch("b", 1))]
    assert counted(nodes, inputs=[X, ASKED], functions=[twice]) == 2 * ONE


@pytest.mark.parametrize("domain", ["", "com.microsoft", "ai.onnx.ml"])
def test_a_function_in_the_place_of_an_operator_is_refused(domain, counted):
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    idle = helper.make_function(
        domain, "FusedMatMul", ["a", "b"], ["r"], [node("Identity", ["a"], ["r"])], opsets
    )
    with pytest.raises(UsageError, match="has a function that is called"):
        counted([node("FusedMatMul", ["x", "w"], ["y"], domain=domain)], functions=[idle])


# ---------------------------------------------------------------------------- what is not known


@pytest.mark.parametrize(
    ("called", "inputs"),
    [
        (node("Twice", ["x", "w"], ["y"], domain="own", name="there"), [X]),
        (node("Product", ["x", "w"], ["y"], domain="somebody.else", name="there"), [X]),
        (node("MoE", ["x", "w", "w", "", "w"], ["y"], name="there", **MS), [X]),
        (node("NoSuchOperator", ["x", "w"], ["y"], name="there"), [X]),
        (node("MatMul", ["x", "w"], ["y"], name="there"), [q("x", 8, "free")]),
        (node("Einsum", ["x", "w"], ["y"], name="there", equation="ijk,j"), [X]),
    ],
    ids=["function", "domain", "experts", "operator", "size", "equation"],
)
def test_what_may_multiply_and_is_not_known_is_refused_by_its_name(called, inputs, counted):
    with pytest.raises(UsageError, match="'there' are not known") as refused:
        counted([called], inputs=inputs)
    assert refused.value.why
    assert "limit latency, file size or a metric" in refused.value.hint


def test_sizes_that_depend_on_the_data_are_refused(counted):
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("NonZero", ["a"], ["b"]),
        node("Transpose", ["b"], ["c"]),
        node("Cast", ["c"], ["d"], to=TensorProto.FLOAT),
        node("MatMul", ["d", "v"], ["y"]),
    ]
    with pytest.raises(UsageError, match="MatMul are not known") as refused:
        counted(nodes, [tensor("v", 2, 5)])
    assert "depends on the data" in refused.value.why


def test_what_a_file_says_of_values_between_is_not_believed(counted):
    nodes = [node("MatMul", ["x", "w"], ["t"]), node("MatMul", ["t", "w"], ["y"])]
    assert counted(nodes, value_info=[q("t", 1, 16)]) == 2 * ONE


def test_the_sizes_of_weights_are_those_that_run(counted):
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    assert counted(nodes, inputs=[X, q("w", "a", "b")]) == ONE  # may be given, and is not
    assert counted(nodes, inputs=[X, q("w", 16, 16)], ir=3) == ONE


def test_the_batch_is_set_and_inputs_that_are_given_have_their_own_sizes(counted):
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "first"], ["n"]),
        node("Concat", ["n", "rest"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["r"]),
        node("MatMul", ["r", "v"], ["y"]),
    ]
    weights = [scalar("first", np.array([0])), scalar("rest", np.array([-1])), tensor("v", 64, 3)]
    assert counted(nodes, weights, [q("x", "N", 4, 4, 4)], batch=5) == 5 * 64 * 3
    given = {"x": np.zeros((7, 16), np.float32)}
    assert counted([node("MatMul", ["x", "w"], ["y"])], inputs=[q("x", "N", "F")], given=given) == (
        7 * 256
    )


def test_two_models_are_counted_for_the_same_inputs(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    pair = {
        "fixed": saved(tmp_path / "a.onnx", nodes),
        "free": saved(tmp_path / "b.onnx", nodes, inputs=[q("x", "N", "F")]),
    }
    assert arithmetic.macs(pair, 1) == {"fixed": ONE, "free": ONE}
    other = {**pair, "other": saved(tmp_path / "c.onnx", nodes, inputs=[q("x", 1, 8, 16)])}
    with pytest.raises(UsageError, match="do not take the same input 'x'"):
        arithmetic.macs(other, 1)


def test_weights_outside_the_file_are_counted(tmp_path):
    model = onnx.load(saved(tmp_path / "a.onnx", [node("FusedMatMul", ["x", "w"], ["y"], **MS)]))
    onnx.save(
        model, tmp_path / "b.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    assert macs(tmp_path / "b.onnx", 1) == ONE


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED", "ALL"])
def test_what_onnx_runtime_makes_of_a_model_counts_the_same(level, tmp_path):
    nodes = [
        node("Conv", ["x", "k"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("Reshape", ["b", "flat"], ["c"]),
        node("Transpose", ["c"], ["d"], perm=[0, 2, 1]),
        node("MatMul", ["d", "c"], ["e"]),
        node("Mul", ["e", "s"], ["y"]),
    ]
    weights = [tensor("k", 16, 4, 3, 3), SCALE, scalar("flat", np.array([0, 16, 36]))]
    path = saved(tmp_path / "a.onnx", nodes, weights, [IMAGE])
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "b.onnx"), 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = 36 * 16 * 36 + 36 * 16 * 36
    assert macs(path, 1) == macs(tmp_path / "b.onnx", 1) == wanted
