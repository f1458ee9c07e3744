"""`compressor.load(directory, module)`: the small network of a release, trainable, from no pickle.

passes.json says what ran: the module is captured again, its log is run again on it, and it gets the
values of model.safetensors. What is read is read once, checked against the manifest, and decrypted
in memory where the release is encrypted.
"""

from pathlib import Path

from torch import nn

from compressor.base.messages import reason
from compressor.config import Recipe
from compressor.config.sources import from_text
from compressor.loading.calls import Inputs
from compressor.loading.weights import read_safetensors
from compressor.passes.base.errors import UsageError
from compressor.passes.ir.log import Entry, Log
from compressor.release import replay
from compressor.release.kept_indices import cut_from, plan_json
from compressor.release.reader import Arrived
from compressor.storage import sealing


def load(
    directory: str | Path,
    module: nn.Module,
    example_inputs: Inputs = None,
    *,
    key: bytes | str | Path | None = None,
) -> nn.Module:
    """The small network: called like `module`, with its own copy of every tensor.

    `module` is the original, with any values; it is left untouched. `example_inputs` are only
    needed where the release was made with inputs that are not tensors, numbers and words. `key` is
    what an encrypted release is encrypted with: 32 bytes, or the file that has them.

    Raises WrongError where a file is not what the manifest says, UsageError where a pass of the log
    is not known, the release is of another model, or it is encrypted and there is no key.
    """
    folder = Path(directory)
    arrived = Arrived(folder, None if key is None else sealing.as_key(key))
    log, path = _log(arrived)
    small = replay.replay(log, module, example_inputs, path).module
    small.eval()
    name = "model.safetensors"
    state = read_safetensors(arrived.read(name), folder / name)
    try:
        answer = small.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:  # of other sizes
        raise UsageError(
            "the weights are for another model", where=str(folder), why=reason(error)
        ) from error
    if answer.missing_keys or answer.unexpected_keys:
        raise UsageError("the weights are for another model", where=str(folder))
    assert isinstance(small, nn.Module)
    return small


def _log(arrived: Arrived) -> tuple[Log, Path]:
    """What ran, and the file that says it: plan.json in a release that has no log."""
    path = arrived.folder / replay.NAME
    if replay.NAME in arrived.manifest["files"]:
        return replay.read(arrived.read(replay.NAME), path), path
    path = arrived.folder / "plan.json"
    plan = plan_json(arrived.read("plan.json"), path)
    cut_from(plan, path)
    stored = from_text(arrived.read("recipe.toml"), arrived.folder / "recipe.toml")
    recipe = Recipe.checked(stored, lambda key: str(arrived.folder))
    capture = Entry("capture", 1, {"dynamic": recipe.dynamic}, {"call": plan.get("call")})
    return Log((capture, Entry("prune", 1, {"ignore": recipe.ignore}, plan))), path
