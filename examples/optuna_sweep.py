"""Looks for a network that reads handwritten digits with Optuna, 64 trials at a time.

    pip install optuna
    python -m examples.optuna_sweep

Optuna says what to try and is told how well it went. It is asked for 64 trials at once, and
fit_many trains all of them together, whatever their layers, rates and batch sizes.
"""

from time import perf_counter

try:
    import optuna
except ImportError:
    raise SystemExit("this example needs Optuna: pip install optuna") from None

import torchnn as tn
from torchnn import Sequential
from torchnn.datasets import digits
from torchnn.layers import Dense, Dropout, Input
from torchnn.losses import SparseCategoricalCrossentropy
from torchnn.optimizers import Adam
from torchnn.regularizers import L2


def load_digits():
    """Rows of 64 numbers from 0 to 1 with their digits: to train on, to choose by, to test."""
    (x, y), (x_test, y_test) = digits.load_data()
    x, x_test = (images.reshape(-1, 64) / 16 for images in (x, x_test))
    return (x[:1100], y[:1100]), (x[1100:], y[1100:]), (x_test, y_test)


def make_model(trial):
    """The network that a trial is about."""
    activation = trial.suggest_categorical("activation", ["relu", "tanh", "gelu"])
    penalty = L2(trial.suggest_float("l2", 1e-6, 1e-2, log=True))
    dropout = trial.suggest_float("dropout", 0.0, 0.6)
    layers = [Input((64,))]
    for number in range(trial.suggest_int("layers", 1, 3)):
        units = trial.suggest_int(f"units {number + 1}", 8, 128, log=True)
        layers += [Dense(units, activation, kernel_regularizer=penalty), Dropout(dropout)]
    model = Sequential([*layers, Dense(10)])
    model.compile(
        optimizer=Adam(trial.suggest_float("learning rate", 1e-4, 1e-1, log=True)),
        loss=SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def main(rounds=3, trials=64, epochs=30):
    tn.utils.set_random_seed(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    (x, y), chosen_by, test = load_digits()
    # With constant_liar, Optuna keeps the trials of a round apart before it knows how any went.
    sampler = optuna.samplers.TPESampler(n_startup_trials=trials, constant_liar=True, seed=1)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    models = []
    for number in range(1, rounds + 1):
        asked = [study.ask() for _ in range(trials)]
        models += (new := [make_model(trial) for trial in asked])
        sizes = [trial.suggest_categorical("batch size", [16, 32, 64]) for trial in asked]
        start = perf_counter()
        histories = tn.fit_many(
            new, x, y, epochs=epochs, batch_size=sizes, validation_data=chosen_by, verbose=0
        )
        seconds = perf_counter() - start
        for trial, history in zip(asked, histories, strict=True):
            study.tell(trial, history.history["val_accuracy"][-1])
        print(
            f"round {number}: {trials} networks in {seconds:.1f} s, "
            f"best accuracy so far {study.best_value:.1%}"
        )

    best = study.best_trial
    for name, value in best.params.items():
        print(f"{name:>13}: {value:.3g}" if isinstance(value, float) else f"{name:>13}: {value}")
    accuracy = models[best.number].evaluate(*test, verbose=0)[1]
    print(f"test accuracy {accuracy:.1%} on {len(test[1])} images")
    return accuracy


if __name__ == "__main__":
    main()
