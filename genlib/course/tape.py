"""The tape of a function: the ATen operations that lead from its inputs to its outputs, as ``live.js`` repeats them.

Operations that the page lacks are taken apart by torch's own decompositions, or by those of ``REWRITE``. What does not
depend on an input travels as numbers, in half precision or in bytes where there are many.
"""

import base64
import math
import re
import warnings
from importlib import resources

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

SCRIPT = (resources.files("genlib.course") / "live.js").read_text("utf8").rstrip()
TABLE = re.search(r"^const EACH = (.*?)^// ---- end", SCRIPT, re.S | re.M)[1]
# The names that live.js knows, and those that become such a name in Tape.add.
KNOWN = {"_to_copy", "clone", "_unsafe_index", "bitwise_and", "bitwise_or", "bitwise_not", "bitwise_xor"}
OPS = {name for pair in re.findall(r"(\w+): |^  (\w+)\(\[", TABLE, re.M) for name in pair if name}
INDEX = {"index", "index_put", "index_put_"}
# What depends on the shape of its argument alone.
SHAPE_ONLY = {name for kind in ("zeros", "ones", "full", "empty") for name in (f"{kind}_like", f"new_{kind}")}
REWRITE = {
    "aten.addmm.default": lambda b, x, y, beta, alpha: (
        (b if beta == 1 else beta * b) + (x if alpha == 1 else alpha * x) @ y
    ),
    "aten.mean.default": lambda x, dtype: x.sum() / x.numel(),
    "aten.mean.dim": lambda x, dims, keep, dtype: x.sum(dims, keep) * (x.sum(dims).numel() / x.numel()),
    "aten.var.correction": lambda x, dims, correction, keep: _var_mean(x, dims, correction, keep)[0],
    "aten.var_mean.correction": lambda x, dims, correction, keep: _var_mean(x, dims, correction, keep),
    "prims.var.default": lambda x, dims, correction, dtype: _var_mean(x, dims, correction, False)[0],
    "aten.constant_pad_nd.default": lambda x, sides, value: _padded(x, sides, value),
    "aten.flip.default": lambda x, dims: _flipped(x, dims),
    "aten._cdist_forward.default": lambda x, y, p, mode: (x[..., :, None, :] - y[..., None, :, :]).norm(p, -1),
    "aten.max.dim": lambda x, dim, keep: (x.amax(dim, keep), x.argmax(dim, keep)),
    "aten.min.dim": lambda x, dim, keep: (x.amin(dim, keep), x.argmin(dim, keep)),
    "aten.max.other": torch.maximum,
    "aten.min.other": torch.minimum,
    "aten.div.Tensor_mode": lambda x, y, mode: getattr(torch, mode)(x / y) if mode else x / y,
    "aten.sort.stable": lambda x, stable, dim, descending: torch.sort(x, dim, descending),
    "aten.bucketize.Tensor": lambda x, edges, int32, right: torch.searchsorted(edges, x, right=right),
    "aten.index_select.default": lambda x, dim, index: x[(slice(None),) * (dim % x.ndim) + (index.reshape(-1),)],
    "aten.fill_diagonal_.default": lambda x, value, wrap: (x.diagonal().fill_(value), x)[1],
}


def _flipped(x, dims):
    for dim in dims:
        x = x.index_select(dim, torch.arange(x.shape[dim] - 1, -1, -1))
    return x


def _padded(x, sides, value):
    sides = [0] * (2 * x.ndim - len(sides)) + [side for k in range(len(sides), 0, -2) for side in sides[k - 2 : k]]
    pairs = list(zip(sides[::2], sides[1::2], strict=True))
    out = x.new_full([n + a + b for n, (a, b) in zip(x.shape, pairs, strict=True)], value)
    inside = [slice(max(0, a), n + a + min(0, b)) for n, (a, b) in zip(x.shape, pairs, strict=True)]
    kept = [slice(max(0, -a), n + min(0, b)) for n, (a, b) in zip(x.shape, pairs, strict=True)]
    out[tuple(inside)] = x[tuple(kept)]
    return out


def _var_mean(x, dims, correction, keep):
    dims = list(range(x.ndim)) if dims is None else dims
    mean = x.mean(dims, True)
    n = x.numel() / mean.numel() - (1 if correction is None else correction)
    return (x - mean).square().sum(dims, keep) / n, x.mean(dims, keep)


def _refuse(name, args) -> None:
    """Raise ValueError for what the page would compute wrongly without a word."""
    places = [i is not None for i in args[1]] if name in INDEX else []
    apart = True in places and False in places[places.index(True) :][: sum(places)]
    why = {
        "complex numbers": any(isinstance(x, Tensor) and x.is_complex() for x in args),
        "convolution in three dimensions": name == "convolution" and args[0].ndim > 4,
        "avg_pool2d with ceil_mode": name == "avg_pool2d" and args[4],
        "an index with other dimensions between its tensors": apart,
    }
    for what in (what for what, here in why.items() if here):
        raise ValueError(f"function: the page has no counterpart of {what}")


def _key(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _whole(x: Tensor, size: int | None = None) -> bool:
    """Whether ``x`` is its storage from end to end, in order."""
    n = x.untyped_storage().nbytes() // x.element_size() if size is None else size
    return x.is_contiguous() and x.storage_offset() == 0 and x.numel() == n


class Value:
    def __init__(self, name, args, tensor, live):
        self.name, self.args, self.tensor, self.live, self.shape = name, args, tensor, live, list(tensor.shape)
        self.reads = [int(a[1:]) for a in tree_leaves(args) if isinstance(a, str) and a.startswith("$")]


class Tape(TorchDispatchMode):
    """Records each operation as a value that reads earlier values, written ``$number`` in its arguments.

    A storage holds a value, and a tensor reads that of its storage through its strides. So views cost nothing, and
    what is changed in place is seen changed by all views.
    """

    def __init__(self, inputs):
        super().__init__()
        self.values, self.holds, self.seen, self.kept = [], {}, {}, []
        self.asked = False  # whether Python asked for a number that depends on an input, as an if does
        for x in inputs:
            self.holds[_key(x)] = self.add("input", [], x, True)

    def add(self, name, args, tensor, live) -> int:
        if name == "_to_copy":  # numbers are float64 in the page
            kind = "float" if tensor.is_floating_point() else str(tensor.dtype)
            name, args = {"float": "view", "torch.bool": "ne"}.get(kind, "trunc"), [args[0], 0]
        if name.startswith("bitwise_") and tensor.dtype == torch.bool:
            name = name.replace("bitwise_", "logical_")
        name = {"clone": "view", "_unsafe_index": "index"}.get(name, name)
        self.values.append(Value(name, args, tensor, live))
        return len(self.values) - 1

    def read(self, x: Tensor) -> str:
        """``$number`` of the value that ``x`` has now."""
        if _key(x) not in self.holds:
            whole = x if _whole(x) else torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
            self.holds[_key(x)] = self.add("constant", [], whole, False)
        number = self.holds[_key(x)]
        base, shape = self.values[number], list(x.shape)
        flat = _whole(x, base.tensor.numel())
        if not flat or shape != base.shape:
            args = [f"${number}"] if flat else [f"${number}", shape, list(x.stride()), x.storage_offset()]
            place = str((shape, args))
            if place not in self.seen:
                self.seen[place] = self.add("view" if flat else "strided", args, x, base.live)
            number = self.seen[place]
        return f"${number}"

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, wanted = kwargs or {}, func._schema.arguments
        full = [*args, *(kwargs.get(a.name, a.default_value) for a in wanted[len(args) :])]
        name = func._schema.name.removeprefix("aten::")
        reads = tree_map_only(Tensor, self.read, full)
        numbers = [int(self.read(x)[1:]) for x in tree_leaves(full) if isinstance(x, Tensor)]
        live = name not in SHAPE_ONLY and any(self.values[i].live for i in numbers)
        written = [x for x, a in zip(full, wanted, strict=True) if a.alias_info and a.alias_info.is_write]
        if live:
            self.asked |= name == "_local_scalar_dense"
            _refuse(name, full)
        if live and name in INDEX and any(i is not None and i.dtype == torch.bool for i in full[1]):
            with self:  # the page knows places, no masks; where a mask depends on a control, nonzero is refused
                each = [(i,) if i is None or i.dtype != torch.bool else i.nonzero().unbind(1) for i in full[1]]
                return func(full[0], sum(each, ()), *full[2:])
        if live and (str(func) in REWRITE or not {name.removesuffix("_"), f"{name}_0"} & (OPS | KNOWN)):
            with self:
                if str(func) in REWRITE:
                    return REWRITE[str(func)](*full)
                if func in decomposition_table:
                    return decomposition_table[func](*args, **kwargs)
                if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
                    return func.decompose(*args, **kwargs)
                if name.startswith("prims::") and name[7:] in OPS:
                    return getattr(torch, name[7:])(*args)
                if written and name.endswith("_") and torch.Tag.inplace_view not in func.tags:
                    outside = getattr(getattr(torch.ops.aten, name[:-1]), func._overloadname)
                    return args[0].copy_(outside(*args, **kwargs))
        if written and torch.Tag.inplace_view not in func.tags:
            key = _key(written[0])
            number = self.holds[key]
            base, whole = self.values[number], self.values[number].tensor
            for value in self.values:  # what was read before keeps its numbers
                if not value.live and _key(value.tensor) == key:
                    self.kept.append(value.tensor)
                    value.tensor = value.tensor.clone()
            out, x = func(*args, **kwargs), written[0]
            new = self.add(name.removesuffix("_"), reads, x, live)
            if not _whole(x, whole.numel()):
                args = [f"${number}", f"${new}", list(x.shape), list(x.stride()), x.storage_offset()]
                new = self.add("put", args, whole, live or base.live)
            self.holds[key] = new
            return out
        out = tree_map_only(Tensor, self._own, func(*args, **kwargs))
        for k, x in enumerate(tree_leaves(out)):
            if isinstance(x, Tensor) and _key(x) not in self.holds:
                several = isinstance(out, (tuple, list))
                self.holds[_key(x)] = self.add(f"{name}_{k}" if several else name, reads, x, live)
        return out

    def _own(self, x: Tensor) -> Tensor:
        """``x`` as the whole of its storage, unless it is a view of what is known."""
        return x if _key(x) in self.holds or _whole(x) else x.clone(memory_format=torch.contiguous_format)

    def spec(self, outputs, starts, precision) -> dict:
        """What the page needs: the constants, and the operations that lead to the outputs.

        A constant that costs less to make from smaller ones, such as a grid of differences, is made in the page.
        """
        roots = [int(self.read(x)[1:]) for x in outputs]
        costs, made = [], []
        for value in self.values:
            x, known = value.tensor, value.name in OPS and value.reads and not value.live
            bake = 1 if x.numel() and (x == x.flatten()[0]).all() else x.numel()
            make = sum(costs[i] for i in set(value.reads)) if known else math.inf
            made.append(value.live or make < bake or (make == bake and value.name in ("view", "strided")))
            costs.append(0 if value.live else min(bake, make))
        need = set(roots)
        for i in reversed(range(len(self.values))):
            if i in need and made[i]:
                need.update(self.values[i].reads)
        inputs = [i for i, value in enumerate(self.values) if value.name == "input"]
        fixed = [i for i in sorted(need) if not made[i]]
        steps = [i for i in sorted(need) if made[i] and i not in inputs]
        places = {number: place for place, number in enumerate([*inputs, *fixed, *steps])}
        for i in steps:
            if self.values[i].name not in OPS:
                raise ValueError(
                    f"function: the page has no operation {self.values[i].name!r}; it has {', '.join(sorted(OPS))}"
                )
        blob = bytearray()
        constants = [_pack(self.values[i].tensor, precision, blob) for i in fixed]
        first = [_pack(s, "fp32", blob) if s.ndim else None for s in starts]
        blob += bytes(max(0, 150 - len(blob)))  # short runs of base64 would be compared word by word in the tests
        return {
            "inputs": [self.values[i].shape for i in inputs],
            "constants": constants,
            "ops": [[v.name, _plain(v.args, places), v.shape] for v in map(self.values.__getitem__, steps)],
            "outputs": [places[i] for i in roots],
            "starts": first,
            "blob": base64.b64encode(blob).decode(),
        }


def _plain(arg, places):
    """An argument as JSON has it."""
    if isinstance(arg, (list, tuple)):
        return [_plain(a, places) for a in arg]
    if isinstance(arg, str) and arg.startswith("$"):
        return f"${places[int(arg[1:])]}"
    if isinstance(arg, float) and not math.isfinite(arg):
        return str(arg).replace("inf", "Infinity").replace("nan", "NaN")
    return arg if arg is None or isinstance(arg, (bool, int, float, str)) else None  # no dtypes and devices there


def _pack(x: Tensor, precision, blob: bytearray) -> list:
    """Append a constant to ``blob``: ``[kind, shape, where it starts]``, or ``["same", shape, value]``."""
    x, shape = x.detach().cpu().double().contiguous(), list(x.shape)
    if x.numel() == 0 or x.numel() > 1 and (x == x.flatten()[0]).all():
        return ["same", shape, _plain(x.flatten()[0].item() if x.numel() else 0, {})]
    start, large, most = len(blob), x.numel() >= 1000, x.abs().max()
    if (x == x.round()).all() and most < 2**31:
        kind, data = ("u1", x.byte()) if x.min() >= 0 and most < 256 else ("i4", x.int())
    elif large and precision == "int8" and x.ndim > 1:
        scale = x.flatten(1).abs().amax(1).clamp_min(1e-30) / 127
        kind, data = "i1", (x.flatten(1) / scale[:, None]).round().char()
    elif large and precision != "fp32" and torch.allclose(x.half().double(), x, rtol=1e-3, atol=1e-6, equal_nan=True):
        kind, data = "f2", x.half()
    else:
        kind, data = "f4", x.float()
    blob += data.numpy().tobytes()
    blob += bytes(-len(blob) % 4)
    if kind == "i1":
        blob += scale.float().numpy().tobytes()
    return [kind, shape, start]


def record(function, values, starts=(), precision="fp16") -> tuple:
    """What the function returns for these values, its tape, and whether Python asked for a number that depends on them.

    ``starts`` are first values of controls to pack too.
    """
    values, fast = [x.clone() for x in values], torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation for a whole layer, which the page has not
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the flag's own word on GPUs that are not there
            with torch.backends.mkldnn.flags(enabled=False), Tape(values) as tape:
                result = function(*values)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
    return result, tape.spec(outputs, starts, precision), tape.asked
