"""Learns to tell handwritten zeros from ones, and draws what it learned to digits.png.

`make demo` sets up what it takes and runs this; after `pip install '.[examples]'`
in the checkout, `python -m examples.digits` runs it too.
"""

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import torchnn as tn
from torchnn import Sequential
from torchnn.layers import Dense, Input
from torchnn.losses import BinaryCrossentropy
from torchnn.optimizers import SGD

RIGHT_COLORS, WRONG_COLOR = ("tab:blue", "tab:orange"), "tab:red"


def load_zeros_and_ones():
    """Images of 8 x 8 pixels as rows of 64 numbers from 0 to 1, with labels, split for a test."""
    images, labels = load_digits(n_class=2, return_X_y=True)
    return train_test_split(images / 16, labels, test_size=0.4, random_state=0, stratify=labels)


def make_model():
    """The network of the course: two layers of 25 units, then the probability of a one."""
    model = Sequential(
        [
            Input((64,)),
            Dense(units=25, activation="sigmoid"),
            Dense(units=25, activation="sigmoid"),
            Dense(units=1, activation="sigmoid"),
        ]
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    model.compile(
        optimizer=SGD(learning_rate=0.1, momentum=0.9),
        loss=BinaryCrossentropy(),
        metrics=["accuracy"],
    )
    return model


def show_digit(image, label, probability):
    """Prints an image and what was read in it."""
    for row in image.reshape(8, 8):
        print("  " + "".join(" ░▒▓█"[round(4 * pixel)] * 2 for pixel in row))
    print(f"  a {label}, read as {probability >= 0.5:d}: probability of a one {probability:.3f}\n")


def draw(path, history, images, labels, probabilities):
    """Draws the loss curve beside test images and what was read in them."""
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(5, 7), wspace=0.03)
    draw_loss(left.subplots(), history)
    right.suptitle("Test images, the least sure first, and how they were read", fontsize=13)
    for axes, image, label, probability in zip(
        right.subplots(3, 7).flat, images, labels, probabilities, strict=False
    ):
        draw_digit(axes, image.reshape(8, 8), label, probability)
    figure.savefig(path, dpi=150)


def draw_loss(axes, history):
    epochs, losses = np.array(history.epoch) + 1, history.history
    axes.plot(epochs, losses["loss"], "-", color="0.25", lw=2.5, label="training")
    axes.plot(epochs, losses["val_loss"], "--", color="tab:green", lw=2.5, label="validation")
    axes.set_title("Loss while learning", fontsize=13, pad=14)
    axes.set(xlabel="epoch", ylabel="binary cross-entropy", ylim=0)
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def draw_digit(axes, image, label, probability):
    """Draws an image above a scale that goes from surely zero to surely one."""
    reading = int(probability >= 0.5)
    color = RIGHT_COLORS[reading] if reading == label else WRONG_COLOR
    axes.imshow(image, cmap="Greys")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("0.8")
    scale = {"transform": axes.transAxes, "clip_on": False}
    axes.plot([0.03, 0.97], [-0.12, -0.12], color="0.8", lw=2, **scale)
    axes.plot(0.03 + 0.94 * probability, -0.12, "o", color=color, markersize=7, **scale)
    axes.set_xlabel(reading, fontsize=13, fontweight="bold", color=color, labelpad=14)


def main(path="digits.png"):
    tn.utils.set_random_seed(1)
    train_images, test_images, train_labels, test_labels = load_zeros_and_ones()
    model = make_model()
    model.summary()
    history = model.fit(train_images, train_labels, epochs=30, validation_split=0.2)
    loss, accuracy = model.evaluate(test_images, test_labels, verbose=0)

    probabilities = model.predict(test_images, verbose=0)[:, 0]
    least_sure = np.argsort(np.abs(probabilities - 0.5))
    tests = test_images[least_sure], test_labels[least_sure], probabilities[least_sure]
    print("\nThe least sure of the test images:\n")
    for image, label, probability in list(zip(*tests, strict=True))[:3]:
        show_digit(image, label, probability)
    draw(path, history, *tests)

    print(f"test loss {loss:.4f}, test accuracy {accuracy:.1%} on {len(test_labels)} images")
    print(f"the loss curve and more test images are in {path}")
    return accuracy


if __name__ == "__main__":
    main()
