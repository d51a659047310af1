"""Training: the loop against one written out by hand, resumption to the bit, refusals, kills and two processes."""

import math
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from genlib import training
from genlib.contract import seeded
from genlib.nets import mlp
from genlib.training import cosine, load_weights, progress, save_weights, train, train_adversarial

STRESS = Path(__file__).parent / "stress"


@pytest.fixture(autouse=True)
def double_precision():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def weights(model):
    return torch.cat([v.detach().flatten().double() for v in model.state_dict().values()])


class Denoise(nn.Module):
    """Draws from the generator (noise), from torch's own (dropout), and keeps statistics (batch norm)."""

    event_shape = (3,)

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Dropout(0.3), nn.Linear(7, 3))

    def loss(self, x, generator=None):
        return ((self.net(x + torch.randn(x.shape, generator=generator, dtype=x.dtype)) - x) ** 2).sum(1).mean()


class Mean(nn.Module):
    """Its loss is quadratic in one parameter, its gradient ``theta - mean(x)``; it notes what it is given."""

    event_shape = (1,)

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(1))
        self.batches, self.modes = [], []

    def loss(self, x, generator=None):
        self.batches.append(x.flatten().tolist())
        self.modes.append(self.training)
        return ((x - self.theta) ** 2).mean() / 2


class Players(nn.Module):
    """A GAN in one dimension: the generator shifts and scales normal noise, the critic is a small network."""

    event_shape = (1,)

    def __init__(self):
        super().__init__()
        self.generator, self.discriminator = nn.Linear(1, 1), mlp(1, 16, 1)
        self.calls, self.constrained = [], 0

    def sample(self, n, generator=None):
        return self.generator(torch.randn(n, 1, generator=generator))

    def critic_loss(self, x, generator=None):
        self.calls.append(("critic", len(x)))
        fake = self.sample(len(x), generator)
        return (
            nn.functional.softplus(-self.discriminator(x)).mean()
            + nn.functional.softplus(self.discriminator(fake)).mean()
        )

    def generator_loss(self, n, generator=None):
        self.calls.append(("generator", n))
        return nn.functional.softplus(-self.discriminator(self.sample(n, generator))).mean()

    def constrain(self):
        self.constrained += 1


X = torch.randn(23, 3, generator=seeded(5), dtype=torch.float64)
LINE = torch.arange(10.0, dtype=torch.float64)[:, None]


# The loop


def test_equals_a_loop_written_out():
    """23 rows in batches of 5: an epoch ends on a batch of 3."""
    torch.manual_seed(1)
    ours, by_hand = Denoise(), Denoise()
    by_hand.load_state_dict(ours.state_dict())
    adam, generator, expected = torch.optim.Adam(by_hand.parameters(), lr=0.01), seeded(2), []
    torch.manual_seed(3)
    for _ in range(3):
        for rows in torch.randperm(23, generator=generator).split(5):
            loss = by_hand.loss(X[rows], generator)
            adam.zero_grad()
            loss.backward()
            adam.step()
            expected.append(loss.item())
    torch.manual_seed(3)
    steps = list(train(ours, X, 15, 5, 0.01, generator=seeded(2)))
    assert [step.number for step in steps] == list(range(1, 16))
    assert [step.loss for step in steps] == expected
    assert torch.equal(weights(ours), weights(by_hand))


def test_an_epoch_visits_every_row_once():
    model = Mean()
    list(train(model, LINE, 8, 3))
    assert [len(batch) for batch in model.batches] == [3, 3, 3, 1] * 2
    epochs = [sum(model.batches[i : i + 4], []) for i in (0, 4)]
    assert epochs[0] != epochs[1] and all(sorted(epoch) == LINE.flatten().tolist() for epoch in epochs)


@pytest.mark.parametrize("batch_size", [10, 11, 10**6])
def test_full_batch(batch_size):
    model = Mean()
    list(train(model, LINE, 3, batch_size))
    assert [sorted(batch) for batch in model.batches] == [LINE.flatten().tolist()] * 3


def test_labels_go_with_their_rows():
    class Labelled(Mean):
        def loss(self, x, generator=None, y=None):
            assert torch.equal(y, x[:, 0].long() % 3)
            return super().loss(x, generator)

    model = Labelled().double()
    for _ in train(model, LINE, 8, 3, y=torch.arange(10) % 3, generator=seeded(0)):
        pass
    assert sorted(sum(model.batches[:4], [])) == LINE[:, 0].tolist()
    with pytest.raises(AssertionError):
        next(train(model, LINE, 8, 3, y=torch.arange(10) % 2, generator=seeded(0)))


def test_a_checkpoint_with_other_labels_is_refused(tmp_path):
    class Labelled(Mean):
        def loss(self, x, generator=None, y=None):
            return super().loss(x, generator)

    for _ in train(Labelled().double(), LINE, 2, y=torch.arange(10), checkpoint=tmp_path / "a"):
        pass
    with pytest.raises(ValueError, match="checkpoint: .* is of another run .data"):
        train(Labelled().double(), LINE, 2, y=torch.arange(10) + 1, checkpoint=tmp_path / "a")


@pytest.mark.parametrize("y", [torch.arange(9), torch.tensor(3), list(range(10))])
def test_labels_that_do_not_fit_are_refused(y):
    with pytest.raises(ValueError, match="^y: expected a tensor of 10 rows, as many as x, got "):
        train(Mean().double(), LINE, 2, y=y)


def test_yields_after_the_update():
    """One step of gradient descent at lr 0.1 moves theta by 0.1 (4.5 - theta); the caller's average sees it."""
    model, theta, average = Mean(), 0.0, 0.0
    for step in train(model, LINE, 5, 10, 0.1, optimizer=torch.optim.SGD):
        assert step.loss == pytest.approx((4.5 - theta) ** 2 / 2 + 8.25 / 2)
        theta += 0.1 * (4.5 - theta)
        average = 0.9 * average + 0.1 * model.theta.item()
        assert model.theta.item() == pytest.approx(theta)
    assert average == pytest.approx(sum(0.1 * 0.9 ** (5 - k) * 4.5 * (1 - 0.9**k) for k in range(1, 6)))


def test_mode_of_the_model():
    model = Mean()
    for _ in train(model, LINE, 3):
        assert not model.training
    assert model.modes == [True] * 3 and not model.training


def test_data_that_asks_for_a_gradient_gets_none():
    x = LINE.clone().requires_grad_()
    assert list(train(Mean(), x, 3, generator=seeded(0))) == list(train(Mean(), LINE, 3, generator=seeded(0)))
    assert x.grad is None


def test_early_stop_and_going_on():
    model = Mean()
    run = train(model, LINE, 9, 4)
    for step in run:
        if step.number == 4:
            break
    assert len(run) == 5 and len(model.batches) == 4
    assert [step.number for step in run] == [5, 6, 7, 8, 9]


def test_schedule_multiplies_lr():
    model, seen = Mean(), []
    for step in train(model, LINE, 4, 10, 0.5, optimizer=torch.optim.SGD, schedule=cosine):
        seen.append((step.number, model.theta.item()))
    theta = 0.0
    for number, value in seen:
        theta += 0.5 * (1 + math.cos(math.pi * (number - 1) / 4)) / 2 * (4.5 - theta)
        assert value == pytest.approx(theta)


def test_clip_norm():
    model = Mean()
    next(train(model, LINE, 1, 10, 1.0, optimizer=torch.optim.SGD, clip_norm=0.25))
    assert model.theta.item() == pytest.approx(0.25, rel=1e-5)


def test_same_generator_same_run_whatever_the_global_state():
    found = []
    for seed in (1, 2):
        torch.manual_seed(0)
        model = Denoise()
        model.net[3].p = 0.0  # dropout is the one thing that draws from torch's own state
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        list(train(model, X, 7, 5, generator=seeded(4)))
        assert torch.equal(torch.get_rng_state(), before)
        found.append(weights(model))
    assert torch.equal(*found)


def test_without_a_generator_one_draw_is_taken():
    model = Mean()
    torch.manual_seed(9)
    torch.randint(2**62, ())
    after = torch.get_rng_state()
    for seed in (9, 9, 10):
        torch.manual_seed(seed)
        list(train(model, LINE, 4, 3))
        assert seed == 10 or torch.equal(torch.get_rng_state(), after)
    assert model.batches[:4] == model.batches[4:8] != model.batches[8:]


def test_whole_numbers_pass_to_a_model_that_takes_them():
    class Levels(nn.Module):
        event_shape = (2,)

        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(2, 4))

        def loss(self, x, generator=None):
            assert x.dtype == torch.long
            return -self.logits.log_softmax(1)[torch.arange(2), x].sum(1).mean()

    model, x = Levels(), torch.tensor([[0, 3]] * 3 + [[1, 3]])
    losses = [step.loss for step in train(model, x, 400, 4, 0.1)]
    assert losses[0] == pytest.approx(2 * math.log(4))
    assert losses[-1] == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25), abs=0.02)


def test_progress_bar(capsys):
    list(train(Mean(), LINE, 3))
    assert capsys.readouterr() == ("", "")
    assert [step.number for step in progress(train(Mean(), LINE, 3))] == [1, 2, 3]
    shown = capsys.readouterr().err
    assert "3/3" in shown and "loss=" in shown
    with pytest.raises(TypeError, match="^run: .*got list"):
        next(progress([1, 2]))


# Two players


def test_adversarial_equals_a_loop_written_out():
    torch.manual_seed(1)
    ours, by_hand = Players(), Players()
    by_hand.load_state_dict(ours.state_dict())
    critic = torch.optim.Adam(by_hand.discriminator.parameters(), lr=0.02)
    player, generator, expected, order = torch.optim.Adam(by_hand.generator.parameters(), lr=0.01), seeded(2), [], []
    for _ in range(6):
        both = []
        for _ in range(2):
            order = order or list(torch.randperm(10, generator=generator).split(4))
            rows = order.pop(0)
            both.append(by_hand.critic_loss(LINE[rows], generator))
            critic.zero_grad()
            both[-1].backward()
            critic.step()
        loss = by_hand.generator_loss(len(rows), generator)
        player.zero_grad()
        loss.backward()
        player.step()
        expected.extend((sum(both).item() / 2, loss.item()))
    steps = list(train_adversarial(ours, LINE, 6, 4, (0.02, 0.01), critic_steps=2, generator=seeded(2)))
    assert [loss for step in steps for loss in step[1:]] == pytest.approx(expected, rel=1e-12)
    assert torch.allclose(weights(ours), weights(by_hand), rtol=1e-12)
    assert ours.calls == by_hand.calls and ours.constrained == 12
    assert all(p.requires_grad for p in ours.parameters())


def test_one_player_moves_while_the_other_is_frozen():
    model, frozen = Players(), []
    critic, generator = model.discriminator[0].weight, model.generator.weight
    model.discriminator.register_forward_hook(lambda *_: frozen.append((critic.requires_grad, generator.requires_grad)))
    list(train_adversarial(model, LINE, 1))
    assert frozen == [(True, False), (True, False), (False, True)]


def test_adversarial_learns_the_data():
    """Over 6 seeds the mean was missed by 0.06 at most. Such a GAN may lose the deviation, so it is not asked for."""
    x, model = 3 + 0.5 * torch.randn(2000, 1, generator=seeded(0)), Players()
    adam = partial(torch.optim.Adam, betas=(0.5, 0.9))
    for _ in train_adversarial(model, x, 1500, 128, 5e-3, optimizer=adam, generator=seeded(1)):
        pass
    assert abs(model.sample(5000, seeded(2)).mean() - 3) < 0.3


# Losses that are not finite


class Breaks(nn.Module):
    """At step ``at`` its loss is ``value``, or its gradient NaN."""

    event_shape = (1,)

    def __init__(self, at, value=None):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))
        self.at, self.value, self.count = at, value, 0

    def loss(self, x, generator=None):
        self.count += 1
        loss = (x * self.a).mean() ** 2
        if self.count != self.at:
            return loss + self.b.sum() ** 2
        if self.value is not None:
            return loss * self.value
        return loss + torch.sqrt(self.b * 0.0).sum()  # 0 times the infinite slope of the root


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_stops_at_the_step_that_is_not_finite(value, tmp_path):
    model, path, last = Breaks(6, value), tmp_path / "run.safetensors", None
    cause = "the gradient of b is not" if value is None else f"is {value}"
    with pytest.raises(FloatingPointError, match=rf"^step 6: loss of Breaks .*{cause}"):
        for step in train(model, LINE, 20, 4, checkpoint=path, checkpoint_every=2):
            last = step.number, weights(model)
    assert last[0] == 5 and torch.equal(weights(model), last[1])
    assert model.a.isfinite() and load_file(path)["model.a"].isfinite()
    assert [step.number for step in train(Breaks(99), LINE, 6, 4, checkpoint=path)] == [5, 6]


def test_a_broken_update_is_not_saved(tmp_path):
    """Loss and gradient are finite, but lr times the gradient overflows."""
    path = tmp_path / "run.safetensors"
    with pytest.raises(FloatingPointError, match=r"step 1: the update left theta not finite"):
        list(train(Mean(), LINE, 5, 10, 1.7e308, optimizer=torch.optim.SGD, checkpoint=path, checkpoint_every=1))
    assert load_file(path)["model.theta"].isfinite()


# Checkpoints

OPTIMIZERS = {
    "Adam": torch.optim.Adam,
    "AMSGrad": partial(torch.optim.Adam, amsgrad=True),
    "AdamW": torch.optim.AdamW,
    "SGD": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "RMSprop": partial(torch.optim.RMSprop, momentum=0.5, centered=True),
    "Adagrad": torch.optim.Adagrad,
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Adamax": torch.optim.Adamax,
    "ASGD": torch.optim.ASGD,
    "Rprop": torch.optim.Rprop,
}


def run(path=None, stop=None, seed=0, steps=29, optimizer=torch.optim.Adam, every=4):
    """A run of ``train`` on Denoise, left after step ``stop``; ``seed`` moves what a checkpoint must bring back."""
    torch.manual_seed(seed)
    model, generator, losses = Denoise().float(), seeded(seed), []
    options = {"checkpoint": path, "checkpoint_every": every, "schedule": cosine, "generator": generator}
    for step in train(model, X.float(), steps, 5, 0.01, optimizer=optimizer, **options):
        losses.append(
            (step.number, step.loss, torch.rand((), generator=generator).item())
        )  # the caller draws from it too
        if step.number == stop:
            break
    return model, losses


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_resumed_equals_uninterrupted(optimizer, tmp_path):
    """Left at steps 6, 7, 19: inside an epoch of 5 batches, between checkpoints, and twice after the same one."""
    path = tmp_path / "run.safetensors"
    whole, losses = run(optimizer=optimizer)
    parts = {}
    for seed, stop in enumerate([6, 7, 19, None]):
        model, part = run(path, stop, seed, optimizer=optimizer)
        for number, *rest in part:
            assert parts.setdefault(number, rest) == rest
    assert [(number, *rest) for number, rest in parts.items()] == losses
    assert torch.equal(weights(model), weights(whole))
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_finished_run_gives_its_weights_and_no_step(tmp_path):
    whole, _ = run(tmp_path / "run.safetensors")
    again, losses = run(tmp_path / "run.safetensors", seed=1)
    assert losses == [] and torch.equal(weights(again), weights(whole)) and not again.training


def test_a_run_that_resumed_no_longer_needs_the_file(tmp_path):
    """Tensors that were left as a view of the file would change with it."""
    path, ends = tmp_path / "run.safetensors", []
    for overwrite in (False, True):
        path.unlink(missing_ok=True)
        for steps in (6, 12):
            torch.manual_seed(0)
            model = Denoise()
            going = train(model, X, steps, 5, checkpoint=path, checkpoint_every=50, generator=seeded(1))
            if overwrite and steps == 12:
                path.write_bytes(bytes(path.stat().st_size))
            list(going)
        ends.append(weights(model))
    assert torch.equal(*ends)


def test_killed_before_the_first_checkpoint(tmp_path):
    whole, _ = run()
    run(tmp_path / "run.safetensors", stop=1, every=100)
    model, losses = run(tmp_path / "run.safetensors", seed=8, every=100)
    assert losses[0][0] == 1 and torch.equal(weights(model), weights(whole))


def test_two_players_resume(tmp_path):
    found = []
    for stops in ([None], [7, None]):
        path = tmp_path / f"{len(stops)}.safetensors"
        for seed, stop in enumerate(stops):
            torch.manual_seed(seed)
            model = Players()
            for step in train_adversarial(
                model, LINE, 12, 4, critic_steps=3, generator=seeded(seed), checkpoint=path, checkpoint_every=5
            ):
                if step.number == stop:
                    break
        found.append(weights(model))
    assert torch.equal(*found)


def test_tied_weights(tmp_path):
    class Tied(Mean):
        def __init__(self):
            super().__init__()
            self.twin = self.theta

    path, model = tmp_path / "run.safetensors", Tied()
    list(train(model, LINE, 3, checkpoint=path))
    again = Tied()
    assert list(train(again, LINE, 3, checkpoint=path)) == [] and again.twin is again.theta
    assert torch.equal(weights(again), weights(model))


@pytest.mark.parametrize("forgotten", ["generator", "torch", "order", "position", "optimizer0", "statistics"])
def test_what_a_checkpoint_forgets_is_noticed(forgotten, tmp_path, monkeypatch):
    """The planted bugs: each part left out of the file changes the weights of the resumed run."""
    path = tmp_path / "run.safetensors"
    whole, _ = run()
    run(path, stop=7)
    resume = training.Run._resume

    def forgetful(self):
        own = {
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "order": self.order,
            "position": self.position,
        }
        state = self.players[0].optimizer.state_dict()
        buffers = {k: v.clone() for k, v in self.model.named_buffers()}
        resume(self)
        if forgotten == "generator":
            self.generator.set_state(own["generator"])
        elif forgotten == "torch":
            torch.set_rng_state(own["torch"])
        elif forgotten == "order":
            self.order = torch.arange(23)
        elif forgotten == "position":
            self.position = 0
        elif forgotten == "optimizer0":
            self.players[0].optimizer.load_state_dict(state)
        else:
            self.model.load_state_dict(self.model.state_dict() | buffers)

    monkeypatch.setattr(training.Run, "_resume", forgetful)
    model, _ = run(path, seed=1)
    assert not torch.equal(weights(model), weights(whole))


def damage(content, how):
    middle = bytearray(content)
    middle[-200] ^= 1  # one bit of one tensor
    return {"cut": content[:-100], "empty": b"", "text": b"<html>not found</html>", "bit": bytes(middle)}[how]


@pytest.mark.parametrize("how", ["cut", "empty", "text", "bit"])
def test_a_damaged_checkpoint_is_refused(how, tmp_path):
    path = tmp_path / "run.safetensors"
    run(path, stop=9)
    path.write_bytes(damage(path.read_bytes(), how))
    model = Denoise().float()
    before = weights(model)
    with pytest.raises(ValueError, match=rf"^checkpoint: {re.escape(str(path))} is damaged .* delete the file"):
        train(model, X.float(), 29, 5, 0.01, checkpoint=path)
    assert torch.equal(weights(model), before)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    list(train(Mean(), LINE, 5, 4, checkpoint=path))
    wide = Mean()
    wide.theta = nn.Parameter(torch.zeros(3))
    cases = [
        ("model Mean, here Breaks", lambda: train(Breaks(0), LINE, 5, 4, checkpoint=path)),
        (r"data \(10, 1\)", lambda: train(Mean(), LINE[:9], 5, 4, checkpoint=path)),
        ("torch.float64.*, here .*torch.float32", lambda: train(Mean().float(), LINE.float(), 5, 4, checkpoint=path)),
        ("batch_size 4, here 3", lambda: train(Mean(), LINE, 5, 3, checkpoint=path)),
        ("lr=0.001", lambda: train(Mean(), LINE, 5, 4, 0.1, checkpoint=path)),
        ("Adam ", lambda: train(Mean(), LINE, 5, 4, optimizer=torch.optim.SGD, checkpoint=path)),
        ("5 steps done, here steps=4", lambda: train(Mean(), LINE, 4, 4, checkpoint=path)),
        (r"theta \(1,\), here \(3,\)", lambda: train(wide, LINE, 5, 4, checkpoint=path)),
    ]
    clipped, again = tmp_path / "clipped.safetensors", LINE.clone()
    again[3] += 1e-9
    options = {"clip_norm": 2.0, "schedule": cosine, "optimizer": OPTIMIZERS["momentum"]}
    list(train(Mean(), LINE, 5, 4, checkpoint=clipped, **options))
    assert list(train(Mean(), LINE.clone(), 5, 4, checkpoint=clipped, **options)) == []
    for change, words in (
        ({"clip_norm": None}, "clip_norm 2.0, here None"),
        ({"clip_norm": 3.0}, "clip_norm 2.0, here 3.0"),
        ({"optimizer": torch.optim.SGD}, "'momentum': 0.9.*here .*'momentum': 0"),
        ({"schedule": None}, "schedule cosine over steps=5, here None"),
        ({"schedule": lambda t: 1.0}, "schedule cosine .*lambda"),
        ({"steps": 9}, "schedule cosine over steps=5, here cosine over steps=9"),
        ({"x": again}, "data .*of sha256"),
    ):
        given = {"x": LINE, "steps": 5, "batch_size": 4} | options | change
        with pytest.raises(ValueError, match=f"^checkpoint: .* is of another run .*{words}"):
            train(Mean(), checkpoint=clipped, **given)
    players = tmp_path / "players.safetensors"
    list(train_adversarial(Players(), LINE, 2, 4, critic_steps=3, checkpoint=players))
    with pytest.raises(ValueError, match="critic_steps 3, here 2"):
        train_adversarial(Players(), LINE, 2, 4, critic_steps=2, checkpoint=players)
    for words, call in cases:
        with pytest.raises(ValueError, match=f"^checkpoint: {re.escape(str(path))} is of another .*{words}"):
            call()
    save_weights(Mean(), path)
    with pytest.raises(ValueError, match=r"^checkpoint: .*not a checkpoint"):
        train(Mean(), LINE, 5, 4, checkpoint=path)


def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    list(train(Mean(), LINE, 5, checkpoint=path))
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training.os, "fsync", full)
    with pytest.raises(OSError, match=r"run.safetensors: cannot be written, and is as it was .*No space left"):
        list(train(Mean(), LINE, 9, checkpoint=path))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_no_pickle():
    source = Path(training.__file__).read_text()
    assert not re.search(r"pickle|torch\.(load|save)\b", source)


# Weights


def test_weights_round_trip(tmp_path):
    model, other = Denoise(), Denoise()
    digest = save_weights(model, tmp_path / "w.safetensors")
    assert load_weights(other, str(tmp_path / "w.safetensors"), digest) is other
    assert torch.equal(weights(other), weights(model))


def test_weights_that_are_refused(tmp_path):
    path, model = tmp_path / "w.safetensors", Denoise()
    digest, before = save_weights(Denoise(), path), weights(model)
    with pytest.raises(ValueError, match=r"^sha256: .*expected 0000"):
        load_weights(model, path, "0" * 64)
    with pytest.raises(ValueError, match=r"^path: .* is of another model"):
        load_weights(Mean(), path, digest)
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"^path: .*damaged"):
        load_weights(model, path)
    save_file({k: v for k, v in list(model.state_dict().items())[1:]}, path)
    with pytest.raises(ValueError, match=r"^path: .*net.0.weight None"):
        load_weights(model, path)
    with pytest.raises(FileNotFoundError):
        load_weights(model, tmp_path / "none")
    with pytest.raises(OSError, match="cannot be written"):
        save_weights(model, tmp_path / "missing" / "w.safetensors")
    for call in (save_weights, load_weights):
        with pytest.raises(TypeError, match=r"^path: expected a path, got None"):
            call(model, None)
        with pytest.raises(TypeError, match=r"^model: expected an nn.Module, got Fitted"):
            call(Fitted(), path)
    assert torch.equal(weights(model), before)


# Bad input


def bad(x, row, value):
    x = x.clone()
    x[row] = value
    return x


class NoLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(1))


class Fitted:
    def fit(self, x):
        return self


def returns(value):
    model = Mean()
    model.loss = lambda x, generator=None: value(model)
    return model


COMMON = [
    ("steps", {"steps": 0}, ValueError),
    ("steps", {"steps": 2.5}, TypeError),
    ("steps", {"steps": True}, TypeError),
    ("batch_size", {"batch_size": 0}, ValueError),
    ("batch_size", {"batch_size": "a"}, TypeError),
    ("lr", {"lr": math.nan}, ValueError),
    ("lr", {"lr": -1.0}, ValueError),
    ("lr", {"lr": "fast"}, TypeError),
    ("x", {"x": LINE[:0]}, ValueError),
    ("x", {"x": bad(LINE, 3, math.nan)}, ValueError),
    ("x", {"x": bad(LINE, 3, math.inf)}, ValueError),
    ("x", {"x": LINE.expand(10, 2)}, ValueError),
    ("x", {"x": LINE.flatten()}, ValueError),
    ("x", {"x": LINE.float()}, TypeError),
    ("x", {"x": LINE.to(torch.complex128)}, TypeError),
    ("x", {"x": LINE.tolist()}, TypeError),
    ("x", {"x": LINE.numpy()}, TypeError),
    ("x", {"x": None}, TypeError),
    ("model", {"model": NoLoss()}, TypeError),
    ("model", {"model": Fitted()}, TypeError),
    ("model", {"model": None}, TypeError),
    ("optimizer", {"optimizer": "adam"}, TypeError),
    ("optimizer", {"optimizer": torch.optim.LBFGS}, TypeError),
    ("optimizer", {"optimizer": lambda parameters, lr: None}, TypeError),
    ("schedule", {"schedule": 0.5}, TypeError),
    ("schedule", {"schedule": lambda t: math.nan}, ValueError),
    ("schedule", {"schedule": lambda t: None}, TypeError),
    ("schedule", {"schedule": lambda t: "a"}, TypeError),
    ("schedule", {"schedule": lambda t: torch.ones(2)}, TypeError),
    ("schedule", {"schedule": lambda t: -1.0}, ValueError),
    ("clip_norm", {"clip_norm": 0.0}, ValueError),
    ("generator", {"generator": 3}, TypeError),
    ("checkpoint", {"checkpoint": 3}, TypeError),
    ("checkpoint", {"checkpoint": "/no/such/folder/run.safetensors"}, ValueError),
    ("checkpoint", {"checkpoint": "."}, ValueError),
    ("checkpoint_every", {"checkpoint_every": 0}, ValueError),
    ("seed", {"seed": 0}, TypeError),
]


@pytest.mark.parametrize("name, change, error", COMMON, ids=lambda v: "-".join(v) if isinstance(v, dict) else None)
@pytest.mark.parametrize("entry, model", [(train, Mean), (train_adversarial, Players)], ids=["one", "two"])
def test_bad_input_is_refused(entry, model, name, change, error):
    given = {"model": model(), "x": LINE, "steps": 3} | change
    with pytest.raises(error, match=rf"\b{name}\b"):
        list(entry(**given))
    if isinstance(given["model"], nn.Module):
        assert all(p.requires_grad for p in given["model"].parameters())


OWN = [
    (train, Players(), {}, TypeError, "model: .*train_adversarial"),
    (train, Fitted(), {}, TypeError, r"model: .*fit\(x\)"),
    (train, Mean().requires_grad_(False), {}, ValueError, "model: expected parameters"),
    (train, returns(lambda m: m.theta.expand(3)), {}, ValueError, r"loss of Mean: expected a scalar .* shape \(3,\)"),
    (train, returns(lambda m: m.theta.detach().sum()), {}, ValueError, "loss of Mean: .*depends on the parameters"),
    (train, returns(lambda m: 3.0), {}, ValueError, "loss of Mean: .*got float"),
    (train_adversarial, Mean(), {}, TypeError, "model: .*critic_loss.*use train"),
    (train_adversarial, Players(), {"critic_steps": 0}, ValueError, "critic_steps"),
    (train_adversarial, Players(), {"critic_steps": "a"}, TypeError, "critic_steps"),
    (train_adversarial, Players(), {"lr": (0.1, 0.0)}, ValueError, "lr"),
    (train_adversarial, Players(), {"lr": (0.1, 0.1, 0.1)}, TypeError, "lr"),
]


@pytest.mark.parametrize("entry, model, change, error, words", OWN)
def test_bad_input_of_one_kind_is_refused(entry, model, change, error, words):
    with pytest.raises(error, match=words):
        list(
            entry(model.double(), LINE, 3, **change)
            if isinstance(model, nn.Module)
            else entry(model, LINE, 3, **change)
        )


# Kills and two processes, in short; the long forms are the same scripts by hand


def stress(name, *options):
    command = [sys.executable, STRESS / name, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_killed_runs_end_as_whole_ones():
    done = stress("kill_train.py", "--kills", "10")
    assert done.returncode == 0 and "bit for bit" in done.stdout, done.stdout + done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_kills_find_a_checkpoint_written_in_place():
    """With 8 other seeds it took 3 kills at most, and 40 are allowed."""
    done = stress("kill_train.py", "--kills", "40", "--planted-bug")
    assert done.returncode == 1 and "FAILED" in done.stderr, done.stdout + done.stderr


def test_two_processes_train_as_one():
    done = stress("ddp.py", "--runs", "1")
    assert done.returncode == 0 and "1 of 1" in done.stdout, done.stdout + done.stderr
