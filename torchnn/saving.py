"""Keras's names for what has to do with files, where programs import them from."""

from torchnn.models import load_model, save_model
from torchnn.utils import custom_object_scope, get_custom_objects, register_keras_serializable

__all__ = [
    "custom_object_scope",
    "get_custom_objects",
    "load_model",
    "register_keras_serializable",
    "save_model",
]
