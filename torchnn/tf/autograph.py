"""What programs say to TensorFlow's compiler, which there is none of here."""

from torchnn.tf._missing import said_of

__all__ = ["set_verbosity"]
__getattr__ = said_of(__name__)


def set_verbosity(level: int, alsologtostdout: bool = False) -> None:
    """Does nothing: there is nothing that would talk."""
