"""Regression with a linear output: how far will diabetes progress within a year?

    python -m examples.regression

scikit-learn's diabetes data: 442 patients, 10 measurements of each, and a score of the disease's
progress one year later, from 25 to 346.
"""

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split

import torchnn as tn
from torchnn import Sequential
from torchnn.layers import Dense, Normalization
from torchnn.losses import MeanSquaredError
from torchnn.optimizers import SGD


def root_mean_square(errors):
    return float(np.sqrt(np.mean(errors**2)))


def main():
    tn.utils.set_random_seed(1)
    x, y = load_diabetes(return_X_y=True, scaled=False)  # in years, mmHg, mg/dl, ...
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=0)

    standardize = Normalization()  # each measurement to mean 0 and variance 1
    standardize.adapt(x_train)
    # Without an activation the output is z itself, which can be any number.
    model = Sequential([standardize, Dense(units=1)])
    model.compile(SGD(learning_rate=0.01), loss=MeanSquaredError())
    model.fit(x_train, y_train, epochs=100, verbose=0)

    exact = LinearRegression().fit(x_train, y_train)
    errors = {
        "gradient descent": root_mean_square(model.predict(x_test, verbose=0)[:, 0] - y_test),
        "least squares, solved exactly": root_mean_square(exact.predict(x_test) - y_test),
        "the mean of all patients": root_mean_square(y_train.mean() - y_test),
    }
    print("root mean square error on patients not seen before:")
    for name, error in errors.items():
        print(f"  {name:30} {error:.1f}")
    return errors


if __name__ == "__main__":
    main()
