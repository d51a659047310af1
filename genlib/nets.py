"""The few networks that several families use."""

from torch import nn

from genlib.contract import check_count


def mlp(*sizes: int, activation=nn.ReLU) -> nn.Sequential:
    """A multilayer perceptron ``sizes[0] -> ... -> sizes[-1]`` with ``activation`` between layers, none at the end.

    ``mlp(2, 64, 64, 1)`` has two hidden layers of 64 units. Input ``(..., sizes[0])``, output ``(..., sizes[-1])``.
    Raises ValueError for fewer than two sizes, TypeError or ValueError for one that is not a whole number above zero.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes: expected at least an input and an output width, got {sizes!r}")
    sizes, layers = [check_count(size, "sizes") for size in sizes], []
    for width_in, width_out in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(width_in, width_out), activation()]
    return nn.Sequential(*layers[:-1])
