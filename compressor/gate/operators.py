"""What ONNX operators multiply: a rule for each that multiplies and adds up, from its sizes.

    Conv            every number of the output takes a filter
    MatMul          every number of the output takes a row of the first input
    Einsum          pair by pair, from the left, all indices that both have
    LSTM            every step takes all weights
    Attention       queries with keys, and what comes of that with values

An operator is in one of the tables of `RULES`, or in one of `IDLE`, which count as none:
elementwise functions, norms, sums and means, pooling, resampling, moving data. Whatever is in
neither is refused by whoever counts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compressor.onnx.model_files import inner
from compressor.passes.base.errors import UsageError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class NodeCall:
    """A node, and the sizes of what goes in and comes out.

    `shape` gives those of a value by its name, and raises where they are not known; `value` gives
    what does not depend on the inputs.
    """

    node: Any
    shape: Callable[[str], Shape]
    value: Callable[[str], np.ndarray | None]

    def has(self, index: int) -> bool:
        """Whether the optional input is given."""
        return len(self.node.input) > index and bool(self.node.input[index])

    def x(self, index: int = 0) -> Shape:
        """Sizes of an input. Raises UsageError where it is missing."""
        if not self.has(index):
            raise UsageError(f"{self.node.op_type} has no input {index}")
        return self.shape(self.node.input[index])

    def y(self, index: int = 0) -> Shape:
        """Sizes of an output."""
        return self.shape(self.node.output[index])

    def number(self, index: int) -> int:
        """The value of an input that is one number, whatever the model is given."""
        found = self.value(self.node.input[index])
        if found is None or found.size != 1:
            raise UsageError(f"input {index} of {self.node.op_type} is not a fixed number")
        return int(found.item())

    def attribute(self, name: str, default: Any = None) -> Any:
        """By its name."""
        from onnx import helper

        for one in self.node.attribute:
            if one.name == name:
                return helper.get_attribute_value(one)
        return default


Rule = Callable[[NodeCall], int]
"""A call to its multiply-accumulates."""


def _conv(weight: int) -> Rule:
    """`weight`: which input has the filters, [out, in / groups, ...]."""
    return lambda call: math.prod(call.y()) * math.prod(call.x(weight)[1:])


def _transposed(call: NodeCall) -> int:
    return math.prod(call.x()) * math.prod(call.x(1)[1:])


def _matmul(call: NodeCall) -> int:
    """Also where the first is transposed, in its last two axes or with the first one."""
    x = call.x()
    depth = x[-1]
    if call.attribute("transA", 0):
        depth = x[0] if call.attribute("transBatchA", 0) else x[-2]
    return math.prod(call.y()) * depth


def _recurrent(call: NodeCall) -> int:
    """Steps times batch times the weights of input and state, of all directions."""
    x = call.x()
    return x[0] * x[1] * (math.prod(call.x(1)) + math.prod(call.x(2)))


def _einsum(call: NodeCall) -> int:
    """Two at a time, from the left; what no later term needs is summed up after each."""
    equation = call.attribute("equation", b"").decode().replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    sizes: dict[str, int] = {}
    labels = [_labels(term, call.x(index), sizes) for index, term in enumerate(terms)]
    names = [one for label in labels for one in label]
    dots = {one for one in names if one.startswith(".")}
    output = {one for one in names if names.count(one) == 1} | dots
    if "->" in equation:
        output = set(right.replace(".", "")) | (dots if "..." in right else set())
    total, have = 0, labels[0]
    for index, label in enumerate(labels[1:], 2):
        every = have | label
        total += math.prod(sizes[one] for one in every)
        have = every & (output | set().union(*labels[index:]))
    return total


def _labels(term: str, shape: Shape, sizes: dict[str, int]) -> set[str]:
    """The indices of a term; those of dots are counted from the right. Fills in their sizes."""
    before, dots, after = term.partition("...")
    hidden = len(shape) - len(before) - len(after)
    found = [*before, *(f".{hidden - at}" for at in range(hidden if dots else 0)), *after]
    for one, size in zip(found, shape, strict=True):
        if sizes.get(one, 1) == 1:  # which is spread over the others
            sizes[one] = size
    return set(found)


def _attention(call: NodeCall) -> int:
    """Of the standard: [batch, heads, steps, size], or [batch, steps, heads * size]."""
    q, k, v = call.x(0), call.x(1), call.x(2)
    past = call.x(4)[2] if call.has(4) else 0
    if len(q) == 4:
        return q[0] * q[1] * q[2] * (k[2] + past) * (q[3] + v[3])
    heads, own = int(call.attribute("q_num_heads")), int(call.attribute("kv_num_heads"))
    return q[0] * q[1] * (k[1] + past) * (q[2] + v[2] // own * heads)


def _projected(weight: int, past: int) -> Rule:
    """ONNX Runtime's attention with the projection of queries, keys and values in it."""

    def rule(call: NodeCall) -> int:
        batch, steps = call.x()[:2]
        weights = call.x(weight)
        own: Sequence[int] = call.attribute("qkv_hidden_sizes") or [weights[1] // 3] * 3
        length = steps + (call.x(past)[3] if call.has(past) else 0)
        return batch * steps * (math.prod(weights) + length * (own[0] + own[2]))

    return rule


def _multihead(past: int) -> Rule:
    """ONNX Runtime's: queries alone, or packed with keys and values, or those as caches."""

    def rule(call: NodeCall) -> int:
        q = call.x()
        size = wide = q[2] * q[4] if len(q) == 5 else q[2]
        length = q[1]
        if len(q) == 3:
            k = call.x(1)
            length = k[2] if len(k) == 4 else k[1]
            if call.has(2):
                v = call.x(2)
                wide = v[1] * v[3] if len(v) == 4 else v[2]
        length += call.x(past)[2] if call.has(past) else 0
        return q[0] * q[1] * length * (size + wide)

    return rule


def _grouped_queries(call: NodeCall) -> int:
    """ONNX Runtime's: keys and values of fewer heads, or packed behind the queries."""
    q = call.x()
    heads, own = int(call.attribute("num_heads")), int(call.attribute("kv_num_heads"))
    size = q[2] // heads if call.has(1) else q[2] // (heads + 2 * own)
    length = (call.x(1)[1] if call.has(1) else q[1]) + (call.x(3)[2] if call.has(3) else 0)
    return q[0] * q[1] * length * 2 * heads * size


def _fourier(call: NodeCall) -> int:
    """As the product with its matrix: what a fast transform saves is not looked at."""
    x = call.x()
    axis = call.number(2) if call.has(2) else call.attribute("axis", -2 if len(x) > 2 else 1)
    return math.prod(call.y()) * x[axis] * x[-1]


def _short_fourier(call: NodeCall) -> int:
    x = call.x()
    length = call.number(3) if call.has(3) else call.x(2)[0]
    return math.prod(call.y()) * length * (x[2] if len(x) == 3 else 1)


def _grid(call: NodeCall) -> int:
    """Every place is multiplied by a small matrix."""
    return math.prod(call.y()) * call.x()[-1]


def _linear(call: NodeCall) -> int:
    return call.x()[0] * len(call.attribute("coefficients", ()))


STANDARD: Mapping[str, Rule] = {
    "AffineGrid": _grid,
    "Attention": _attention,
    "CausalConvWithState": _conv(1),
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "ConvTranspose": _transposed,
    "DFT": _fourier,
    "DeformConv": _conv(1),
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _matmul,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearConv": _conv(3),
    "QLinearMatMul": _matmul,
    "RNN": _recurrent,
    "STFT": _short_fourier,
}

MICROSOFT: Mapping[str, Rule] = {
    "Attention": _projected(1, 4),
    "CausalConvWithState": _conv(1),
    "ConvTransposeWithDynamicPads": _transposed,
    "DecoderMaskedMultiHeadAttention": _multihead(5),
    "DecoderMaskedSelfAttention": _projected(1, 4),
    "DynamicQuantizeLSTM": _recurrent,
    "DynamicQuantizeMatMul": _matmul,
    "FusedConv": _conv(1),
    "FusedGemm": _matmul,
    "FusedMatMul": _matmul,
    "FusedMatMulActivation": _matmul,
    "GemmFastGelu": _matmul,
    "GemmFloat8": _matmul,
    "GroupQueryAttention": _grouped_queries,
    "MatMulBnb4": _matmul,
    "MatMulFpQ4": _matmul,
    "MatMulInteger16": _matmul,
    "MatMulIntegerToFloat": _matmul,
    "MatMulNBits": _matmul,
    "MultiHeadAttention": _multihead(6),
    "NhwcConv": _conv(1),
    "NhwcFusedConv": _conv(1),
    "QAttention": _projected(1, 8),
    "QGemm": _matmul,
    "QLinearConv": _conv(3),
    "TransposeMatMul": _matmul,
}

RULES: Mapping[str, Mapping[str, Rule]] = {
    "": STANDARD,
    "ai.onnx.ml": {"LinearClassifier": _linear, "LinearRegressor": _linear},
    "com.microsoft": MICROSOFT,
    "com.microsoft.nchwc": {"Conv": _conv(1)},
}
"""By domain and operator."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


IDLE: Mapping[str, frozenset[str]] = {
    "": _set(
        """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
    Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast
    CastLike Ceil Celu CenterCropPad Clip Col2Im Compress Concat ConcatFromSequence Constant
    ConstantOfShape Cos Cosh CumProd CumSum DepthToSpace DequantizeLinear Div Dropout
    DynamicQuantizeLinear Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements
    GatherND Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity
    ImageDecoder InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax LpNormalization LpPool Max MaxPool MaxRoiPool MaxUnpool Mean
    MeanVarianceNormalization MelWeightMatrix Min Mish Mod Mul Multinomial Neg
    NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not OneHot Optional OptionalGetElement
    OptionalHasElement Or PRelu Pad Pow QuantizeLinear RMSNormalization RandomNormal
    RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare RegexFullMatch Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding
    Round Scatter ScatterElements ScatterND Selu SequenceAt SequenceConstruct SequenceEmpty
    SequenceErase SequenceInsert SequenceLength Shape Shrink Sigmoid Sign
    SimplifiedLayerNormalization Sin Sinh Size Slice Softmax SoftmaxCrossEntropyLoss Softplus
    Softsign SpaceToDepth Split SplitToSequence Sqrt Squeeze StringConcat StringNormalizer
    StringSplit Sub Sum SwiGLU Swish Tan Tanh TensorScatter TfIdfVectorizer ThresholdedRelu Tile
    TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor
        """
    ),
    "ai.onnx.ml": _set(
        """
    ArrayFeatureExtractor Binarizer CastMap CategoryMapper DictVectorizer FeatureVectorizer
    Imputer LabelEncoder Normalizer OneHotEncoder Scaler TreeEnsemble TreeEnsembleClassifier
    TreeEnsembleRegressor ZipMap
        """
    ),
    "com.microsoft": _set(
        """
    BiasAdd BiasDropout BiasGelu BiasSoftmax BiasSplitGelu BitmaskBiasDropout BitmaskDropout
    ComplexMul ComplexMulConj CropAndResize DequantizeBFP DequantizeLinear DequantizeWithOrder
    EmbedLayerNormalization ExpandDims FastGelu GatedRMSNorm GatherBlockQuantized GatherND Gelu
    GemmaRotaryEmbedding GridSample GroupNorm IsAllFinite MRotaryEmbedding MaxpoolWithMask
    MulInteger MurmurHash3 NGramRepeatBlock NhwcMaxPool Pad QEmbedLayerNormalization QLinearAdd
    QLinearAveragePool QLinearConcat QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul
    QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere QOrderedGelu
    QOrderedLayerNormalization QuantizeBFP QuantizeLinear QuantizeWithOrder QuickGelu Range
    ReduceSumInteger RelativePositionBias RemovePadding RestorePadding RotaryEmbedding SampleOp
    ScaledSiLU SkipGroupNorm SkipLayerNormalization SkipSimplifiedLayerNormalization Tokenizer
    Trilu UnfoldTensor Unique
        """
    ),
    "com.microsoft.nchwc": _set(
        """
    AveragePool GlobalAveragePool GlobalMaxPool MaxPool ReorderInput ReorderOutput Upsample
        """
    ),
}
"""Operators that count as none, by domain."""


def domain_of(node: Any) -> str:
    """The standard domain has two names."""
    domain: str = node.domain
    return "" if domain == "ai.onnx" else domain


def named(node: Any) -> str:
    """A node in words."""
    kind = f"{domain_of(node)}.{node.op_type}".lstrip(".")
    return f"{kind} {node.name!r}" if node.name else kind


def idle(nodes: Sequence[Any]) -> bool:
    """Whether nothing in these nodes, or in graphs within them, multiplies."""
    for node in nodes:
        graphs = inner([node])
        if not all(idle(graph.node) for graph in graphs):
            return False
        if not graphs and node.op_type not in IDLE.get(domain_of(node), ()):
            return False
    return True
