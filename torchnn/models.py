"""Models under the name that programs import them from, and copies of them with new weights."""

import copy
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from torchnn import _checks, _config, _keras_models, _keras_weights, _saving
from torchnn._files import storage as _storage
from torchnn.model import Model
from torchnn.sequential import Sequential

__all__ = [
    "Model",
    "Sequential",
    "clone_model",
    "load_model",
    "model_from_json",
    "save_model",
]


def clone_model(model: Model, clone_function: Callable[[Any], nn.Module] | None = None) -> Any:
    """Returns a model of the same layers with the same settings, and with first values of its own.

    It is not compiled. It is built if the model is, and knows the shape of a sample.

    Args:
        model: A Sequential, or another Model: one whose class has an __init__ of its own is made
            again by its config, and any other copied.
        clone_function: From a layer of a Sequential to the one that takes its place in the copy;
            models within are cloned themselves.

    Raises:
        ValueError: clone_function is given with a model of another kind.
        TypeError: A layer cannot tell what it was made with, or is a module of PyTorch that has no
            reset_parameters.
    """
    if not isinstance(model, Model):
        raise TypeError(f"model must be a torchnn Model, got {type(model).__name__}")
    if isinstance(model, Sequential) and type(model).__init__ is Sequential.__init__:
        return _chained(model, clone_function or _fresh)
    if clone_function is not None:
        raise ValueError(f"clone_function must be None for a {type(model).__name__}")
    is_made_outside = type(model).__init__ is Model.__init__  # of layers that no config tells
    return _uncompiled(_drawn_anew(model)) if is_made_outside else _remade(model)


def load_model(
    filepath: Any,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: Any = None,
) -> Any:
    """Returns the model that Model.save has written, on the CPU: it predicts the same, and goes on
    training where it was, with the same bits.

    Loading runs no code from the file: it names classes of torchnn and torch.nn, functions of
    PyTorch that compute tensors, and what custom_objects and register_keras_serializable give.

    A file that Keras 3 has written, a `.keras` archive, is read where h5py is installed, if its
    layers are ones that torchnn has; of its optimizer the settings alone.

    Args:
        filepath: The file.
        custom_objects: From names to layers, losses, functions and the like of one's own.
        compile: Whether to compile the model as it was.
        safe_mode: Keras's; it changes nothing: no file can hold a lambda.

    Raises:
        OSError: There is no such file.
        ValueError: It is damaged or of another kind, or names something that nobody knows.
        ModuleNotFoundError: It is Keras's, and h5py is missing.
    """
    compiled = _checks.truth("compile", compile)
    if _keras_weights.is_archive(_storage.checked(filepath, "filepath")):
        with _saving.told(filepath), _config.known(custom_objects):
            return _keras_models.load(filepath, compiled)
    if _keras_weights.is_hdf5(filepath):
        raise ValueError(
            f"{os.fspath(filepath)!r} is HDF5: of Keras's files, load_model reads .keras archives "
            "(Keras 3 saves those), and load_weights of a model .weights.h5"
        )
    return _saving.load(filepath, custom_objects, compiled)


def save_model(model: Model, filepath: Any, overwrite: bool = True, **options: Any) -> None:
    """Does what model.save does."""
    model.save(filepath, overwrite, **options)


def model_from_json(json_string: str, custom_objects: Mapping[str, type] | None = None) -> Any:
    """Returns a new model of what to_json returned; its weights are first values.

    Args:
        json_string: The text.
        custom_objects: From names to classes of one's own, where their modules do not tell.
    """
    with _config.known(custom_objects):
        return _config.found(json.loads(json_string))


def _chained(model: Sequential, fresh: Callable[[Any], nn.Module]) -> Sequential:
    layers = [_cloned(layer, fresh) for layer in model.layers]
    clone = type(model)(layers, name=model.name).to(model._form().device)
    if shape := model._build_shape():
        clone.build(shape)
        clone._input_shape = model._input_shape  # other shapes may follow where none was told
    return clone


def _uncompiled(model: Any) -> Any:
    model._recipe = model.history = None
    return model


def _cloned(layer: Any, fresh: Callable[[Any], nn.Module]) -> nn.Module:
    return clone_model(layer, fresh) if isinstance(layer, Model) else fresh(layer)


def _fresh(layer: nn.Module) -> nn.Module:
    """A layer like this one, with first values of its own."""
    return _remade(layer) if isinstance(layer, _config.Configured) else _drawn_anew(layer)


def _remade(thing: Any) -> Any:
    classes = {type(module).__name__: type(module) for module in thing.modules()}
    with _config.known(classes):
        return type(thing).from_config(thing.get_config())


def _drawn_anew(module: nn.Module) -> nn.Module:
    """A copy of a module of PyTorch's, which tells no config."""
    module = copy.deepcopy(module)
    for part in module.modules():
        reset: Any = getattr(part, "reset_parameters", None)
        if reset is not None:
            reset()
        elif list(part.parameters(recurse=False)):
            raise TypeError(
                f"clone_model cannot give a {type(part).__name__} new first values: it needs a "
                "method reset_parameters, or make it in clone_function"
            )
    return module
