"""Loading what the user names: each mistake is a UsageError that says where it was made."""

import os
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from compressor.passes.base.errors import GateError, UsageError
from safetensors.torch import save_file, save_model
from torch import nn

from compressor.loading import check_finite, load_callable, load_inputs, load_model
from compressor.loading.weights import read_weights

NET = """\
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.body = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.norm(self.body(x)).mean((2, 3)))

def net():
    return Net()

def wide(width):
    return Net(width)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder. What is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        known = vars(sys.modules[name])
        if str(tmp_path) in f"{known.get('__file__')} {known.get('__path__')}":
            del sys.modules[name]


def write(path: str, text: str = NET) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def refused(spec: str, weights: Path | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load_model(spec, weights)
    return caught.value


# ---------------------------------------------------------------------------- callables


def test_a_file_is_loaded_from_any_folder(here):
    elsewhere = write(f"{here}/far/away/mine.py")
    assert load_callable(f"{elsewhere}:net")().body.out_channels == 4
    assert load_callable("far/away/mine.py:net")().body.out_channels == 4


def test_a_module_is_looked_up_from_the_current_folder(here):
    write("load_zoo/mine.py")
    assert load_callable("load_zoo.mine:net")().head.out_features == 2


def test_an_installed_module_is_found(here):
    assert load_callable("math:sqrt")(9.0) == 3.0


def test_a_nested_name_is_found(here):
    write("mine.py", "class Zoo:\n    @staticmethod\n    def five():\n        return 5\n")
    assert load_callable("mine.py:Zoo.five")() == 5


def test_arguments_and_the_name_of_a_callable_pass_through(here):
    write("mine.py")
    wide = load_callable("mine.py:wide")
    assert wide(6).body.out_channels == 6
    assert wide.__name__ == "wide"


def test_a_file_imports_from_the_current_folder_and_from_its_own(here):
    write("load_zoo/__init__.py", "")
    write("load_zoo/_seven.py", "SEVEN = 7\n")
    write("load_zoo/beside.py", "EIGHT = 8\n")
    write(
        "load_zoo/mine.py",
        "from load_zoo._seven import SEVEN\nfrom beside import EIGHT\n"
        "def both():\n    return SEVEN, EIGHT\n",
    )
    assert load_callable("load_zoo/mine.py:both")() == (7, 8)


def test_an_import_inside_the_callable_works(here):
    write("load_later.py", "NINE = 9\n")
    write("mine.py", "def nine():\n    from load_later import NINE\n    return NINE\n")
    assert load_callable("mine.py:nine")() == 9


def test_the_import_path_is_left_as_it_was(here):
    write("mine.py")
    before = list(sys.path)
    load_callable("mine.py:net")()
    with pytest.raises(UsageError):
        load_callable("nowhere.at.all:net")
    assert sys.path == before


def test_one_file_is_loaded_once(here):
    write("mine.py", "COUNT = []\ndef count():\n    COUNT.append(1)\n    return len(COUNT)\n")
    assert [load_callable("mine.py:count")(), load_callable("./mine.py:count")()] == [1, 2]


def test_two_files_of_the_same_name_are_two_modules(here):
    write("a/mine.py", "def which():\n    return 'a'\n")
    write("b/mine.py", "def which():\n    return 'b'\n")
    assert [load_callable(f"{folder}/mine.py:which")() for folder in "ab"] == ["a", "b"]


@pytest.mark.parametrize("spec", ["mine.py", "mine", "mine.py:", ":net", "mine.py:two words"])
def test_a_spec_without_a_callable_is_refused(here, spec):
    write("mine.py")
    error = refused(spec)
    assert "does not say which callable" in error.what
    assert "module:callable or path/file.py:callable" in error.why


def test_a_file_that_is_not_there_is_named_with_its_neighbours(here):
    write("models/resnet.py")
    error = refused("models/resnt.py:net")
    assert error.what == "no such file: models/resnt.py"
    assert error.hint == "did you mean resnet.py?"
    assert str(here) in error.where


def test_a_file_named_without_its_ending_is_recognised(here):
    write("models/resnet.py")
    assert refused("models/resnet:net").hint == "did you mean resnet.py?"


def test_a_folder_that_is_not_there_is_named(here):
    assert refused("modles/resnet.py:net").why == "there is no folder modles"


def test_a_module_that_is_not_there_is_named_with_its_neighbours(here):
    write("load_zoo/resnet.py")
    error = refused("load_zoo.resnt:net")
    assert error.what == "no such module: load_zoo.resnt"
    assert error.hint == "did you mean load_zoo.resnet?"
    assert isinstance(error.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize("spec", [".models:net", "my-models:net", "a..b:net"])
def test_what_cannot_be_a_module_is_refused(here, spec):
    assert "is not the name of a module" in refused(spec).what


def test_a_callable_that_is_not_there_is_named_with_its_neighbours(here):
    write("mine.py")
    error = refused("mine.py:nett")
    assert error.what == "no such callable: nett"
    assert error.where == "mine.py"
    assert error.hint.startswith("did you mean net")


def test_a_module_without_near_names_lists_what_it_has(here):
    write("mine.py")
    assert refused("mine.py:zzz").hint == "there is Net, net, wide"


def test_a_name_that_cannot_be_called_is_refused(here):
    write("mine.py", "net = 3\n")
    assert refused("mine.py:net").what == "mine.py:net is an int, which cannot be called"


def test_a_file_that_raises_on_import_is_named_with_its_line(here):
    write("mine.py", "import math\n\nmath.sqrt(-1)\n")
    error = refused("mine.py:net")
    assert error.what == "cannot import mine.py"
    assert error.where == "mine.py:3 in <module>"
    assert error.why.startswith("ValueError: ")
    assert isinstance(error.__cause__, ValueError)


def test_a_file_that_raised_is_tried_again(here):
    write("mine.py", "raise RuntimeError\n")
    assert refused("mine.py:net").why == "RuntimeError"
    assert refused("mine.py:net").why == "RuntimeError"


def test_a_mistake_in_a_file_that_is_imported_names_that_file(here):
    write("load_helper.py", "x = 1\nx.nothing\n")
    write("mine.py", "import load_helper\n")
    assert refused("mine.py:net").where == "load_helper.py:2 in <module>"


def test_a_syntax_error_names_its_line(here):
    write("mine.py", "x = 1\ndef net(:\n")
    error = refused("mine.py:net")
    assert error.where == "mine.py:2"
    assert error.why.startswith("SyntaxError: ")


def test_a_missing_dependency_is_told_from_a_missing_module(here):
    write("load_zoo/mine.py", "import not_installed.at_all\n")
    error = refused("load_zoo.mine:net")
    assert error.what == "cannot import load_zoo.mine"
    assert error.where == "load_zoo/mine.py:1 in <module>"
    assert "install not_installed" in error.hint


def test_a_relative_import_in_a_file_is_explained(here):
    write("load_zoo/__init__.py", "")
    write("load_zoo/other.py", "THREE = 3\n")
    write("load_zoo/mine.py", "from .other import THREE\ndef three():\n    return THREE\n")
    error = refused("load_zoo/mine.py:three")
    assert "relative import" in error.why
    assert "package.module:callable" in error.hint
    assert load_callable("load_zoo.mine:three")() == 3


def test_a_script_that_exits_on_import_does_not_end_the_program(here):
    write("mine.py", "import sys\nsys.exit('usage: mine.py DATA')\n")
    error = refused("mine.py:net")
    assert error.why == "SystemExit: usage: mine.py DATA"
    assert "__main__" in error.hint


def test_a_callable_that_raises_names_the_line_in_the_users_file(here):
    write(
        "mine.py",
        "import json\n\ndef read():\n    return json.loads('{')\n\ndef net():\n    return read()\n",
    )
    error = refused("mine.py:net")
    assert error.what == "mine.py:net raised an exception"
    assert error.where == "mine.py:4 in read"
    assert error.why.startswith("JSONDecodeError: ")
    assert error.__cause__ is not None


def test_a_callable_used_later_names_its_line_too(here):
    write("mine.py", "def accuracy(predict):\n    return predict(1) / 0\n")
    accuracy = load_callable("mine.py:accuracy")
    with pytest.raises(UsageError) as caught:
        accuracy(lambda x: x)
    assert caught.value.where == "mine.py:2 in accuracy"


def test_our_own_errors_pass_through_the_users_code(here):
    write("mine.py", "def accuracy(predict):\n    return predict(1)\n")

    def predict(x):
        raise GateError("not equal")

    with pytest.raises(GateError, match="not equal"):
        load_callable("mine.py:accuracy")(predict)


def test_an_interrupt_passes_through_the_users_code(here):
    write("mine.py", "def net():\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_model("mine.py:net")


# ---------------------------------------------------------------------------- models


def test_a_model_comes_in_eval_mode_with_its_module(here):
    write("mine.py")
    model, namespace = load_model("mine.py:net")
    assert not any(part.training for part in model.modules())
    assert isinstance(model, namespace.Net)


def test_a_class_and_an_instance_may_be_named(here):
    write("mine.py", f"{NET}\nready = Net(5)\n")
    assert load_model("mine.py:Net")[0].body.out_channels == 4
    assert load_model("mine.py:ready")[0].body.out_channels == 5


def test_a_callable_that_needs_arguments_is_refused(here):
    write("mine.py")
    error = refused("mine.py:wide")
    assert error.what == "mine.py:wide needs arguments: width"
    assert "without arguments" in error.hint


@pytest.mark.parametrize(
    ("returned", "kind"),
    [
        ("None", "None"),
        ("{'weight': 1}", "a dict"),
        ("(nn.ReLU(), 2)", "a tuple"),
        ("nn.ReLU", "a type"),
    ],
)
def test_what_is_not_a_module_is_refused(here, returned, kind):
    write("mine.py", f"from torch import nn\ndef net():\n    return {returned}\n")
    assert (
        refused("mine.py:net").what == f"what mine.py:net returned is {kind}, not a torch.nn.Module"
    )


def test_weights_returned_instead_of_a_model_are_recognised(here):
    write("mine.py", f"{NET}\ndef state():\n    return Net().state_dict()\n")
    assert "--weights" in refused("mine.py:state").hint


def test_a_model_inside_data_parallel_is_refused(here):
    write("mine.py", f"{NET}\ndef parallel():\n    return nn.DataParallel(Net())\n")
    assert ".module" in refused("mine.py:parallel").hint


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # it is what we refuse
def test_a_torchscript_model_is_refused(here):
    write(
        "mine.py",
        "import torch\ndef net():\n"
        "    return torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))\n",
    )
    assert "TorchScript" in refused("mine.py:net").what


@pytest.mark.parametrize("suffix", ["", ":net"])
@pytest.mark.parametrize(
    ("file", "why", "hint"),
    [
        ("net.onnx", "an ONNX file", "callable"),
        ("net.pt2", "runs code", "callable"),
        ("net.pt", "weights", "--weights"),
        ("some/net.pth", "weights", "--weights"),
        ("net.safetensors", "weights", "--weights"),
    ],
)
def test_a_file_that_is_no_code_is_refused_as_a_model(here, file, why, hint, suffix):
    error = refused(file + suffix)
    assert error.what == f"{file} does not say how to build a model"
    assert why in error.why
    assert hint in error.hint


# ---------------------------------------------------------------------------- finite weights


@pytest.mark.parametrize(
    ("value", "trouble"), [(float("nan"), "1 NaN"), (float("-inf"), "1 infinite")]
)
def test_a_weight_that_is_no_number_is_named(value, trouble):
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    model[1].weight.data[0, 1] = value
    with pytest.raises(UsageError) as caught:
        check_finite(model)
    assert caught.value.what == f"1.weight has {trouble} among its 6 values"


def test_every_broken_weight_is_counted():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(UsageError, match=r"0\.weight has 6 NaN") as caught:
        check_finite(model)
    assert caught.value.where.startswith("and 3 others: 0.bias has 3 NaN")


def test_a_buffer_may_be_infinite_but_not_nan():
    model = nn.Module()
    model.register_buffer("mask", torch.full((2, 2), float("-inf")))
    check_finite(model)
    model.mask[0, 0] = float("nan")
    with pytest.raises(UsageError, match=r"mask has 1 NaN among its 4 values"):
        check_finite(model)


def test_whole_numbers_eight_bit_formats_and_empty_weights_are_finite():
    model = nn.BatchNorm2d(2)
    model.register_buffer("table", torch.arange(3))
    model.register_buffer("small", torch.ones(2).to(torch.float8_e4m3fn))
    model.register_buffer("empty", torch.zeros(0))
    check_finite(model)


def test_a_model_that_computes_nan_weights_is_refused(here):
    write("mine.py", f"{NET}\ndef bad():\n    m = Net()\n    m.head.bias.data /= 0\n    return m\n")
    assert "head.bias has 2 infinite" in refused("mine.py:bad").what


def test_weights_without_values_are_refused(here):
    lazy, meta = nn.LazyLinear(3), nn.Linear(2, 2, device="meta")
    with pytest.raises(UsageError, match="weight has no shape"):
        check_finite(lazy)
    with pytest.raises(UsageError, match="weight has no values: it is on the meta device"):
        check_finite(meta)


# ---------------------------------------------------------------------------- weights


def saved(name: str, state: Any) -> Path:
    path = Path(name)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def random_state(here: Path) -> dict[str, torch.Tensor]:
    write("mine.py")
    model, _ = load_model("mine.py:net")
    return {
        name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor + 7
        for name, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth"])
def test_weights_replace_every_parameter_and_buffer(here, name):
    state = random_state(here)
    model, _ = load_model("mine.py:net", saved(name, state))
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)


def test_the_only_state_dict_of_a_checkpoint_is_used(here):
    state = random_state(here)
    model, _ = load_model("mine.py:net", saved("w.pt", {"epoch": 3, "model": state}))
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)


def test_a_checkpoint_with_two_state_dicts_is_refused(here):
    state = random_state(here)
    error = refused("mine.py:net", saved("w.pt", {"model": state, "ema": state}))
    assert error.why == "it holds 2: model, ema"


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}])
def test_a_checkpoint_without_a_state_dict_is_refused(here, content):
    write("mine.py")
    assert "is not a dict of weights" in refused("mine.py:net", saved("w.pt", content)).what


def test_tied_weights_may_be_saved_once(here):
    write(
        "tied.py",
        "from torch import nn\n\nclass Tied(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.first = nn.Linear(3, 3, bias=False)\n"
        "        self.last = nn.Linear(3, 3, bias=False)\n"
        "        self.last.weight = self.first.weight\n",
    )
    other, _ = load_model("tied.py:Tied")
    save_model(other, "w.safetensors")
    model, _ = load_model("tied.py:Tied", Path("w.safetensors"))
    assert torch.equal(model.state_dict()["last.weight"], other.state_dict()["first.weight"])


def test_missing_and_unexpected_names_are_counted_and_listed(here):
    state = random_state(here)
    del state["body.weight"], state["head.bias"]
    state |= {f"extra.{i}": torch.zeros(1) for i in range(6)}
    error = refused("mine.py:net", saved("w.safetensors", state))
    assert error.what == "the weights do not fit the model"
    assert error.where == "w.safetensors"
    assert "2 missing: body.weight, head.bias" in error.why
    assert "6 unexpected: extra.0, extra.1, extra.2, extra.3 and 2 more" in error.why


def test_the_prefix_of_data_parallel_is_recognised(here):
    state = {f"module.{name}": tensor for name, tensor in random_state(here).items()}
    assert "begin with `module.`" in refused("mine.py:net", saved("w.pt", state)).hint


def test_weights_of_another_shape_are_named(here):
    state = random_state(here) | {"head.weight": torch.zeros(10, 4)}
    error = refused("mine.py:net", saved("w.pt", state))
    assert error.what == "1 of 9 weights have another shape than the model's"
    assert error.why == "head.weight is (10, 4) in the file, (2, 4) in the model"


def test_weights_that_are_not_finite_are_refused(here):
    state = random_state(here)
    state["head.weight"][0] = float("nan")
    assert "head.weight has 4 NaN" in refused("mine.py:net", saved("w.pt", state)).what


def test_a_weights_file_that_is_not_there_is_named_with_its_neighbours(here):
    saved("best.pt", random_state(here))
    error = refused("mine.py:net", Path("bets.pt"))
    assert error.what == "no such file: bets.pt"
    assert error.hint == "did you mean best.pt?"


@pytest.mark.parametrize("name", ["w.onnx", "w.pt2", "w.npz", "w"])
def test_other_formats_of_weights_are_refused(here, name):
    write("mine.py")
    assert "cannot read weights" in refused("mine.py:net", write(name, "")).what


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_torn_file_is_refused(here, name, share):
    whole = saved(name, random_state(here)).read_bytes()
    Path(name).write_bytes(whole[: int(len(whole) * share)])
    error = refused("mine.py:net", Path(name))
    assert "cannot read weights" in error.what
    assert error.__cause__ is not None


def test_a_file_of_another_kind_is_refused(here):
    write("mine.py")
    assert "cannot read weights" in refused("mine.py:net", write("w.pt", "hello")).what


class _RunsCode:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(here):
    write("mine.py")
    error = refused("mine.py:net", saved("w.pt", {"body.weight": _RunsCode()}))
    assert "could run code" in error.what
    assert error.why.startswith("it asks for ")
    assert "mkdir" in error.why
    assert isinstance(error.__cause__, pickle.UnpicklingError)
    assert not Path("ran").exists()


def test_a_whole_pickled_model_is_refused(here):
    write("mine.py")
    error = refused("mine.py:net", saved("w.pt", nn.Linear(2, 2)))
    assert error.why == "it asks for torch.nn.modules.linear.Linear"
    assert "state_dict" in error.hint


# ---------------------------------------------------------------------------- inputs


def module(**names: object) -> ModuleType:
    namespace = ModuleType("mine")
    vars(namespace).update(names)
    return namespace


def test_a_shape_gives_a_tensor_and_the_same_one_each_time():
    x = load_inputs(module(), "2,3,8,8")
    assert (x.shape, x.dtype) == ((2, 3, 8, 8), torch.float32)
    assert torch.equal(x, load_inputs(module(), " 2, 3,8, 8 "))


def test_several_shapes_give_a_tuple_of_the_types_asked_for():
    ids, mask, x = load_inputs(module(), "1,16:int64; 1,16:bool;4:float64")
    assert (ids.dtype, mask.dtype, x.dtype) == (torch.int64, torch.bool, torch.float64)
    assert set(ids.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("text", ["", "1,x", "0,3", "-1,3", "1,,3", "1.5", "1,3;", "1x3", "a:bool"])
def test_a_shape_that_cannot_be_read_is_refused(text):
    with pytest.raises(UsageError) as caught:
        load_inputs(module(), text)
    assert caught.value.what == f"cannot read the input shape {text!r}"
    assert "1,3,224,224" in caught.value.hint


def test_an_unknown_type_is_refused_with_near_names():
    with pytest.raises(UsageError, match="unknown type 'int46'") as caught:
        load_inputs(module(), "1,16:int46")
    assert "int64" in caught.value.hint
    assert "bfloat16" in caught.value.why


def test_inputs_come_from_a_callable_that_is_named(here):
    write("data.py", "import torch\ndef batch():\n    return {'x': torch.ones(2, 3)}\n")
    assert load_inputs(module(), inputs="data.py:batch")["x"].shape == (2, 3)


def test_the_models_file_may_define_example_inputs(here):
    write(
        "mine.py",
        f"{NET}\nimport torch\ndef example_inputs():\n    return torch.ones(2, 3, 8, 8)\n",
    )
    model, namespace = load_model("mine.py:net")
    assert model(load_inputs(namespace)).shape == (2, 2)


def test_example_inputs_may_be_a_value():
    assert load_inputs(module(example_inputs=[torch.ones(2), 3]))[1] == 3


def test_what_is_asked_for_goes_before_example_inputs():
    assert load_inputs(module(example_inputs=torch.ones(2)), "1,5").shape == (1, 5)


def test_no_inputs_at_all_is_refused_with_the_ways_to_give_them(here):
    write("mine.py")
    _, namespace = load_model("mine.py:net")
    with pytest.raises(UsageError, match="no example inputs") as caught:
        load_inputs(namespace)
    assert caught.value.why == "mine.py does not define `example_inputs`"
    assert "--input-shape" in caught.value.hint
    assert "--inputs" in caught.value.hint


def test_inputs_given_twice_are_refused():
    with pytest.raises(UsageError, match="given twice"):
        load_inputs(module(), "1,2", "data.py:batch")


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, (1, 2), {1: torch.ones(2)}, [[3]]])
def test_what_no_model_can_be_called_with_is_refused(value):
    with pytest.raises(UsageError, match="as example inputs"):
        load_inputs(module(example_inputs=value))


def test_example_inputs_that_raise_name_their_line(here):
    write("mine.py", f"{NET}\ndef example_inputs():\n    return 1 / 0\n")
    _, namespace = load_model("mine.py:net")
    with pytest.raises(UsageError) as caught:
        load_inputs(namespace)
    assert caught.value.what == "mine.py:example_inputs raised an exception"
    assert "in example_inputs" in caught.value.where
    assert caught.value.why == "ZeroDivisionError: division by zero"


def test_example_inputs_that_need_arguments_are_refused():
    with pytest.raises(UsageError, match="needs arguments: n"):
        load_inputs(module(example_inputs=lambda n: n))


def test_an_archive_that_grows_when_it_is_read_is_refused(tmp_path):
    import zipfile

    torch.save({"a": torch.zeros(4)}, tmp_path / "good.pt")
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(bomb, "w") as out:
        for one in good.namelist():
            grown = b"\0" * 50_000_000 if "/data/" in one else good.read(one)
            out.writestr(one, grown, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1_000_000
    with pytest.raises(UsageError, match="holds 50,"):
        read_weights(bomb)
    assert list(read_weights(tmp_path / "good.pt")) == ["a"]


def test_a_checkpoint_that_says_it_spans_disks_is_refused(tmp_path):
    path, locator = tmp_path / "w.pt", b"PK\x06\x07"
    torch.save({"a": torch.zeros(4)}, path)
    good = path.read_bytes()
    assert good.count(locator) == 1
    path.write_bytes(good.replace(locator + bytes(4), locator + b"\1\0\0\0"))
    with pytest.raises(UsageError, match="cannot read weights from"):
        read_weights(path)
