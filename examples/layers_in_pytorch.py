"""torchnn's Dense in a training loop written by hand in PyTorch.

    python -m examples.layers_in_pytorch

Dense is an nn.Module like any other: it mixes with PyTorch's own layers, optimizers and losses,
and its state dict is that of nn.Linear. The two moons are points in the plane, in two classes.
"""

import torch
from sklearn.datasets import make_moons
from torch import nn

from torchnn.layers import Dense


def main():
    torch.manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    points, labels = make_moons(1000, noise=0.2, random_state=0)
    x = torch.tensor(points, dtype=torch.float32, device=device)
    y = torch.tensor(labels, dtype=torch.float32, device=device)[:, None]
    x_train, y_train, x_test, y_test = x[:700], y[:700], x[700:], y[700:]

    model = nn.Sequential(
        Dense(32, "tanh", in_features=2),
        nn.Dropout(0.1),
        Dense(32, "tanh", in_features=32),
        Dense(1, in_features=32),
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss_function = nn.BCEWithLogitsLoss()

    for epoch in range(1, 31):
        for batch in torch.randperm(len(x_train), device=device).split(50):
            loss = loss_function(model(x_train[batch]), y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch % 10 == 0:
            print(f"epoch {epoch}: loss of the last batch {loss.item():.4f}")

    model.eval()
    with torch.no_grad():
        accuracy = ((model(x_test) > 0) == (y_test > 0.5)).float().mean().item()
    print(f"test accuracy {accuracy:.1%} on {len(x_test)} points")
    return accuracy


if __name__ == "__main__":
    main()
