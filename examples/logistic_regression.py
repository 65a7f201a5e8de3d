"""Logistic regression, as a network of one unit: is a tumour benign?

    python -m examples.logistic_regression

scikit-learn's breast cancer data: 569 tumours, 30 measurements of each, 1 for benign.
"""

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import torchnn as tn
from torchnn import Sequential
from torchnn.layers import Dense, Normalization
from torchnn.losses import BinaryCrossentropy
from torchnn.optimizers import SGD


def main():
    tn.utils.set_random_seed(1)
    data = load_breast_cancer()
    x_train, x_test, y_train, y_test = train_test_split(
        data.data, data.target, test_size=0.3, random_state=0, stratify=data.target
    )

    standardize = Normalization()  # each measurement to mean 0 and variance 1
    standardize.adapt(x_train)
    model = Sequential([standardize, Dense(units=1, activation="sigmoid")])
    model.compile(SGD(learning_rate=0.1), loss=BinaryCrossentropy(), metrics=["accuracy"])
    model.fit(x_train, y_train, epochs=50, verbose=0)

    weights = model.layers[1].get_weights()[0][:, 0]
    print("The measurements that count most:")
    for i in abs(weights).argsort()[::-1][:5]:
        says = "benign" if weights[i] > 0 else "malignant"
        print(f"  {data.feature_names[i]:25} weight {weights[i]:+.2f}: more of it says {says}")
    loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"test loss {loss:.4f}, test accuracy {accuracy:.1%} on {len(y_test)} tumours")
    return accuracy


if __name__ == "__main__":
    main()
