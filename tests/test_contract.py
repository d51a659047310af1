"""The contract's helpers refuse what they should, by name, and the protocols tell models apart."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from genlib import contract
from genlib.contract import check_choice, check_count, check_data, check_positive, rand, randn

BAD_DATA = {
    "a list": ([[1.0, 2.0, 3.0]], TypeError, "got list"),
    "a NumPy array": (np.ones((4, 3)), TypeError, "got ndarray"),
    "nothing": (None, TypeError, "got NoneType"),
    "integers": (torch.ones(4, 3, dtype=torch.int64), TypeError, "got torch.int64"),
    "booleans": (torch.ones(4, 3, dtype=torch.bool), TypeError, "got torch.bool"),
    "complex": (torch.ones(4, 3, dtype=torch.complex64), TypeError, "got torch.complex64"),
    "too wide": (torch.ones(4, 4), ValueError, r"got \(4, 4\)"),
    "too narrow": (torch.ones(4, 1), ValueError, r"got \(4, 1\)"),
    "one row": (torch.ones(3), ValueError, r"got \(3,\)"),
    "one dimension more": (torch.ones(1, 4, 3), ValueError, r"got \(1, 4, 3\)"),
    "a scalar": (torch.tensor(1.0), ValueError, r"got \(\)"),
    "empty": (torch.ones(0, 3), ValueError, r"got shape \(0, 3\)"),
    "NaN": (torch.tensor([[0.0, math.nan, 0.0]]), ValueError, "got 1 NaN or infinite of 3"),
    "infinity": (torch.tensor([[math.inf, -math.inf, 0.0]]), ValueError, "got 2 NaN or infinite of 3"),
}


@pytest.mark.parametrize("what", BAD_DATA)
def test_check_data_refuses_and_names(what):
    bad, error, seen = BAD_DATA[what]
    with pytest.raises(error, match=rf"^weather: expected .*{seen}"):
        check_data(bad, (3,), "weather")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("event", [(), (1,), (3,), (1, 5, 7)])
def test_check_data_returns_good_data_itself(dtype, event):
    x = torch.zeros(2, *event, dtype=dtype)
    assert check_data(x, event) is x
    assert check_data(x, list(event)) is x and check_data(x, torch.Size(event)) is x


def test_check_data_without_a_shape_takes_vectors_of_any_width():
    assert check_data(torch.zeros(2, 9)).shape == (2, 9)
    for bad in (torch.zeros(9), torch.zeros(2, 0), torch.zeros(0, 2), torch.zeros(1, 2, 3)):
        with pytest.raises(ValueError, match="^x: expected"):
            check_data(bad)


@pytest.mark.parametrize(
    "event, shape", [(None, "(N, D)"), ((), "(N,)"), ((3,), "(N, 3)"), ((1, 5, 7), "(N, 1, 5, 7)")]
)
def test_check_data_says_the_shape_it_wants(event, shape):
    with pytest.raises(TypeError) as caught:
        check_data("x", event)
    assert shape in str(caught.value)


def test_check_data_keeps_the_graph():
    x = torch.zeros(2, 3, requires_grad=True)
    check_data(2 * x, (3,)).sum().backward()
    assert (x.grad == 2).all()


@pytest.mark.parametrize("n", [1, np.int64(7), torch.tensor(3)])
def test_check_count_takes_whole_numbers(n):
    assert check_count(n) == int(n) and type(check_count(n)) is int


@pytest.mark.parametrize(
    "n, error",
    [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError), ("3", TypeError), (None, TypeError)],
)
def test_check_count_refuses_and_names(n, error):
    with pytest.raises(error, match=rf"^steps: expected a whole number of at least 1, got {n!r}"):
        check_count(n, "steps")


def test_check_count_has_another_least():
    assert check_count(0, least=0) == 0
    with pytest.raises(ValueError, match="^k: expected a whole number of at least 2, got 1"):
        check_count(1, "k", least=2)


@pytest.mark.parametrize("value", [1, 0.5, 1e-300, np.float32(2), torch.tensor(3.0)])
def test_check_positive_takes_numbers_above_zero(value):
    assert check_positive(value, "lr") == float(value) and type(check_positive(value, "lr")) is float


@pytest.mark.parametrize(
    "value, error",
    [(0, ValueError), (-1.0, ValueError), (math.nan, ValueError), (math.inf, ValueError)]
    + [("1", TypeError), (b"1", TypeError), (True, TypeError), (None, TypeError), ([1.0], TypeError)],
)
def test_check_positive_refuses_and_names(value, error):
    with pytest.raises(error, match="^lr: expected a .*number above 0, got "):
        check_positive(value, "lr")


def test_check_choice():
    assert check_choice("b", ("a", "b"), "kind") == "b"
    with pytest.raises(ValueError, match="^kind: expected one of 'a', 'b', got 'c'"):
        check_choice("c", ("a", "b"), "kind")


@pytest.mark.parametrize("draw, torch_draw", [(randn, torch.randn), (rand, torch.rand)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_what_torch_draws_on_the_cpu(draw, torch_draw, dtype):
    like = torch.zeros((), dtype=dtype)
    ours = draw(5, 3, like=like, generator=torch.Generator().manual_seed(3))
    assert torch.equal(ours, torch_draw(5, 3, generator=torch.Generator().manual_seed(3), dtype=dtype))
    assert ours.dtype == dtype and ours.shape == (5, 3)


@pytest.mark.parametrize("draw", [randn, rand])
def test_a_cpu_generator_is_drawn_from_on_the_cpu_and_then_moved(draw):
    """The meta device stands for an accelerator: torch itself refuses a CPU generator for another device."""
    device = "cuda" if torch.cuda.is_available() else "meta"
    g, h = (torch.Generator().manual_seed(3) for _ in range(2))
    there, here = draw(5, like=torch.zeros((), device=device), generator=g), draw(5, like=torch.zeros(()), generator=h)
    assert there.device.type == device and there.dtype == here.dtype
    assert torch.equal(g.get_state(), h.get_state())  # the same numbers were taken from it
    if device == "cuda":
        assert torch.equal(there.cpu(), here)


@pytest.mark.parametrize("draw", [randn, rand])
def test_global_random_state_moves_only_without_a_generator(draw):
    with torch.random.fork_rng():
        before = torch.get_rng_state()
        draw(5, like=torch.zeros(()), generator=torch.Generator().manual_seed(3))
        assert torch.equal(before, torch.get_rng_state())
        assert not torch.equal(draw(5, like=torch.zeros(())), draw(5, like=torch.zeros(())))
        assert not torch.equal(before, torch.get_rng_state())


def having(*methods, base=object, **attributes):
    return type("Model", (base,), {name: lambda self, *arguments: None for name in methods} | attributes)()


PROTOCOLS = {
    "Samples": ("sample", "event_shape"),
    "TrainsByLoss": ("loss",),
    "TwoPlayer": ("critic_loss", "generator_loss"),
    "Tractable": ("log_prob",),
    "Bounded": ("elbo", "log_prob_bound"),
    "Latent": ("encode", "decode"),
    "Bijection": ("forward", "inverse"),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_are_checkable_at_run_time(name):
    protocol, members = getattr(contract, name), PROTOCOLS[name]
    assert isinstance(having(*members), protocol)
    for missing in members:
        assert not isinstance(having(*(m for m in members if m != missing)), protocol)


def test_a_flow_and_a_gan_are_told_apart():
    flow = having("sample", "loss", "log_prob", "forward", "inverse", base=nn.Module, event_shape=(3,))
    gan = having("sample", "critic_loss", "generator_loss", base=nn.Module, event_shape=(3,))
    found = [{n for n in PROTOCOLS if isinstance(model, getattr(contract, n))} for model in (flow, gan)]
    assert found == [{"Samples", "TrainsByLoss", "Tractable", "Bijection"}, {"Samples", "TwoPlayer"}]


def test_every_protocol_is_here():
    assert set(PROTOCOLS) == {
        n for n, v in vars(contract).items() if getattr(v, "_is_protocol", False) and n != "Protocol"
    }
