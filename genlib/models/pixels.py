"""Autoregressive models of images: each pixel is predicted from the rows above it and from its own row's left part.

``x`` ``(N, C, H, W)`` holds whole levels ``0 .. levels - 1``; pixels are drawn row by row, the channels of a pixel one
after another, and ``p(x) = prod p(x_i | x_<i)`` with a softmax over the levels. The three models differ in how far and
by what a prediction sees: PixelCNN by masked convolutions and PixelRNN by recurrences (A. van den Oord, N. Kalchbrenner
and K. Kavukcuoglu, Pixel recurrent neural networks, ICML, 2016), GatedPixelCNN by two stacks of convolutions, which see
what the masks of the first leave blind (A. van den Oord et al., Conditional image generation with PixelCNN decoders,
NeurIPS, 2016).

All networks here work on strips of rows and hand on what the rows below will need. So training takes the whole image at
once, and ``sample`` takes one row at a time: what lies above is never computed again.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlib.contract import check_choice, check_count, check_data, check_generator, rand


def _visible(kind: str, outputs: int, inputs: int, channels: int) -> Tensor:
    """Which input maps an output map sees at its own pixel, ``(outputs, inputs)``.

    Maps belong to the channels in equal shares. "A" sees earlier channels, "B" its own too.
    """
    below, above = (torch.arange(maps) * channels // maps for maps in (inputs, outputs))
    return above[:, None] > below if kind == "A" else above[:, None] >= below


class MaskedConv(nn.Module):
    """A convolution over the ``size // 2`` rows above, the pixels to the left and, as :func:`_visible` says, the pixel.

    ``kind`` None sees all of its row. ``rows=False`` leaves out the rows above. ``gates`` counts blocks of output maps,
    each of which belongs to the channels in equal shares.
    """

    def __init__(self, kind: str, inputs: int, outputs: int, size: int, channels: int, rows=True, gates=1):
        super().__init__()
        self.reach, self.height = size // 2, size // 2 * rows
        mask = torch.ones(outputs, inputs, self.height + 1, size)
        if kind:
            mask[:, :, -1, self.reach :] = 0
            mask[:, :, -1, self.reach] = _visible(kind, outputs // gates, inputs, channels).repeat(gates, 1).float()
        self.register_buffer("mask", mask, persistent=False)
        bound = 1 / math.sqrt(mask[0].sum().clamp_min(1))
        self.weight = nn.Parameter(bound * (2 * torch.rand_like(mask) - 1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, above: Tensor | None) -> tuple[Tensor, Tensor]:
        """The strip's features, and the rows that the next strip will see above it."""
        if above is None:
            above = x.new_zeros(*x.shape[:2], self.height, x.shape[3])
        x = torch.cat([above, x], 2)
        out = F.conv2d(F.pad(x, (self.reach, self.reach)), self.weight * self.mask, self.bias)
        return out, x[:, :, x.shape[2] - self.height :]


class Strips(nn.Module):
    """What the three share; a model gives ``_features(x, state, upto) -> (logits, state)`` for a strip of rows.

    ``state`` is what the strip above left, empty at the top. ``upto`` counts the columns whose logits are wanted, where
    that saves work; then the state is of no use.
    """

    loss_is_nll = True

    def __init__(self, shape, levels: int):
        super().__init__()
        self.event_shape = tuple(check_count(size, "shape") for size in shape)
        if len(self.event_shape) != 3:
            raise ValueError(f"shape: expected (channels, height, width), got {shape!r}")
        self.levels = check_count(levels, "levels", least=2)
        self.ordering = torch.arange(math.prod(self.event_shape)).reshape(shape).permute(1, 2, 0).flatten().tolist()

    def _check(self, x: Tensor, name: str = "x") -> Tensor:
        if isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool):
            raise TypeError(f"{name}: expected whole levels 0 .. {self.levels - 1}, got {x.dtype}")
        check_data(x.double() if isinstance(x, Tensor) else x, self.event_shape, name)
        if not ((x >= 0) & (x < self.levels)).all():
            raise ValueError(f"{name}: expected levels 0 .. {self.levels - 1}, got {x.min()} to {x.max()}")
        return x.long()

    def _logits(self, x: Tensor, state: dict, upto: int | None = None) -> tuple[Tensor, dict]:
        """``(B, C, rows, W, levels)`` for a strip of levels, and the state for the strip below."""
        scaled = (2 * x / (self.levels - 1) - 1).to(next(self.parameters()).dtype)
        out, state = self._features(scaled, state, upto)
        return out.unflatten(1, (self.event_shape[0], self.levels)).movedim(2, -1), state

    def logits(self, x: Tensor) -> Tensor:
        """The softmax's logits at each pixel and channel, shape ``(B, C, H, W, levels)``."""
        return self._logits(self._check(x), {})[0]

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact ``log p(x)`` in nats, shape ``(B,)``."""
        x = self._check(x)
        logits = self._logits(x, {})[0]
        return -F.cross_entropy(logits.flatten(0, -2), x.flatten(), reduction="none").reshape(len(x), -1).sum(1)

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The mean of ``-log p(x)`` over the batch, in nats."""
        check_generator(generator)
        return -self.log_prob(x).mean()

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, known=None, mask=None) -> Tensor:
        """``n`` images of whole levels, ``(n, C, H, W)``; where ``mask`` ``(C, H, W)`` is true, those of ``known``.

        ``known`` is one image or ``n`` of them. A pixel is drawn given the known ones before it, not those after it.
        """
        channels, height, width = self.event_shape
        u = rand(check_count(n), *self.event_shape, like=next(self.parameters()), generator=generator)
        x = torch.zeros_like(u, dtype=torch.int64)
        if (known is None) != (mask is None):
            raise ValueError("mask: expected known and mask together, got one of them")
        if mask is None:
            mask = torch.zeros(self.event_shape, dtype=torch.bool)
        elif not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != self.event_shape:
            raise ValueError(f"mask: expected booleans of shape {self.event_shape}, got {mask!r}")
        else:
            known = known[None] if isinstance(known, Tensor) and known.ndim == 3 else known
            known = self._check(known, "known").to(x.device)
            if len(known) not in (1, n):
                raise ValueError(f"known: expected one image or {n}, got {len(known)}")
            x = torch.where(mask.to(x.device), known.expand_as(x), x)
        keep, state = mask.tolist(), {}
        for r in range(height):
            row = x[:, :, r : r + 1]
            for c in range(width):
                for k in range(channels):
                    if not keep[k][r][c]:
                        p = self._logits(row, state, c + 1)[0][:, k, 0, c].softmax(1).cumsum(1)
                        row[:, k, 0, c] = (p[:, :-1] <= u[:, k, r, c, None]).sum(1)
            state = self._logits(row, state)[1]
        return x


class PixelCNN(Strips):
    """A masked 7x7 convolution, residual blocks of masked 3x3 ones, and two 1x1 layers.

    A stack of such masks never sees a wedge of pixels to the upper right: its blind spot.
    """

    def __init__(self, shape, levels: int = 2, maps: int = 32, blocks: int = 5):
        super().__init__(shape, levels)
        c, wide = self.event_shape[0], 2 * check_count(maps, "maps")
        self.first = MaskedConv("A", c, wide, 7, c)
        blocks = range(check_count(blocks, "blocks", least=0))
        layers = [
            [MaskedConv("B", wide, maps, 1, c), MaskedConv("B", maps, maps, 3, c), MaskedConv("B", maps, wide, 1, c)]
            for _ in blocks
        ]
        self.blocks = nn.ModuleList(nn.ModuleList(block) for block in layers)
        self.last = nn.ModuleList([MaskedConv("B", wide, wide, 1, c), MaskedConv("B", wide, c * levels, 1, c)])

    def _features(self, x, state, upto):
        below = {}
        h, below["first"] = self.first(x, state.get("first"))
        for i, block in enumerate(self.blocks):
            a = h
            for j, layer in enumerate(block):
                a, below[i, j] = layer(a.relu(), state.get((i, j)))
            h = h + a
        for layer in self.last:
            h, _ = layer(h.relu(), None)
        return h, below


class GatedPixelCNN(Strips):
    """Two stacks: a vertical one of all rows above, a horizontal one of the row so far, which also hears the vertical.

    Together they see every earlier pixel within reach, with no blind spot. Each layer is gated:
    ``tanh(a) * sigmoid(b)`` of two blocks of maps.
    """

    def __init__(self, shape, levels: int = 2, maps: int = 32, layers: int = 6, size: int = 5):
        super().__init__(shape, levels)
        c = self.event_shape[0]
        kinds = [("A", c, check_count(maps, "maps")), *[("B", maps, maps)] * (check_count(layers, "layers") - 1)]
        gate = {"channels": c, "gates": 2}
        self.vertical = nn.ModuleList(MaskedConv(None, n, 2 * m, size, **gate) for _, n, m in kinds)
        self.horizontal = nn.ModuleList(MaskedConv(kind, n, 2 * m, size, rows=False, **gate) for kind, n, m in kinds)
        self.across = nn.ModuleList(nn.Conv2d(2 * maps, 2 * maps, 1) for _ in kinds)
        self.out = nn.ModuleList(MaskedConv("B", maps, maps, 1, c) for _ in kinds)
        self.last = nn.ModuleList([MaskedConv("B", maps, maps, 1, c), MaskedConv("B", maps, c * levels, 1, c)])

    def _features(self, x, state, upto):
        above = state.get("x", torch.zeros_like(x[:, :, :1]))
        v, h, below = torch.cat([above, x[:, :, :-1]], 2), x, {"x": x[:, :, -1:]}
        for i, (vertical, horizontal) in enumerate(zip(self.vertical, self.horizontal, strict=True)):
            v, below[i] = vertical(v, state.get(i))
            a, b = (horizontal(h, None)[0] + self.across[i](v)).chunk(2, 1)
            out = self.out[i](a.tanh() * b.sigmoid(), None)[0]
            h = out if i == 0 else h + out
            a, b = v.chunk(2, 1)
            v = a.tanh() * b.sigmoid()
        for layer in self.last:
            h, _ = layer(h.relu(), None)
        return h, below


def _lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step of a long short-term memory from the sums at its four gates: the new ``h`` and ``c``."""
    o, f, i, g = gates.chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


class RowLSTM(nn.Module):
    """A recurrence from row to row: the state at a pixel hears those at the three pixels above it."""

    def __init__(self, maps: int, channels: int):
        super().__init__()
        self.inward = MaskedConv("B", 2 * maps, 4 * maps, 3, channels, rows=False, gates=4)
        self.onward = nn.Conv1d(maps, 4 * maps, 3, padding=1, bias=False)

    def forward(self, x, state, upto):
        gates, rows = self.inward(x, None)[0], []
        h, c = state or (gates.new_zeros(len(x), gates.shape[1] // 4, x.shape[3]),) * 2
        for row in gates.unbind(2):
            h, c = _lstm(row + self.onward(h), c)
            rows.append(h)
        return torch.stack(rows, 2), (h, c)


class DiagonalLSTM(nn.Module):
    """A recurrence along the diagonals: a pixel's state hears those to its left and above, so all of the upper left.

    The pixels of one diagonal do not hear each other, so they are updated at once: the map is skewed, each row one
    place further to the right than the one above it, and then taken column by column.
    """

    def __init__(self, maps: int, channels: int):
        super().__init__()
        self.inward = MaskedConv("B", 2 * maps, 4 * maps, 1, channels, gates=4)
        self.left = nn.Conv1d(maps, 4 * maps, 1, bias=False)
        self.up = nn.Conv1d(maps, 4 * maps, 1, bias=False)

    def forward(self, x, above, upto):
        gates = self.inward(x, None)[0][..., :upto]
        batch, maps, rows, width = len(x), gates.shape[1] // 4, *gates.shape[2:]
        above = gates.new_zeros(batch, maps, x.shape[3]) if above is None else above
        row, column = torch.arange(rows, device=x.device), torch.arange(width, device=x.device)
        h = c = gates.new_zeros(batch, maps, rows)
        diagonals = []
        for d in range(rows + width - 1):
            here = d - row  # the column that this diagonal has in each row
            entered = here >= 0
            sums = gates[:, :, row, here.clamp(0, width - 1)]
            upper = torch.cat([above[:, :, d : d + 1] if d < width else h[:, :, :1], h[:, :, :-1]], 2)
            h, c = _lstm(sums + self.left(h) + self.up(upper), c)
            h, c = h * entered, c * entered
            diagonals.append(h)
        out = torch.stack(diagonals, 3)[:, :, row[:, None], row[:, None] + column]
        return F.pad(out, (0, x.shape[3] - width)), out[:, :, -1]


class DiagonalBiLSTM(nn.Module):
    """A :class:`DiagonalLSTM` from the left; one from the right, whose states are moved down a row, off the future."""

    def __init__(self, maps: int, channels: int):
        super().__init__()
        self.right, self.left = DiagonalLSTM(maps, channels), DiagonalLSTM(maps, channels)

    def forward(self, x, state, upto):
        above, back_above, moved = state or (None, None, None)
        out, above = self.right(x, above, upto)
        moved = torch.zeros_like(out[:, :, :1]) if moved is None else moved
        if upto is not None:
            return out + moved, None
        back, back_above = self.left(x.flip(3), back_above, None)
        back = torch.cat([moved, back.flip(3)], 2)
        return out + back[:, :, :-1], (above, back_above, back[:, :, -1:])


class PixelRNN(Strips):
    """A masked 7x7 convolution, residual recurrent layers, "row" or "diagonal", and two 1x1 layers.

    The row LSTM sees a triangle above each pixel, the diagonal BiLSTM all before it but one: no masked feature of a row
    has seen the row's last pixel, so the row below sees that from nearby only. Both step through the image in training
    too, which makes them slower than convolutions.
    """

    def __init__(self, shape, levels: int = 2, kind: str = "row", maps: int = 32, layers: int = 3):
        super().__init__(shape, levels)
        c, wide = self.event_shape[0], 2 * check_count(maps, "maps")
        layer = {"row": RowLSTM, "diagonal": DiagonalBiLSTM}[check_choice(kind, ("row", "diagonal"), "kind")]
        self.first = MaskedConv("A", c, wide, 7, c)
        self.layers = nn.ModuleList(layer(maps, c) for _ in range(check_count(layers, "layers")))
        self.up = nn.ModuleList(MaskedConv("B", maps, wide, 1, c) for _ in self.layers)
        self.last = nn.ModuleList([MaskedConv("B", wide, wide, 1, c), MaskedConv("B", wide, c * levels, 1, c)])

    def _features(self, x, state, upto):
        below = {}
        h, below["first"] = self.first(x, state.get("first"))
        for i, (layer, up) in enumerate(zip(self.layers, self.up, strict=True)):
            a, below[i] = layer(h, state.get(i), upto)
            h = h + up(a, None)[0]
        for layer in self.last:
            h, _ = layer(h.relu(), None)
        return h, below
