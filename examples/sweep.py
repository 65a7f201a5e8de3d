"""Trains 1,000 networks on handwritten digits, says which settings are best, and draws sweep.png.

After `pip install '.[examples]'` in the checkout, `python -m examples.sweep` runs it.
"""

from torchnn import Sequential, Sweep
from torchnn.datasets import digits
from torchnn.layers import Dense, Input

RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
WIDTHS = (8, 16, 32, 64)


def build(units):
    """Two hidden layers of a width, and a probability for each digit."""
    return Sequential(
        [
            Input((64,)),
            Dense(units, activation="relu"),
            Dense(units, activation="relu"),
            Dense(10, activation="softmax"),
        ]
    )


def load_digits():
    """Images of 8 x 8 pixels as rows of 64 numbers from 0 to 1, with labels, split for a test."""
    (x_train, y_train), (x_test, y_test) = digits.load_data()
    return x_train.reshape(-1, 64) / 16, y_train, x_test.reshape(-1, 64) / 16, y_test


def main(path="sweep.png", rates=RATES, widths=WIDTHS, seeds=10, folds=5, epochs=20):
    x_train, y_train, x_test, y_test = load_digits()
    sweep = Sweep(
        build,
        grid={"learning_rate": rates, "units": widths, "seed": range(seeds)},
        optimizer="adam",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    result = sweep.fit(x_train, y_train, epochs=epochs, folds=folds, monitor="val_accuracy")
    print(result.summary())
    result.plot(path)

    one = result.best().predict(x_test, verbose=0)
    all_of_them = result.ensemble()
    together = all_of_them.predict(x_test).mean
    accuracies = [(each.argmax(axis=1) == y_test).mean() for each in (one, together)]
    print(f"best settings: {result.best_settings}; {path} shows the others")
    print(f"test accuracy on {len(y_test)} images: the best network {accuracies[0]:.1%}, ", end="")
    print(f"its {len(all_of_them)} seeds and folds together {accuracies[1]:.1%}")
    return accuracies


if __name__ == "__main__":
    main()
