"""What is to be known of an operator stands in its row."""

import ast
from pathlib import Path

from compressor.passes.operators import RULES

ROOT = Path(__file__).resolve().parents[3]

RULED = (
    "passes/operators/",
    "passes/frontend/decompositions.py",
    "passes/frontend/torch_export.py",
)
"""Where operators have names: their rows, and what a captured graph is cleaned of."""
CALLED = {  # file: why it names operators
    "passes/transforms/prune.py": "writes the call that selects channels by index",
    "compressor/onnx/lowering.py": "writes some calls in others, which the exporter has words for",
}
SPELLED = {  # file: what strings mean there that are names of operators as well
    "compressor/criteria/torch_pruning.py": "functions of torch-pruning",
    "compressor/timing/profiling.py": "kinds of kernels, and kernels that most networks have",
    "compressor/timing/kernel_models.py": "kinds of kernels",
    "compressor/metrics/metric.py": "whether more is better",
    "compressor/metrics/directions.py": "whether more is better",
}


def named(root: Path) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """By file: operators by attribute (``aten.relu``), and those in literals of several strings."""
    names = {op._schema.name.removeprefix("aten::") for op in RULES}
    called: dict[str, set[str]] = {}
    spelled: dict[str, set[str]] = {}
    for file in sorted((*root.glob("passes/**/*.py"), *root.glob("compressor/**/*.py"))):
        path = file.relative_to(root).as_posix()
        if path.startswith(RULED):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("aten"):
                called.setdefault(path, set()).add(node.attr)
            members = getattr(node, "keys", None) or getattr(node, "elts", None) or ()
            found = {str(getattr(one, "value", "")).rstrip("_") for one in members} & names
            if len(found) > 1:
                spelled.setdefault(path, set()).update(found)
    return called, spelled


def test_facts_about_operators_stand_in_their_rows():
    called, spelled = named(ROOT)
    assert called.keys() == CALLED.keys(), called
    assert spelled.keys() == SPELLED.keys(), spelled


def test_a_table_of_operators_is_found(tmp_path):
    file = tmp_path / "passes" / "bad.py"
    file.parent.mkdir()
    file.write_text('A = {aten.relu.default}\nB = ("conv2d", "linear_", "none")\n')
    assert named(tmp_path) == ({"passes/bad.py": {"relu"}}, {"passes/bad.py": {"conv2d", "linear"}})
