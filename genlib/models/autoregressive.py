"""Autoregressive networks for binary data: each bit is predicted from those before it.

The chain rule ``log p(x) = sum_i log p(x_i | x_1 .. x_{i-1})`` holds for every law and every ordering of the bits. What
is learnt is ``p(x_i = 1 | x_<i) = sigmoid(logit_i)``, and the three models differ in how the logits come about:

- FVSBN, a logistic regression for each bit (R. Neal, Artificial Intelligence, 1992; B. Frey, G. Hinton and P. Dayan,
  NeurIPS, 1996);
- NADE, a hidden layer for each bit, all sharing their weights (H. Larochelle and I. Murray, AISTATS, 2011);
- MADE, one network whose masked weights keep the order (M. Germain, K. Gregor, I. Murray and H. Larochelle, MADE:
  masked autoencoder for distribution estimation, ICML, 2015).

``log_prob`` predicts all bits at once. ``sample`` draws them in turn and computes each hidden unit once, as its inputs
become known, so that a draw costs about as much as a likelihood.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlib.contract import check_count, check_data, check_generator, rand


class Autoregressive(nn.Module):
    """What the three share: ``log p(x) = sum_i log p(x_i | x_<i)``, for ``x`` ``(B, dim)`` of bits 0.0 and 1.0.

    ``ordering`` lists the coordinates in the order in which they are drawn; ``None`` is ``0, 1, .. dim - 1``. A model
    gives ``_logits(x, k)``, both in its order k. Only MADE has more orders than one.
    """

    levels, loss_is_nll, orderings = 2, True, 1

    def __init__(self, dim: int, ordering=None):
        super().__init__()
        self.event_shape = (check_count(dim, "dim"),)
        order = torch.arange(dim) if ordering is None else torch.as_tensor(ordering)
        if order.dtype != torch.int64 or not torch.equal(order.sort()[0], torch.arange(dim)):
            raise ValueError(f"ordering: expected each of 0 .. {dim - 1} once, got {ordering!r}")
        self.register_buffer("ordering", order)

    def _order(self, k: int) -> Tensor:
        return self.ordering

    def _bits(self, x: Tensor, name: str = "x") -> Tensor:
        if not ((check_data(x, self.event_shape, name) == 0) | (x == 1)).all():
            raise ValueError(f"{name}: expected bits, 0.0 or 1.0, got values from {x.min():.3g} to {x.max():.3g}")
        return x

    def _in_order(self, x: Tensor, k: int) -> Tensor:
        """The bits in the order k."""
        return self._bits(x)[:, self._order(k)]

    def logits(self, x: Tensor) -> Tensor:
        """``log p(x_i = 1 | x_<i) / p(x_i = 0 | x_<i)`` for every coordinate i, shape ``(B, dim)``."""
        return self._logits(self._in_order(x, 0), 0)[:, self.ordering.argsort()]

    def _log_prob(self, x: Tensor, k: int) -> Tensor:
        x = self._in_order(x, k)
        return -F.binary_cross_entropy_with_logits(self._logits(x, k), x, reduction="none").sum(1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact ``log p(x)`` in nats, shape ``(B,)``."""
        each = torch.stack([self._log_prob(x, k) for k in range(self.orderings)])
        return each.logsumexp(0) - math.log(self.orderings)

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The mean of ``-log p(x)`` over the batch, in nats; with several orders that of one of them, drawn."""
        check_generator(generator)
        k = int(rand(1, like=self.ordering.double(), generator=generator) * self.orderings) if self.orderings > 1 else 0
        return -self._log_prob(x, k).mean()

    def _in_turn(self, x: Tensor, k: int):
        """Yield the logits of each bit in turn, ``(n,)``; the caller writes the bit drawn into ``x`` ``(dim, n)``."""
        for i in range(len(x)):
            yield self._logits(x.T, k)[:, i]

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, known=None, mask=None) -> Tensor:
        """``n`` draws, shape ``(n, dim)``: a bit is 1 where a uniform number is below its probability.

        Where the booleans ``mask`` ``(dim,)`` are true, bits are those of ``known``, ``(dim,)`` or ``(n, dim)``. All
        others are drawn given what precedes them, so the order must put the known bits first for them to count.
        """
        like, (dim,) = next(self.parameters()), self.event_shape
        threshold = rand(check_count(n), dim, like=like, generator=generator).logit()
        if (known is None) != (mask is None):
            raise ValueError("mask: expected known and mask together, got one of them")
        if mask is None:
            known, mask = threshold, torch.zeros(dim, dtype=torch.bool)
        elif not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != self.event_shape:
            raise ValueError(f"mask: expected a tensor of {dim} booleans, got {mask!r}")
        else:
            known = self._bits(known[None] if isinstance(known, Tensor) and known.ndim == 1 else known, "known")
            if len(known) not in (1, n):
                raise ValueError(f"known: expected one row or {n}, got {len(known)}")
            known = known.to(like).expand(n, dim)
        which, drawn = like.new_zeros(n, dtype=torch.int64), like.new_empty(n, dim)
        if self.orderings > 1:
            which = (rand(n, like=like, generator=generator) * self.orderings).long()
        for k in which.unique().tolist():
            order, rows = self._order(k), which == k
            here, given = threshold[rows][:, order].T.contiguous(), known[rows][:, order].T
            x, kept = torch.zeros_like(here), mask.to(order.device)[order].tolist()
            for i, logits in enumerate(self._in_turn(x, k)):
                x[i] = given[i] if kept[i] else here[i] < logits
            drawn[rows] = x[order.argsort()].T
        return drawn


class FVSBN(Autoregressive):
    """The fully visible sigmoid belief network: ``logit_i = b_i + sum_{j<i} W_ij x_j``, quadratic in ``dim``."""

    def __init__(self, dim: int, ordering=None):
        super().__init__(dim, ordering)
        self.weight = nn.Parameter(torch.zeros(dim, dim))  # what is below the diagonal is in use
        self.bias = nn.Parameter(torch.zeros(dim))

    def _logits(self, x: Tensor, k: int) -> Tensor:
        return F.linear(x, self.weight.tril(-1), self.bias)

    def _in_turn(self, x: Tensor, k: int):
        for i in range(len(x)):
            yield self.bias[i] + self.weight[i, :i] @ x[:i]


class NADE(Autoregressive):
    """``h_i = sigmoid(c + W_{:, <i} x_<i)``, ``logit_i = b_i + V_i h_i``: one column leads from a layer to the next.

    So all ``dim`` layers of ``hidden`` units cost ``O(dim hidden)`` for an example, where separate networks would cost
    ``O(dim^2 hidden)``.
    """

    def __init__(self, dim: int, hidden: int, ordering=None):
        super().__init__(dim, ordering)
        self.W = nn.Parameter(torch.randn(dim, check_count(hidden, "hidden")) / math.sqrt(dim))  # a row for each bit
        self.V = nn.Parameter(torch.randn(dim, hidden) / math.sqrt(hidden))
        self.b, self.c = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(hidden))

    def _logits(self, x: Tensor, k: int) -> Tensor:
        a, logits = self.c.expand(len(x), -1), []
        for bit, row, v in zip(x.unbind(1), self.W, self.V, strict=True):
            logits.append(a.sigmoid() @ v)
            a = torch.addcmul(a, bit[:, None], row)
        return torch.stack(logits, 1) + self.b

    def _in_turn(self, x: Tensor, k: int):
        a = self.c[:, None].repeat(1, x.shape[1])
        for i in range(len(x)):
            yield self.b[i] + self.V[i] @ a.sigmoid()
            a += self.W[i, :, None] * x[i]


class MADE(Autoregressive):
    """An autoencoder whose weights are masked so that ``logit_i`` depends on ``x_<i`` alone.

    Inputs have the degrees 1 to ``dim`` in their order, hidden units degrees spread evenly over 1 to ``dim - 1``. A
    unit sees what has at most its degree, an output what has less than its own. A layer narrower than ``dim - 1`` lacks
    some degrees, and an output would miss inputs just before it: these pairs get the direct connections of the paper.

    With ``orderings`` K above 1, K models share the weights. In all but the first the inputs have another random order
    and the hidden units other degrees. The loss draws one of them for each batch, ``sample`` one for each row, and
    ``log_prob`` averages their probabilities.
    """

    def __init__(self, dim: int, hidden=(500, 500), orderings: int = 1, ordering=None):
        super().__init__(dim, ordering)
        self.orderings, self.loss_is_nll = check_count(orderings, "orderings"), orderings == 1
        widths = [dim, *(check_count(width, "hidden") for width in hidden), dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))
        inner = [torch.linspace(1, max(1, dim - 1), width).round() for width in widths[1:-1]]
        self.degrees = [torch.arange(1, dim + 1), *inner, torch.arange(dim)]  # of the outputs one less
        reach = torch.eye(dim)
        for i, (below, above) in enumerate(zip(self.degrees, self.degrees[1:], strict=False)):
            mask = (above[:, None] >= below).float()
            self.register_buffer(f"mask_{i}", mask, persistent=False)
            reach = ((mask @ reach) > 0).float()
        self.register_buffer("missed", (torch.ones(dim, dim).tril(-1) - reach).nonzero().T, persistent=False)
        pairs = self.missed.shape[1]  # from input missed[1] to output missed[0]
        self.direct = nn.Parameter(torch.zeros(orderings, pairs), requires_grad=pairs > 0)
        g = torch.Generator().manual_seed(0)
        for i, width in enumerate(widths[:-1]):
            orders = [torch.arange(width), *(torch.randperm(width, generator=g) for _ in range(orderings - 1))]
            self.register_buffer(f"order_{i}", torch.stack(orders))

    def _order(self, k: int) -> Tensor:
        return self.ordering[self.order_0[k]]

    def _layers(self, k: int) -> list[tuple[Tensor, Tensor]]:
        """Masked weight and bias of each layer, its inputs and outputs sorted by their degrees in the order k."""
        found, last = [], len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            weight, bias = layer.weight, layer.bias
            if k:
                rows = getattr(self, f"order_{i + 1}" if i < last else "order_0")[k]
                weight, bias = weight[rows][:, getattr(self, f"order_{i}")[k]], bias[rows]
            found.append((weight * getattr(self, f"mask_{i}"), bias))
        return found

    def _logits(self, x: Tensor, k: int) -> Tensor:
        *hidden, last = self._layers(k)
        h = x
        for weight, bias in hidden:
            h = F.linear(h, weight, bias).relu()
        output, earlier = self.missed
        return F.linear(h, *last).index_add(1, output, x[:, earlier] * self.direct[k])

    def _in_turn(self, x: Tensor, k: int):
        *hidden, (weight, bias) = self._layers(k)
        dim, n = x.shape
        ready = [torch.searchsorted(d.float(), torch.arange(dim) + 0.5).tolist() for d in self.degrees[1:-1]]
        pairs = torch.searchsorted(self.missed[0].cpu(), torch.arange(dim + 1)).tolist()
        units = [x, *(x.new_empty(len(b), n) for _, b in hidden)]
        for i in range(dim):
            known = i  # how many units of the layer below have all their inputs
            for layer, (w, b) in enumerate(hidden):
                begin, end = ready[layer][max(i - 1, 0)], ready[layer][i]
                if end > begin:
                    a = torch.addmm(b[begin:end, None], w[begin:end, :known], units[layer][:known])
                    units[layer + 1][begin:end] = a.relu()
                known = end
            here = slice(pairs[i], pairs[i + 1])
            yield bias[i] + weight[i, :known] @ units[-1][:known] + self.direct[k, here] @ x[self.missed[1, here]]
