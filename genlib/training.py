"""Training: one loop for every model, written as an iterator, so that all else lives in the caller's ``for``.

    for step in progress(train(model, x, steps=2000, batch_size=128, lr=1e-3)):
        average.update(model)                  # the model already holds the weights of step.number
        history.append(step.loss)

The model is in training mode during an update and in evaluation mode whenever the caller holds it.

A checkpoint is one safetensors file: weights, optimiser state, step, random state and place in the epoch. It is written
beside its place and then moved there, so a kill at any moment leaves the old one or the new one. On a CPU a killed run,
started again by the same call, ends with the same weights to the bit.

Several processes make the same call inside a process group. ``torchrun --nproc-per-node 2 script.py`` runs, in each,

    def main():
        torch.distributed.init_process_group("gloo")
        try:
            for step in train(model, x): ...
        finally:
            torch.distributed.destroy_process_group()

Each process holds all of ``x`` and takes its share of every global batch; DistributedDataParallel averages the
gradients. All start from rank 0's weights and generator, or from the checkpoint, which all must see; rank 0 alone
writes. For a loss without noise the batches are those of one process with the same generator, and so, up to rounding,
are the weights. A loss that draws noise draws other noise on each rank (the seed comes from the generator, the step
and the rank), so its runs agree in distribution. Batch normalisation and dropout see one rank alone.
"""

import hashlib
import inspect
import json
import math
import os
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from genlib.contract import check_count, check_data, check_positive


class Step(NamedTuple):
    """One update of :func:`train`: its ``number``, from 1, and the ``loss`` of its batch before the update."""

    number: int
    loss: float


class AdversarialStep(NamedTuple):
    """One step of :func:`train_adversarial`; ``critic_loss`` is the mean over its critic updates."""

    number: int
    critic_loss: float
    generator_loss: float


def train(model, x, steps=2000, batch_size=128, lr=1e-3, *, optimizer=torch.optim.Adam, **options):
    r"""Minimise ``model.loss``: an iterator that yields a :class:`Step` after each of ``steps`` updates.

    .. math:: \theta \leftarrow \theta - \mathrm{lr} \cdot \mathrm{Adam}(\nabla_\theta \mathrm{loss}_\theta(x_{1:B}))

    ``x`` has shape ``(N, *event_shape)``. An epoch visits every row once, in a fresh order; its last batch may be
    smaller, and ``batch_size >= N`` takes all rows each time. Batches move to the model's device. Keywords:

    - ``y``: labels, one for each row of ``x``; each update then calls ``loss(x, y=y)`` with its rows of both.
    - ``optimizer(parameters, lr=lr)`` makes the optimiser: a class, or ``partial(torch.optim.SGD, momentum=0.9)``.
    - ``schedule(t)`` multiplies lr at time t = (number - 1) / steps, in [0, 1); see :func:`cosine`.
    - ``clip_norm``: a gradient longer than this is scaled down to it.
    - ``generator``: a CPU generator, for the order of the rows and the noise of the loss. None: one seeded by a single
      draw from torch's own.
    - ``checkpoint``: a path. It is written before the first step, every ``checkpoint_every`` (100) steps and at the
      end, each time once the caller's loop body is done. If the file is there, its run goes on: weights and optimiser,
      generator and torch's own random state come from it.

    Raises TypeError or ValueError, naming the argument, for bad input or a checkpoint that is damaged or of another
    run; and FloatingPointError, naming the step, when a loss or gradient is not finite: the parameters are then those
    before that update, and the checkpoint is untouched. Kingma and Ba (2015), Adam: a method for stochastic
    optimization, ICLR.
    """
    _check_model(model, "loss", "; use train_adversarial" if hasattr(model, "critic_loss") else "")
    player = _Player(model, "loss", model.parameters(), optimizer, lr)
    return Run(Step, model, x, steps, batch_size, [player], [player], **options)


def train_adversarial(
    model, x, steps=2000, batch_size=128, lr=2e-4, critic_steps=1, *, optimizer=torch.optim.Adam, **options
):
    """Train two players: a step is ``critic_steps`` critic updates, on a fresh batch each, then one of the generator.

    The parameters of the submodule ``model.generator`` descend ``model.generator_loss(n)``; all others, the critic's or
    discriminator's, descend ``model.critic_loss(x)``. Each player moves while the other is frozen. Where the model
    has a method ``constrain()``, it is called after each critic update (to clip weights). ``lr`` is one number or a
    pair (critic, generator). Yields an :class:`AdversarialStep`; keywords and errors are those of :func:`train`.
    Goodfellow et al. (2014), Generative adversarial nets, NeurIPS.
    """
    _check_model(model, "critic_loss", "; use train" if hasattr(model, "loss") else "")
    _check_model(model, "generator_loss")
    if not isinstance(getattr(model, "generator", None), nn.Module):
        raise TypeError(f"model: expected a submodule named generator, {type(model).__name__} has none")
    critic_lr, generator_lr = lr if isinstance(lr, tuple | list) and len(lr) == 2 else (lr, lr)
    mine = {id(p) for p in model.generator.parameters()}
    critic = _Player(model, "critic_loss", (p for p in model.parameters() if id(p) not in mine), optimizer, critic_lr)
    generator = _Player(model, "generator_loss", model.generator.parameters(), optimizer, generator_lr)
    turns = [critic] * check_count(critic_steps, "critic_steps") + [generator]
    return Run(AdversarialStep, model, x, steps, batch_size, [critic, generator], turns, **options)


def cosine(t: float) -> float:
    """A schedule that falls from 1 to 0: ``(1 + cos(pi t)) / 2``. Loshchilov and Hutter (2017), SGDR, ICLR."""
    return (1 + math.cos(math.pi * t)) / 2


def progress(run):
    """The same steps as ``run``, under a progress bar that shows the losses."""
    if not isinstance(run, Run):
        raise TypeError(f"run: expected what train or train_adversarial returns, got {type(run).__name__}")
    from tqdm.auto import tqdm  # here, because its import warns in a notebook without widgets

    bar = tqdm(run, total=run.steps, initial=run.number, disable=_rank() > 0)
    for step in bar:
        bar.set_postfix({k: f"{v:.4g}" for k, v in step._asdict().items() if k != "number"}, refresh=False)
        yield step


def save_weights(model: nn.Module, path) -> str:
    """Write the model's weights to ``path`` as safetensors, in one move; returns the file's sha256."""
    _check_module(model)
    path = _check_path(path, "path")
    content = safetensors.save(_on_cpu(model.state_dict()))
    _write(path, content)
    return hashlib.sha256(content).hexdigest()


def load_weights(model: nn.Module, path, sha256: str | None = None) -> nn.Module:
    """Put the weights in ``path`` into ``model`` and return it; ValueError for another sha256, model or format."""
    _check_module(model)
    content = _check_path(path, "path").read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise ValueError(f"sha256: {path} has {found}, expected {sha256}; fetch the file again")
    try:
        tensors = safetensors.load(content)
    except SafetensorError as error:
        raise ValueError(f"path: {path} is damaged or not safetensors ({error}); fetch or save it again") from error
    _check_weights(model, tensors, f"path: {path}")
    model.load_state_dict(tensors)
    return model


class Run:
    """What :func:`train` returns: an iterator over the updates, of which ``number`` out of ``steps`` are done."""

    def __init__(
        self, record, model, x, steps, batch_size, players, turns, *,
        y=None, schedule=None, clip_norm=None, generator=None, checkpoint=None, checkpoint_every=100,
    ):  # fmt: skip
        self.record, self.model, self.players, self.turns = record, model, players, turns
        self.x = _check_x(model, x).detach()
        if y is not None and not (isinstance(y, Tensor) and y.ndim and len(y) == len(x)):
            got = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"y: expected a tensor of {len(x)} rows, as many as x, got {got}")
        self.labels = {} if y is None else {"y": y}
        self.steps = check_count(steps, "steps")
        self.batch_size = min(check_count(batch_size, "batch_size"), len(x))
        self.clip_norm = None if clip_norm is None else check_positive(clip_norm, "clip_norm")
        self.checkpoint_every = check_count(checkpoint_every, "checkpoint_every")
        if schedule is not None and not callable(schedule):
            raise TypeError(f"schedule: expected a function of t in [0, 1), got {schedule!r}")
        self.schedule = schedule or (lambda t: 1.0)
        if not isinstance(generator, torch.Generator | None) or (generator and generator.device.type != "cpu"):
            raise TypeError(f"generator: expected a torch.Generator on the CPU, got {generator!r}")
        self.generator = generator or torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        self.device = next(model.parameters()).device
        if _world() > 1:
            state = self.generator.get_state().to(self.device)
            dist.broadcast(state, 0)
            self.generator.set_state(state.cpu())
        self.number = 0
        self.order, self.position = torch.empty(0, dtype=torch.long), len(x)  # an epoch is over
        self.saved, self.path = None, checkpoint
        if checkpoint is not None:
            name = schedule and getattr(schedule, "__qualname__", type(schedule).__name__)
            rows = _digest("", _on_cpu({"x": self.x} | self.labels))
            self.identity = {
                "format": "genlib-checkpoint-1",
                "model": type(model).__name__,
                "data": f"{tuple(x.shape)} {x.dtype} of sha256 {rows[:16]}",
                "batch_size": self.batch_size,
                "critic_steps": len(turns) - 1,
                "clip_norm": self.clip_norm,
                "optimizer": [player.described() for player in players],
                "schedule": schedule and f"{name} over steps={self.steps}",
            }
            self.path = _check_path(checkpoint, "checkpoint")
            if self.path.is_dir() or not self.path.parent.is_dir():
                raise ValueError(f"checkpoint: expected a file in a folder that exists, got {self.path}")
            if self.path.exists():
                self._resume()
        self.model.eval()

    def __len__(self):
        return self.steps - self.number

    def __iter__(self):
        return self

    def __next__(self):
        # By now the caller's body for the last step is done, so what it did to the model or the generator is saved too.
        due = self.number % self.checkpoint_every == 0 or self.number == self.steps
        if self.path and due and self.number != self.saved:
            self._save()
        if self.number == self.steps:
            raise StopIteration
        losses = {player: [] for player in self.players}
        self.model.train()
        try:
            for turn, player in enumerate(self.turns):
                if player.method != "generator_loss":
                    batch, labels, weight = self._batch()
                data = len(batch) if player.method == "generator_loss" else batch
                losses[player].append(self._update(player, data, labels, weight, turn))
        finally:
            self.model.eval()
        self.number += 1
        return self.record(self.number, *(sum(values) / len(values) for values in losses.values()))

    def _batch(self):
        """This rank's share of the next global batch, its labels, and its weight in the mean over ranks."""
        if self.position >= len(self.x):
            self.order, self.position = torch.randperm(len(self.x), generator=self.generator), 0
        rows = self.order[self.position : self.position + self.batch_size]
        self.position += self.batch_size
        share = rows[_rank() :: _world()]
        weight = len(share) * _world() / len(rows)
        if len(share) == 0:
            share = rows[:1]  # the other ranks wait for this one, so it joins them at weight 0
        labels = {name: each[share].to(self.device) for name, each in self.labels.items()}
        return self.x[share].to(self.device), labels, weight

    def _noise(self, turn):
        """The generator that the loss draws from: with several ranks another one on each, and the shared one stays."""
        if _world() == 1:
            return self.generator
        noise = self.generator.clone_state()
        seed = int(torch.randint(2**62, (), generator=noise)) + _rank()
        return noise.manual_seed(seed + (self.number * len(self.turns) + turn) * _world())

    def _update(self, player, data, labels, weight, turn) -> float:
        where = f"step {self.number + 1}: {player.method} of {type(self.model).__name__}"
        advice = "the parameters are those before this update; try a smaller lr or clip_norm, and look at the data"
        with player.alone():
            loss = player.objective(data, generator=self._noise(turn), **labels)
            if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
                got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
                raise ValueError(f"{where}: expected a scalar tensor that depends on the parameters, got {got}")
            value = weight * loss.detach()
            if _world() > 1:  # one value for all, so that all ranks stop at the same step
                dist.all_reduce(value)
                value /= _world()
            if not value.isfinite():
                raise FloatingPointError(f"{where} is {value.item()}; {advice}")
            player.optimizer.zero_grad()
            (weight * loss).backward()
        if not nn.utils.get_total_norm((p.grad for p in player.parameters if p.grad is not None), math.inf).isfinite():
            bad = [k for k, p in self.model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
            raise FloatingPointError(f"{where} is finite, the gradient of {', '.join(bad)} is not; {advice}")
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(player.parameters, self.clip_norm)
        factor = self.schedule(self.number / self.steps)
        try:
            valid = math.isfinite(factor) and factor >= 0
        except (TypeError, ValueError, RuntimeError) as error:  # no number, or a tensor of several
            raise TypeError(f"schedule: expected a finite factor of at least 0, got {factor!r}") from error
        if not valid:
            raise ValueError(f"schedule: expected a finite factor of at least 0, got {factor!r}")
        for group, rate in zip(player.optimizer.param_groups, player.rates, strict=True):
            group["lr"] = rate * factor
        player.optimizer.step()
        if player.method == "critic_loss" and hasattr(self.model, "constrain"):
            self.model.constrain()
        return value.item()

    def _save(self):
        self.saved = self.number
        if _rank() > 0:
            return
        bad = [k for k, p in self.model.named_parameters() if not p.isfinite().all()]
        if bad:
            raise FloatingPointError(
                f"step {self.number}: the update left {', '.join(bad)} not finite; {self.path} is kept"
            )
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()} | {"order": self.order}
        for i, player in enumerate(self.players):
            for k, state in player.optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{k}.{name}": torch.as_tensor(value) for name, value in state.items()}
        tensors |= {"random.generator": self.generator.get_state(), "random.torch": torch.get_rng_state()}
        tensors = _on_cpu(tensors)
        state = json.dumps({"number": self.number, "position": self.position, "run": self.identity})
        _write(self.path, safetensors.save(tensors, {"state": state, "sha256": _digest(state, tensors)}))

    def _resume(self):
        """Continue the run in ``path``. Everything is checked before anything is changed."""
        advice = "delete the file to start afresh, or give another path"
        try:
            with safe_open(self.path, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # a copy: they are a view of the file
        except (SafetensorError, OSError) as error:
            raise ValueError(f"checkpoint: {self.path} is damaged or not a checkpoint ({error}); {advice}") from error
        if header.get("sha256") != _digest(header.get("state", ""), tensors):
            raise ValueError(f"checkpoint: {self.path} is damaged or not a checkpoint (its sha256 is wrong); {advice}")
        state = json.loads(header["state"])
        other = [f"{k} {state['run'].get(k)}, here {v}" for k, v in self.identity.items() if state["run"].get(k) != v]
        if state["number"] > self.steps:
            other.append(f"{state['number']} steps done, here steps={self.steps}")
        if other:
            raise ValueError(f"checkpoint: {self.path} is of another run ({'; '.join(other)}); {advice}")
        weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        _check_weights(self.model, weights, f"checkpoint: {self.path}")
        self.model.load_state_dict(weights)
        for i, player in enumerate(self.players):
            slots = {}
            for name in (k for k in tensors if k.startswith(f"optimizer.{i}.")):
                _, _, k, slot = name.split(".")
                slots.setdefault(int(k), {})[slot] = tensors[name]
            player.optimizer.load_state_dict(player.optimizer.state_dict() | {"state": slots})
        self.generator.set_state(tensors["random.generator"])
        if _rank() == 0:
            torch.set_rng_state(tensors["random.torch"])  # dropout draws from it
        self.order, self.position = tensors["order"], state["position"]
        self.number = self.saved = state["number"]


class _Objective(nn.Module):
    """A loss as a ``forward``: DistributedDataParallel averages the gradients of what passes through one."""

    def __init__(self, model, method):
        super().__init__()
        self.model, self.method = model, method

    def forward(self, data, generator, **labels):
        return getattr(self.model, self.method)(data, generator=generator, **labels)


class _Player:
    """One loss, the parameters that descend it, and their optimiser."""

    def __init__(self, model, method, parameters, optimizer, lr):
        self.model, self.method, self.lr = model, method, check_positive(lr, "lr")
        self.parameters = [p for p in parameters if p.requires_grad]
        if not self.parameters:
            raise ValueError(f"model: expected parameters for {method} to train, {type(model).__name__} has none")
        mine = {id(p) for p in self.parameters}
        self.others = [p for p in model.parameters() if p.requires_grad and id(p) not in mine]
        self.optimizer = optimizer(self.parameters, lr=self.lr) if callable(optimizer) else None
        if not isinstance(self.optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer: expected a function (parameters, lr=lr) that makes one, got {optimizer!r}")
        try:
            inspect.signature(self.optimizer.step).bind()
        except TypeError as error:
            name = type(self.optimizer).__name__
            raise TypeError(f"optimizer: expected one whose step needs no closure, got {name}") from error
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.objective = _Objective(model, method)
        if _world() > 1:
            with self.alone():  # it averages what asks for a gradient now
                self.objective = DistributedDataParallel(self.objective)

    def described(self) -> str:
        """The optimiser and its options, for a checkpoint to compare: those whose text is the same in every process."""
        plain = bool | int | float | str | tuple | list | None
        groups = [
            {k: v for k, v in group.items() if k != "params" and isinstance(v, plain)}
            for group in self.optimizer.param_groups
        ]
        return f"{type(self.optimizer).__name__} lr={self.lr} {groups}"

    @contextmanager
    def alone(self):
        """The other player frozen."""
        for p in self.others:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in self.others:
                p.requires_grad_(True)


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _on_cpu(tensors):
    # Copies, because tied weights share memory, which safetensors refuses.
    return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}


def _digest(state, tensors) -> str:
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _write(path, content: bytes):
    """Replace ``path`` by ``content`` in one move, once the content is on the disk."""
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(f"{path}: cannot be written, and is as it was ({error})") from error


def _check_model(model, method, hint=""):
    if not isinstance(model, nn.Module) or not callable(getattr(model, method, None)):
        hint = hint or ("; call its fit(x)" if hasattr(model, "fit") else "")
        raise TypeError(f"model: expected an nn.Module with a method {method}, got {type(model).__name__}{hint}")


def _check_module(model):
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")


def _check_path(path, name) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name}: expected a path, got {path!r}")
    return Path(path)


def _check_weights(model, tensors, name):
    here, there = ({k: tuple(v.shape) for k, v in d.items()} for d in (model.state_dict(), tensors))
    wrong = [f"{k} {there.get(k)}, here {here.get(k)}" for k in sorted(here | there) if here.get(k) != there.get(k)]
    if wrong:
        raise ValueError(f"{name} is of another model ({'; '.join(wrong[:3])}); build the model it was saved from")


def _check_x(model, x):
    # whole numbers are the levels that the pixel models take
    whole = isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)
    check_data(x.float() if whole else x, getattr(model, "event_shape", x.shape[1:] if isinstance(x, Tensor) else None))
    dtype = next(p.dtype for p in model.parameters())
    if not whole and x.dtype != dtype:
        raise TypeError(f"x: expected {dtype} as the model's parameters, got {x.dtype}; use x.to({dtype})")
    return x
