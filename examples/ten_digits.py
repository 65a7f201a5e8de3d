"""Learns to read all ten handwritten digits, and draws which it takes for which to ten_digits.png.

After `pip install '.[examples]'` in the checkout, `python -m examples.ten_digits` runs it.
"""

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split

import torchnn as tn
from torchnn import Sequential
from torchnn.layers import Dense, Dropout, Input
from torchnn.losses import SparseCategoricalCrossentropy
from torchnn.optimizers import Adam


def load_ten_digits():
    """Images of 8 x 8 pixels as rows of 64 numbers from 0 to 1, with labels, split for a test."""
    images, labels = load_digits(return_X_y=True)
    return train_test_split(images / 16, labels, test_size=0.3, random_state=0, stratify=labels)


def make_model():
    """Two hidden layers, then a number for each digit; the loss makes probabilities of these."""
    model = Sequential(
        [
            Input((64,)),
            Dense(units=256, activation="relu"),
            Dropout(0.4),
            Dense(units=64, activation="relu"),
            Dense(units=10, activation="linear"),
        ]
    )
    model.compile(
        optimizer=Adam(learning_rate=0.002),
        loss=SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def draw(path, counts, images, labels, readings):
    """Draws how often each digit was read as each, beside images that were read wrong."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(6, 5), wspace=0.05)
    draw_counts(left.subplots(), counts)
    right.suptitle("Read wrong, and as what", fontsize=13)
    for axes in (grid := right.subplots(3, 4)).flat:
        axes.axis("off")
    for axes, image, label, reading in zip(grid.flat, images, labels, readings, strict=False):
        axes.imshow(image.reshape(8, 8), cmap="Greys")
        axes.set_title(f"{label}, read {reading}", fontsize=11, color="tab:red")
    figure.savefig(path, dpi=150)


def draw_counts(axes, counts):
    """A row for each digit; what lies off the diagonal was read wrong."""
    wrong = counts * (1 - np.eye(10))
    axes.imshow(wrong, cmap="Reds", vmax=max(1, wrong.max()) * 2)
    for (digit, reading), count in np.ndenumerate(counts):
        weight = "bold" if digit == reading else "normal"
        axes.text(reading, digit, count or "", ha="center", va="center", fontweight=weight)
    axes.set(xlabel="read as", ylabel="digit", xticks=range(10), yticks=range(10))
    axes.set_title("How often each digit was read as each", fontsize=13, pad=14)
    axes.spines[:].set_color("0.8")
    axes.tick_params(length=0)


def main(path="ten_digits.png"):
    tn.utils.set_random_seed(1)
    train_images, test_images, train_labels, test_labels = load_ten_digits()
    model = make_model()
    model.summary()
    model.fit(train_images, train_labels, epochs=60, validation_split=0.1)

    readings = model.predict(test_images, verbose=0).argmax(axis=1)
    is_wrong = readings != test_labels
    counts = confusion_matrix(test_labels, readings)
    draw(path, counts, test_images[is_wrong], test_labels[is_wrong], readings[is_wrong])

    accuracy = 1 - is_wrong.mean()
    print(f"test accuracy {accuracy:.1%} on {len(test_labels)} images; {path} shows the others")
    return accuracy


if __name__ == "__main__":
    main()
