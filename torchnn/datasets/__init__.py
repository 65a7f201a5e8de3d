"""Data sets with Keras's names, from files that are there: nothing is ever downloaded.

    (x_train, y_train), (x_test, y_test) = torchnn.datasets.mnist.load_data()

A file is looked for at the path given, then in the folder that the environment variable
TORCHNN_DATASETS names, then where Keras keeps it: in $KERAS_HOME/datasets or ~/.keras/datasets. If
it is nowhere, the error says where to get it. `digits` needs no file: scikit-learn brings it.
"""

from torchnn.datasets import boston_housing, california_housing, digits, fashion_mnist, mnist

__all__ = ["boston_housing", "california_housing", "digits", "fashion_mnist", "mnist"]
