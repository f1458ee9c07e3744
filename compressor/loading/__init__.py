"""What the user names, found and loaded: callables, a model with its weights, example inputs.

    load_callable("models/net.py:accuracy")            any callable
    load_model("models/net.py:resnet", weights)        -> the model in eval mode, and its module
    load_inputs(namespace, input_shape, inputs)        -> what the model is called with
    load_data("models/net.py:calibration")             batches, in whatever form
    check_finite(model)                                no NaN and no infinity in any weight

Everything here runs or reads what somebody else wrote, so every mistake in it is a `UsageError`
that names the place, with the exception behind it attached.
"""

from compressor.loading.callables import load_callable
from compressor.loading.example_inputs import load_data, load_inputs
from compressor.loading.model import check_finite, load_model

__all__ = ["check_finite", "load_callable", "load_data", "load_inputs", "load_model"]
