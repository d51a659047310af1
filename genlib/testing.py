"""The conformance suite: does a model keep what :mod:`genlib.contract` promises?

``check_model(model, x)`` works on the library's models and on a reader's own. What a model can do it reads from its
methods; what they cannot tell, the model may declare with these attributes, none of them required:

- ``levels``: int; every coordinate takes the values ``0 .. levels-1`` and ``log_prob`` is a mass.
- ``normalized = False``: ``log_prob`` is not meant to integrate to one.
- ``loss_is_nll = True``: ``loss(x)`` is ``-log_prob(x).mean()``.
- ``base = "normal"``: a bijection's ``log_prob`` is that of a standard normal ``z`` plus ``logdet``.
- ``ordering``: the coordinates of the flat event in the order in which an autoregressive model draws them. Checked is
  ``logits(x)``, shape ``(B, *event_shape)`` or ``(B, *event_shape, K)``, or else a bijection's ``forward``.
- ``generator``, and ``critic`` or ``discriminator``: the networks of the two players.

Random checks use a fixed seed; over seeds, a correct model fails each of them with probability of about 1e-6.
A second attempt on a finer grid, where there is one, only lowers it.

Papers: K. Pearson, Philosophical Magazine, 1900 (chi-squared); A. Gelfand and D. Dey, Bayesian model choice:
asymptotics and exact calculations, JRSS B, 1994 (``E_p[q/p] = 1``); Y. Burda, R. Grosse and R. Salakhutdinov,
Importance weighted autoencoders, ICLR, 2016 (the order of the bounds).
"""

import copy
import inspect
import math
import re
from functools import cached_property

import torch
from safetensors.torch import load, save
from scipy import stats
from torch import Tensor, nn

from genlib.contract import check_count, check_data, check_positive

FALSE_ALARM = 1e-6
SCALARS, ROWS = ("loss", "critic_loss", "generator_loss"), ("log_prob", "elbo", "log_prob_bound")
STATES = 4096  # a discrete model with no more states than this is summed over all of them
CHECKS = {}


class ConformanceError(AssertionError):
    """A broken promise: the ``check``'s name, how to ``reproduce`` it, what was ``seen`` and what ``expected``."""

    def __init__(self, check: str, reproduce: str, seen: str, expected: str):
        super().__init__(f"{check}: {reproduce}: expected {expected}, got {seen}")
        self.check, self.reproduce, self.seen, self.expected = check, reproduce, seen, expected


def check_model(model, x: Tensor, *, samples=20_000, seed=0, tolerance=1e-6, skip=(), fresh=None) -> list[str]:
    """Run every check that fits ``model``; return their names, or raise :class:`ConformanceError` at the first to fail.

    ``x`` ``(B, *event_shape)`` is a batch that the model accepts, best of 8 rows or more and of an odd width above 2: a
    wrong inverse or mask can be right by luck in two dimensions. The work is done on copies; your model is not touched.

    ``samples``: draws to compare with the density. ``tolerance``: of round trips and log-determinants in float64,
    relative to ``1 + |value|``; widen it for an ODE solver. ``skip``: checks to leave out, by name. ``fresh``: makes an
    untrained model of the same design to load the weights into; without it a zeroed copy stands in, which does not
    notice a forgotten buffer of the kind ``persistent=False``. Raises TypeError or ValueError, naming the argument, for
    one that is unfit: a class or an unfitted estimator, an ``x`` with NaN, an unknown name in ``skip``.
    """
    _check_arguments(model, x, samples, seed, tolerance, skip, fresh)
    if unknown := set(skip) - set(CHECKS):
        raise ValueError(f"skip: expected names among {', '.join(CHECKS)}, got {', '.join(sorted(unknown))}")
    case, ran = _Case(model, x, samples, seed, tolerance, fresh), []
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        for name, (check, needs) in CHECKS.items():
            if name in skip or not all(map(case.has, needs)):
                continue
            case.check = name
            torch.manual_seed(seed + 61803)  # unlike what a model may set itself
            try:
                with torch.enable_grad():
                    if check(case) is not False:
                        ran.append(name)
            except ConformanceError:
                raise
            except Exception as error:
                seen = f"{type(error).__name__}: {error}"
                raise ConformanceError(name, "the traceback above", seen, "no error") from error
    return ran


def _check_arguments(model, x, samples, seed, tolerance, skip, fresh):
    if isinstance(model, type):
        raise TypeError(f"model: expected an instance, got the class {model.__name__}")
    methods = (*SCALARS, *ROWS, "sample", "encode", "decode", "inverse")
    if isinstance(model, (str, bytes, Tensor)) or not any(callable(getattr(model, name, None)) for name in methods):
        raise TypeError(f"model: expected an object with one of {', '.join(methods)}, got {type(model).__name__}")
    if callable(getattr(model, "fit", None)) and not hasattr(model, "event_shape"):
        raise ValueError(f"model: expected a fitted one, got {type(model).__name__} with no event_shape: call fit(x)")
    whole = isinstance(x, Tensor) and x.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    check_data(
        x.double() if whole and getattr(model, "levels", None) else x, x.shape[1:] if isinstance(x, Tensor) else None
    )
    check_count(samples, "samples")
    check_count(seed, "seed", 0)
    check_positive(tolerance, "tolerance")
    if not (isinstance(skip, (list, tuple, set, frozenset)) and all(isinstance(name, str) for name in skip)):
        error = ValueError if isinstance(skip, str) else TypeError
        raise error(f"skip: expected a list, tuple or set of names of checks, got {skip!r}")
    if not (fresh is None or callable(fresh)):
        raise TypeError(f"fresh: expected a function that makes a model, or None, got {fresh!r}")


def _needs(*needs):
    """Register a check and what a model must have for it: methods, or what :meth:`_Case.has` works out."""

    def register(check):
        CHECKS[check.__name__.strip("_")] = check, needs
        return check

    return register


class _Case:
    """A model and its data, as given and in float64, with what several checks compute."""

    def __init__(self, model, x, samples, seed, tolerance, fresh):
        self.given, self.x, self.samples, self.seed, self.tolerance = model, x, samples, seed, tolerance
        self.module, self.fresh, self.grids = isinstance(model, nn.Module), fresh, {}
        self.levels, self.event = getattr(model, "levels", None), tuple(x.shape[1:])
        self.dim, self.dtype = math.prod(self.event), x.dtype if x.is_floating_point() else torch.get_default_dtype()
        if self.module:
            self.dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), self.dtype)
            self.x = self.cast(self.dtype)[1]
        self.sizes = (3**8, 3**10) if self.dim == 1 else (3**5, 3**6)
        bijection = hasattr(model, "inverse") and getattr(type(model), "forward", None) is not nn.Module.forward
        self.traits = {
            "module": self.module,
            "elsewhere": x.device.type != "cpu",
            "few_states": bool(self.levels) and self.levels**self.dim <= STATES,
            "plane": not self.levels and self.dim <= 2,
            "trains": self.module and any(map(self.has, SCALARS)),
            "bijection": bijection,
            "normalized": self.has("log_prob") and getattr(model, "normalized", True),
            "nll": getattr(model, "loss_is_nll", False),
            "base": isinstance(getattr(model, "base", None), str) and model.base == "normal",
            "ordered": hasattr(model, "ordering") and (bijection or self.has("logits")),
        }

    def has(self, name):
        traits = self.__dict__.get("traits", {})
        return traits[name] if name in traits else callable(getattr(self.given, name, None))

    def cast(self, dtype):
        """A copy of the model in evaluation mode, and the data; a closed-form estimator keeps the dtype of its data."""
        x = self.x.to(dtype) if self.module and self.x.is_floating_point() else self.x
        return (copy.deepcopy(self.given).to(dtype).eval() if self.module else copy.deepcopy(self.given)), x

    @cached_property
    def model(self):
        return self.cast(self.dtype)[0]

    @cached_property
    def wide(self):
        return self.cast(torch.float64)

    def rng(self, seed=None):
        return torch.Generator().manual_seed(self.seed if seed is None else seed)

    def expect(self, true, reproduce, seen, expected):
        if not bool(true):
            raise ConformanceError(self.check, reproduce, seen, expected)

    def close(self, a, b, reproduce, expected, tolerance=None):
        """``|a - b| <= tolerance (1 + |b|)``, or the same infinity; NaN never passes."""
        tolerance = tolerance or (self.tolerance if a.dtype == torch.float64 else 1e-3)
        far = ~((a == b) | ((a - b).abs() <= tolerance * (1 + b.abs())))
        self.expect(not far.any(), reproduce, f"a gap of {(a - b).abs()[far].sum() / far.sum():.3g}", expected)

    def calls(self, model, x, seed=None, n=5):
        """Every method of the contract, ready to be called with a new generator each time."""
        calls = {
            "log_prob": lambda g: model.log_prob(x),
            "sample": lambda g: model.sample(n, generator=g),
            "loss": lambda g: model.loss(x, generator=g),
            "critic_loss": lambda g: model.critic_loss(x, generator=g),
            "generator_loss": lambda g: model.generator_loss(n, generator=g),
            "elbo": lambda g: model.elbo(x, generator=g),
            "log_prob_bound": lambda g: model.log_prob_bound(x, 3, generator=g),
        }
        return {name: lambda call=call: call(self.rng(seed)) for name, call in calls.items() if self.has(name)}

    def code(self):
        """The code of x; where ``encode`` returns the parameters of a posterior, the first of them."""
        code = self.model.encode(self.x)
        return (code if isinstance(code, Tensor) else code[0]).detach()

    @torch.no_grad()
    def log_prob(self, flat):
        """``log p`` of many flat rows in float64, a chunk at a time."""
        parts = flat.to(self.wide[1].dtype).split(4096)
        out = torch.cat([self.wide[0].log_prob(rows.reshape(-1, *self.event)) for rows in parts]).double()
        self.expect(not out.isnan().any(), "model.log_prob far from x", "NaN", "a log-probability")
        return out

    @torch.no_grad()
    def draws(self, n, seed):
        g = self.rng(seed)
        return torch.cat([self.wide[0].sample(len(p), generator=g) for p in torch.empty(n).split(4096)]).reshape(n, -1)

    def pearson(self, bins, mass):
        """Chi-squared of the draws' ``bins`` against the mass of each; bins too thin for it together, as Poisson."""
        expected, observed = mass * len(bins), torch.bincount(bins, minlength=len(mass)).double()
        thick, worst = expected >= 5, int(((observed - expected) ** 2 / (expected + 1)).argmax())
        statistic = ((observed - expected)[thick] ** 2 / expected[thick]).sum()
        p = stats.chi2.sf(float(statistic), max(int(thick.sum()) - 1, 1))
        p = min(p, stats.poisson.sf(float(observed[~thick].sum()) - 1, float(expected[~thick].sum()) + 1e-6))
        seen = f"p = {p:.1e} (chi-squared); a bin with {observed[worst]:.0f} draws where {expected[worst]:.0f} belong"
        self.expect(p >= FALSE_ALARM, "model.sample against model.log_prob", seen, "samples from the density stated")


def _outputs(case, model, x, dtype):
    """Shape, dtype, device and values of what each method returns."""
    shapes = dict.fromkeys(SCALARS, ()) | dict.fromkeys(ROWS, (len(x),))
    for name, call in case.calls(model, x).items():
        out = call()
        case.expect(isinstance(out, Tensor), f"model.{name}", type(out).__name__, "a tensor")
        wanted = (shapes.get(name, (5, *case.event)), x.dtype if name == "sample" else dtype, x.device)
        seen = (tuple(out.shape), out.dtype, out.device)
        case.expect(seen == wanted, f"shape, dtype, device of model.{name} at {dtype}", f"{seen}", f"{wanted}")
        case.expect(not (out.isnan() | (out == math.inf)).any(), f"model.{name}", "NaN or infinity", "numbers")
        if name == "sample" and case.levels:
            whole = torch.isin(out, torch.arange(case.levels).to(out)).all()
            case.expect(whole, "model.sample(5)", "other values", f"0 .. {case.levels - 1}")


@_needs()
def _shapes(case):
    seen = getattr(case.given, "event_shape", None)
    case.expect(seen == case.event, "model.event_shape", f"{seen}", f"{case.event}, the shape of a row of x")
    _outputs(case, case.model, case.x, case.dtype)


@_needs("module")
def _precision(case):
    for dtype in (torch.float32, torch.float64):
        model, x = case.cast(dtype)
        _outputs(case, model, x, dtype)
        if case.has("log_prob"):
            a, b = model.log_prob(x).double(), case.model.log_prob(case.x).double()
            case.close(a, b, "model.float().log_prob(x) against model.double()", "the same", 1e-2)


@_needs("elsewhere", "module", "sample")
def _device(case):
    model = case.wide[0]
    here, there = (m.sample(5, generator=case.rng()).cpu() for m in (model, copy.deepcopy(model).cpu()))
    case.close(here, there, "model.sample(5, generator=cpu_generator) on two devices", "the same noise")


def _wrong(value, levels):
    """What no door may let through."""
    floating, bent = value.is_floating_point(), {}
    yield "a list", value.tolist()
    yield "the wrong dtype", value.long() if floating else value.double()
    yield "an empty batch", value[:0]
    yield "one column too many", torch.cat([value, value[..., :1]], -1)
    if value.ndim == 2:
        yield "one row without its batch", value[0]
    if floating:
        bent = {"NaN": math.nan, "infinity": math.inf}
    if levels:
        bent |= {"a level too high": levels, "a level below 0": -1} | ({"a level of 0.5": 0.5} if floating else {})
    for what, bad in bent.items():
        out = value.clone()
        out[(-1,) * value.ndim] = bad
        yield what, out


@_needs()
def _bad_input(case):
    def refused(name, what, *arguments, place=0):
        method = getattr(case.model, name)
        argument = list(inspect.signature(method).parameters)[place]
        how, wanted = f"model.{name} with {what} for {argument}", f"TypeError or ValueError that names {argument}"
        try:
            method(*arguments)
        except Exception as error:
            good = isinstance(error, (TypeError, ValueError)) and re.search(rf"\b{argument}\b", str(error))
            case.expect(good, how, f"{type(error).__name__}: {error}", wanted)
        else:
            case.expect(False, how, "no error", wanted)

    takers = dict.fromkeys(("log_prob", "loss", "elbo", "log_prob_bound", "critic_loss", "encode"), case.x)
    if case.has("bijection"):
        takers |= {"forward": case.x, "inverse": case.model(case.x)[0].detach()}
    if case.has("encode") and case.has("decode"):
        takers["decode"] = case.code()
    for name, value in takers.items():
        levels = None if name in ("forward", "inverse", "decode") else case.levels
        for what, bad in _wrong(value, levels) if case.has(name) else ():
            if not (name == "decode" and value.ndim > 2 and "column" in what):  # a convolution may take any width
                refused(name, what, bad, *([3] if name == "log_prob_bound" else []))
    for name in ("sample", "generator_loss"):
        for n in (0, -1, 2.5) if case.has(name) else ():
            refused(name, f"{n}", n)
    if case.has("log_prob_bound"):
        refused("log_prob_bound", "0", case.x, 0, place=1)


def _tensors(model):
    """Every tensor a model holds: its state, and plain attributes of itself and its parts."""
    parts = dict(model.named_modules()) if isinstance(model, nn.Module) else {"": model}
    plain = {f"{k}.{a}": v for k, part in parts.items() for a, v in vars(part).items() if isinstance(v, Tensor)}
    return plain | (model.state_dict() if isinstance(model, nn.Module) else {})


@_needs()
def _evaluation(case):
    model, x = copy.deepcopy(case.model), case.x.clone()
    before = {k: v.clone() for k, v in _tensors(model).items()}
    for name, call in case.calls(model, x).items():
        call()
        after = _tensors(model) | {"x": x}
        changed = [k for k, v in (before | {"x": case.x}).items() if not torch.equal(v, after[k])]
        case.expect(not changed, f"model.eval().{name}", f"a change of {', '.join(changed)}", "none")


@_needs()
def _same_generator(case):
    for name, call in case.calls(case.model, case.x, n=64).items():
        case.expect(torch.equal(call(), call()), f"model.{name}, twice with one seed", "two values", "one")


@_needs()
def _global_state(case):
    def state():
        return torch.get_rng_state().tolist(), torch.get_default_dtype(), torch.is_grad_enabled()

    for name, call in case.calls(case.model, case.x).items():
        before = state()
        call()
        how = f"torch.get_rng_state(), default dtype, grad mode around model.{name} with a generator"
        case.expect(before == state(), how, "a change", "none")


@_needs("sample")
def _new_noise(case):
    for what, seeds in (("with two seeds", (0, 1)), ("twice, no generator", (None, None))):
        one, two = (case.model.sample(64, generator=None if s is None else case.rng(s)) for s in seeds)
        case.expect(not torch.equal(one, two), f"model.sample(64) {what}", "the same", "two samples")


@_needs()
def _batch(case):
    model, x = case.wide
    names = [name for name in ("log_prob", "encode") if case.has(name)] + ["forward"] * case.has("bijection")
    for name in names:
        whole, back, alone = (getattr(model, name)(rows) for rows in (x, x.flip(0), x[:1]))
        whole, back, alone = (v if isinstance(v, Tensor) else v[0] for v in (whole, back, alone))
        case.close(back, whole.flip(0), f"model.{name}(x.flip(0)) against model.{name}(x)", "the same rows")
        case.close(alone, whole[:1], f"model.{name}(x[:1]) against model.{name}(x)[:1]", "the same row")
    return bool(names)


@_needs("trains")
def _loss(case):
    for name, call in case.calls(case.model, case.x).items():
        out = call()
        if name in SCALARS:
            case.expect(out.isfinite() and out.requires_grad, f"model.{name}", f"{out}", "finite, with a gradient")


@_needs("loss")
def _loss_mean(case):
    model, x = case.wide
    seeds = torch.arange(40).reshape(2, 20).tolist()
    once, twice = (
        torch.stack([model.loss(rows, generator=case.rng(s)).detach() for s in part])
        for rows, part in zip((x, torch.cat([x, x])), seeds, strict=True)
    )
    noise = ((once.var() + twice.var()) / 20).sqrt() * stats.t.isf(FALSE_ALARM / 2, 19)
    same = (once.mean() - twice.mean()).abs() <= noise + 1e-6 * (1 + once.mean().abs())
    case.expect(same, "model.loss(torch.cat([x, x]))", f"{twice.mean():.4g}", f"{once.mean():.4g}, as for x: a mean")


@_needs("module", "loss")
def _gradients(case):
    model, g = copy.deepcopy(case.given).double().train(), case.rng()
    with torch.no_grad():
        for p in model.parameters():  # a layer that starts at zero stops the gradient of those before it
            p.add_(torch.randn(p.shape, generator=g, dtype=p.dtype).to(p.device), alpha=0.05)
    model.zero_grad()
    model.loss(case.wide[1], generator=g).backward()
    for name, p in model.named_parameters():
        good = p.grad is not None and p.grad.isfinite().all() and p.grad.any()
        seen = "none" if p.grad is None else "zero" if not p.grad.any() else "not finite"
        case.expect(good or not p.requires_grad, f"gradient of {name}", seen, "finite and somewhere not zero")


@_needs("nll", "loss", "log_prob")
def _likelihood_loss(case):
    model, x = case.wide
    case.close(model.loss(x, generator=case.rng()), -model.log_prob(x).mean(), "model.loss(x)", "-log_prob(x).mean()")


@_needs("critic_loss", "generator_loss")
def _two_player(case):
    model = copy.deepcopy(case.given)
    maker, critic = getattr(model, "generator", None), getattr(model, "critic", getattr(model, "discriminator", None))
    if not (isinstance(maker, nn.Module) and isinstance(critic, nn.Module)):
        return False
    calls = case.calls(model, case.x, n=8)
    for name, player in (("generator_loss", maker), ("critic_loss", critic)):
        model.zero_grad(set_to_none=True)
        calls[name]().backward()
        grads = [p.grad for p in player.parameters()]
        good = all(g is not None and g.isfinite().all() for g in grads) and any(g.any() for g in grads)
        case.expect(good, f"model.{name}(...).backward()", "a parameter of its player without", "finite gradients")
    leaks = [name for name, p in maker.named_parameters() if p.grad is not None and p.grad.any()]
    case.expect(not leaks, "model.critic_loss(x).backward()", f"a gradient of generator.{', '.join(leaks)}", "none")


@_needs("encode", "decode")
def _latent(case):
    code, wanted = case.code(), tuple(case.x.shape)
    case.expect(len(code) == len(case.x), "model.encode(x)", f"{len(code)} codes", f"{len(case.x)}")
    seen = tuple(case.model.decode(code).shape)
    case.expect(seen == wanted, "shape of model.decode(model.encode(x))", f"{seen}", f"{wanted}")


@_needs("module")
def _save_load(case):
    weights = save({k: v.contiguous().clone() for k, v in case.model.state_dict().items()})
    other = case.fresh().to(case.x.device, case.dtype).eval() if case.fresh else copy.deepcopy(case.model)
    if not case.fresh:
        with torch.no_grad():
            for tensor in _tensors(other).values():
                tensor.zero_()
    other.load_state_dict(load(weights))
    loaded = case.calls(other, case.x)
    for name, call in case.calls(case.model, case.x).items():
        same = torch.equal(call(), loaded[name]())
        case.expect(
            same, f"model.{name} after load_state_dict", "other values", "the same bits: is all state a buffer?"
        )


def _dependence(case, reach):
    """Move one coordinate at a time (64 at most) and see which outputs change."""
    model, x = case.wide
    order = torch.as_tensor(list(model.ordering))
    complete = sorted(order.tolist()) == list(range(case.dim))
    case.expect(complete, "model.ordering", f"{order.tolist()}", f"each of 0 .. {case.dim - 1} once")
    logits, flat = case.has("logits"), x.reshape(len(x), -1)

    @torch.no_grad()
    def outputs(rows):
        rows = rows.reshape(x.shape)
        return (model.logits(rows) if logits else model(rows)[0]).reshape(len(x), case.dim, -1)

    before, name = outputs(flat), "logits(x)" if logits else "forward(x)[0]"
    rank = order.argsort().to(x.device)
    for j in order[torch.linspace(0, case.dim - 1, min(case.dim, 64)).long()].tolist():
        moved = flat.clone()
        moved[:, j] = (moved[:, j] + 1) % case.levels if case.levels else moved[:, j] + 1
        change = (outputs(moved) - before).abs().amax((0, 2)) / (1 + before.abs().max())
        earlier = rank > rank[j] if logits or reach else rank >= rank[j]  # z_i of a flow depends on its own x_i
        wrong = (earlier & (change < 1e-14)) if reach else (~earlier & (change > 1e-10))
        i = int(wrong.long().argmax())
        seen = f"output {i} {'missing' if reach else 'changing with'} input {j}"
        wanted = f"dependence on {'all' if reach else 'only'} what {order.tolist()[:9]}... draws before"
        case.expect(not wrong.any(), f"model.{name} with x[:, {j}] moved", seen, wanted)


@_needs("ordered")
def _autoregressive_mask(case):
    _dependence(case, reach=False)


@_needs("ordered")
def _autoregressive_reach(case):
    _dependence(case, reach=True)


@_needs("bijection")
def _round_trip(case):
    model, x = case.wide
    noise = torch.randn(x.shape, generator=case.rng(), dtype=x.dtype).to(x.device)
    for name, there, back, start in (
        ("inverse(*forward(x))", model, model.inverse, x),
        ("forward(*inverse(z))", model.inverse, model, noise),
    ):
        middle, one = there(start)
        seen, wanted = (tuple(middle.shape), tuple(one.shape)), (tuple(x.shape), (len(x),))
        case.expect(seen == wanted, f"shapes in {name}", f"{seen}", f"{wanted}")
        end, two = back(middle)
        case.close(end, start, f"model.{name}", "the start")
        case.close(one, -two, f"log-determinants in model.{name}", "a sum of zero")


@_needs("bijection")
def _logdet(case):
    model, x = case.wide
    if case.dim > 128:
        return False
    for row in x[:4]:
        jacobian = torch.autograd.functional.jacobian(lambda r: model(r[None])[0][0], row).reshape(case.dim, case.dim)
        case.close(model(row[None])[1][0], jacobian.slogdet()[1], "model(x)[1]", "slogdet of autograd's jacobian")


@_needs("base", "bijection", "log_prob")
def _base(case):
    model, x = case.wide
    z, logdet = model(x)
    stated = logdet - (z**2 / 2 + math.log(2 * math.pi) / 2).flatten(1).sum(1)
    case.close(model.log_prob(x), stated, "model.log_prob(x)", "log N(z; 0, I) + logdet")


def _state_masses(case):
    states = torch.cartesian_prod(*[torch.arange(case.levels, device=case.x.device)] * case.dim).reshape(-1, case.dim)
    return states, case.log_prob(states).exp()


def _grid(case, cells):
    """The mass of each cell of a grid over all of space, the cell of a point, the integral and a bound on its error.

    A coordinate is ``centre + width (2u - 1) / sqrt(2 u (1 - u))``, ``0 < u < 1``: Student's quantile with 2 degrees of
    freedom, whose tails miss nothing. Midpoint rule in u; its error is put at the largest gap to the grids of every
    third point. All of them may step over a narrow mode: where one of 32 slabs along an axis holds twice the grid's
    mass, and 1% more, of the model's own draws, the error is infinite and :func:`_importance` decides.
    """
    if cells not in case.grids:
        x = case.wide[1].flatten(1)
        seen = case.draws(2000, case.seed + 2) if case.has("sample") else x
        centre = seen.median(0).values
        width = (seen - centre).abs().median(0).values.clamp_min(1e-3)
        u = (torch.arange(cells).to(x) + 0.5) / cells
        axes = centre[:, None] + width[:, None] * (2 * u - 1) / (2 * u * (1 - u)).sqrt()
        slopes = width[:, None] * (2 * u * (1 - u)) ** -1.5

        def locate(s):
            t = (s - centre) / width
            return ((0.5 + t / (2 * (2 + t**2).sqrt())) * cells).long().clamp(0, cells - 1)

        points, area = (torch.cartesian_prod(*a).reshape(-1, case.dim) for a in (axes, slopes / cells))
        mass = (case.log_prob(points).exp() * area.double().prod(1)).reshape([cells] * case.dim)
        thirds = mass.reshape([cells // 3, 3] * case.dim).sum(tuple(range(0, 2 * case.dim, 2))) * 3**case.dim
        error, slab = float((mass.sum() - thirds).abs().max()), (torch.arange(cells) * 32 // cells).to(x.device)
        for axis, place in enumerate(locate(seen).T if case.has("sample") else ()):
            along = mass if case.dim == 1 else mass.sum(1 - axis)
            drawn, held = torch.bincount(slab[place], minlength=32) / len(seen), torch.bincount(slab, along, 32)
            error = math.inf if (drawn - 2 * held).max() > 0.01 else error
        case.grids[cells] = mass, locate, float(mass.sum()), error
    return case.grids[cells]


@_needs("normalized", "few_states")
def _masses(case):
    total = float(_state_masses(case)[1].sum())
    good = abs(total - 1) <= (1e-6 if case.module else 1e-4)
    case.expect(good, "sum of exp(log_prob) over all states", f"{total:.6f}", "1")


@_needs("normalized", "plane")
def _integral(case):
    for cells in case.sizes:
        _, _, total, error = _grid(case, cells)
        if error < 0.02 and abs(total - 1) <= max(error, 0.003):
            return True
    if error >= 0.02:  # too rough for a grid: the comparison with samples decides, on the constant as well
        return False
    case.expect(False, "integral of exp(log_prob) on a grid", f"{total:.4f}", f"1 to within {max(error, 0.003):.3f}")


def _cut(mass, bins):
    """Number the cells ``0 .. bins-1`` in runs of about equal mass."""
    return ((mass.cumsum(0) - mass / 2) / mass.sum() * bins).long().clamp(0, bins - 1)


@_needs("normalized", "sample")
def _samples(case):
    """Samples follow the density, by chi-squared over bins of equal probability.

    64 bins on a line; 8 strips of 8 bins in the plane; 64 runs of states of a discrete model, in lexicographic order of
    the coordinates and then of the coordinates reversed. Elsewhere :func:`_importance`.
    """
    if case.has("few_states"):
        (states, mass), place = _state_masses(case), case.draws(case.samples, case.seed).long()
        powers = case.levels ** torch.arange(case.dim - 1, -1, -1, device=case.x.device)
        for power in (powers, powers.flip(0)):
            ordered = torch.empty_like(mass).scatter_(0, (states * power).sum(1), mass)
            bins = _cut(ordered, 64)
            case.pearson(bins[(place * power).sum(1)], torch.bincount(bins, ordered, minlength=64))
        return True
    for cells in case.sizes if case.has("plane") else ():
        mass, locate, _, error = _grid(case, cells)
        if error > 0.02:
            continue
        bins = _cut(mass if case.dim == 1 else mass.sum(1), 64 if case.dim == 1 else 8)
        if case.dim == 2:
            bins = torch.stack([8 * s + _cut(mass[bins == s].sum(0), 8) for s in range(8)])[bins]
        try:
            place = locate(case.draws(case.samples, case.seed + cells))
            return case.pearson(bins[tuple(place.T)], torch.bincount(bins.flatten(), mass.flatten(), minlength=64))
        except ConformanceError:
            if cells == case.sizes[-1]:  # an edge of the density may run through coarse cells: ask once more
                raise
    return _importance(case)


def _proposal(case, seen):
    """A rough density near the rows ``seen``, as draws and log density: a mixture of normals, or independent levels."""
    g = case.rng(case.seed + 3)
    if case.levels:
        counts = nn.functional.one_hot(seen.long(), case.levels).double().sum(0) + 1
        logp = (counts / counts.sum(1, keepdim=True)).log()
        draw = torch.multinomial(logp.exp().cpu(), case.samples, replacement=True, generator=g).T.to(seen)
        return draw, lambda s: logp.gather(1, s.long().T).sum(0)
    s, parts = seen.double(), min(8, 1 + 32 // case.dim)
    spread = s.T.cov().reshape(case.dim, case.dim)
    spread += 1e-9 * spread.trace() * torch.eye(case.dim).to(s)
    weight, mean, cov = torch.ones(parts).to(s) / parts, s[:parts], spread.expand(parts, -1, -1)
    for step in range(21):  # a rough fit will do: every q is right, and a closer one sees more
        normals = torch.distributions.MultivariateNormal(mean, cov)
        if step == 20:
            break
        share = (weight.log() + normals.log_prob(s[:4000, None])).softmax(1) + 1e-9
        weight, mean = share.mean(0), share.T @ s[:4000] / share.sum(0)[:, None]
        gap = s[:4000, None] - mean
        cov = torch.einsum("nk,nki,nkj->kij", share, gap, gap) / share.sum(0)[:, None, None] + 1e-4 * spread
    q = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weight), normals)
    return q.sample((case.samples,)).to(seen), lambda s: q.log_prob(s.double())


def _importance(case):
    """Samples s of p satisfy ``E[1_C(s) q(s) / p(s)] = Q(C)`` for every density q and set C.

    q is fitted to one half of the samples and tried on the other. The sets are cut where log q/p has its quantiles in
    the first half, up to the 95% one, so that weights are bounded and no tail decides, and by the first principal axis.
    A wrong constant, a lost mode, wrong widths or correlations show. Sets with fewer than 400 draws are left out.
    Nor can weights hide that the density lacks what is drawn, by ``E_p[q / (p + q)] = E_q[p / (p + q)]``: both are
    bounded, and the gap is compared with Bernstein's bound (A. Maurer and M. Pontil, COLT, 2009).
    """
    if case.dim > 128 or case.samples < 2000:
        return False
    pilot, test = case.draws(case.samples, case.seed).chunk(2)
    draw, log_q = _proposal(case, pilot)
    axis = torch.linalg.eigh(pilot.double().T.cov().reshape(case.dim, case.dim))[1][:, -1]
    ratios = [(log_q(s) - case.log_prob(s)).clamp(-300, 300) for s in (pilot, test, draw)]  # the density may be zero
    what, sure = "model.sample against model.log_prob", stats.norm.isf(FALSE_ALARM / 36)
    one, two = ratios[1].sigmoid(), (-ratios[2]).sigmoid()
    noise = sure * (one.var() / len(one) + two.var() / len(two)).sqrt()
    noise = noise + sure**2 * 7 / 6 * (1 / len(one) + 1 / len(two))
    seen, good = f"E_p[q/(p+q)] = {one.mean():.4f}", (one.mean() - two.mean()).abs() <= noise
    case.expect(good, what, seen, f"{two.mean():.4f} = E_q[p/(p+q)]: samples from the density stated")
    # A quantile of discrete values is one of them: the edge is moved off it, so that rounding takes no state across.
    edges = ratios[0].quantile(torch.linspace(0.05, 0.95, 8).to(axis)) + 1e-7

    middle = (pilot.double() @ axis).median() + 1e-7

    def sets(s, ratio):
        side = s.double() @ axis > middle
        cell = nn.functional.one_hot(torch.searchsorted(edges, ratio) + 9 * side, 18).double()
        cell = torch.cat([cell[:, :8], cell[:, 9:17]], 1)
        return torch.cat([cell, cell.sum(1, keepdim=True)], 1)

    hits, truth = sets(test, ratios[1]), sets(draw, ratios[2])
    weights = hits * ratios[1].clamp_max(edges[-1]).exp()[:, None]
    enough = (hits.sum(0) >= 400) & (truth.sum(0) >= 400)
    if not enough.any():
        return False
    noise = (weights.var(0) / len(weights) + truth.var(0) / len(truth)).sqrt() + 1e-9
    z, worst = ((weights.mean(0) - truth.mean(0)) / noise).abs()[enough].max(0)
    mean, wanted = weights.mean(0)[enough][worst], truth.mean(0)[enough][worst]
    seen = f"E[q/p] = {mean:.4f}, {z:.1f} standard errors away"
    case.expect(z <= sure, what, seen, f"{wanted:.4f}: samples from the density stated")


@_needs("elbo", "log_prob_bound")
def _bounds(case):
    """In expectation ELBO <= bound of 1 <= bound of 8 <= log p, and a bound's exponential integrates to one at most."""
    (model, x), g, repeats, sure = case.wide, case.rng(), 64, stats.norm.isf(FALSE_ALARM)
    x = x[:32].repeat(repeats, *[1] * len(case.event))
    with torch.no_grad():
        values = {"elbo(x)": model.elbo(x, generator=g)}
        values |= {f"log_prob_bound(x, {k})": model.log_prob_bound(x, k, generator=g) for k in (1, 8)}
        values |= {"log_prob(x)": model.log_prob(x)} if case.has("log_prob") else {}
        names, rows = list(values), [v.reshape(repeats, -1).double() for v in values.values()]
        for i, (low, high) in enumerate(zip(rows, rows[1:], strict=False)):
            gap, noise = (low - high).mean(), ((low.var(0) + high.var(0)) / repeats).sum().sqrt() / low.shape[1]
            good = gap <= sure * noise + 1e-6 * (1 + high.abs().mean())
            case.expect(good, f"mean of model.{names[i]}", f"{gap:.4g} nats more", f"at most that of {names[i + 1]}")
        if not (case.has("sample") and (case.levels or case.has("normalized"))):
            return
        draw, log_q = _proposal(case, case.draws(2000, case.seed))
        bound = model.log_prob_bound(draw[:4000].reshape(-1, *case.event), 8, generator=g).double()
        weight = (bound - log_q(draw[:4000])).exp()
        good = weight.mean() <= 1 + sure * weight.std() / len(weight) ** 0.5
        case.expect(good, "mean of exp(log_prob_bound(x, 8)) / q(x) over x ~ q", f"{weight.mean():.4f}", "1 at most")
