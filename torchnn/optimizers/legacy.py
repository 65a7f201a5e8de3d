"""The optimizers, under the name that Keras once kept the older ones of two kinds by."""

from torchnn.optimizers import *  # noqa: F403
from torchnn.optimizers import __all__ as __all__
