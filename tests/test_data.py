"""Data sets: the digits in the package, toys against oracles of their own, and downloads that fail in many ways."""

import errno
import gzip
import hashlib
import math
import os
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from scipy import integrate, stats

from genlib import data

# ------------------------------------------------------------------------------------------------------------- digits


@pytest.fixture(scope="module")
def digits():
    return data.digits()


def test_digits_sizes_classes_and_range(digits):
    assert [len(part.x) for part in digits] == [4000, 500, 500]
    for part, per_class in zip(digits, (400, 50, 50), strict=True):
        assert part.x.shape[1:] == (1, 28, 28) and part.x.dtype == torch.float32 and part.y.dtype == torch.int64
        assert torch.bincount(part.y).tolist() == [per_class] * 10
        assert torch.equal(part.y, torch.arange(len(part.y)) % 10)
        assert part.x.min() == 0 and part.x.max() == 1
        assert torch.equal((part.x * 255).round() / 255, part.x)


def test_digits_splits_are_disjoint(digits):
    pixels = [image.numpy().tobytes() for part in digits for image in part.x]
    assert len(set(pixels)) == len(pixels) == 5000


def test_digits_are_the_same_everywhere_and_always(digits):
    asset = resources.files("genlib").joinpath("assets/digits.npz").read_bytes()
    assert hashlib.sha256(asset).hexdigest() == "246e0c30eeea57c8d0037d3f38c8e00651ec204cc61b8022563e9aeeb9d756f4"
    levels = [(part.x * 255).round().to(torch.uint8).numpy().tobytes() for part in digits]
    assert [hashlib.sha256(b).hexdigest()[:16] for b in levels] == [
        "6de49d8302b0f666",
        "6395eff67eaec896",
        "18b21c16e29347be",
    ]
    assert hashlib.sha256(levels[0][:784]).hexdigest()[:16] == "0028e3af3dff6d27"


def test_digits_keep_image_and_label_together(digits):
    stored = np.load(resources.files("genlib").joinpath("assets/digits.npz"), allow_pickle=False)
    label_of = {image.tobytes(): label for image, label in zip(stored["images"], stored["labels"], strict=True)}
    for part in digits:
        for image, label in zip((part.x * 255).round().to(torch.uint8).numpy(), part.y.tolist(), strict=True):
            assert label_of[image.tobytes()] == label


def test_binary_digits_are_zeros_and_ones_at_the_threshold(digits):
    for part, binary in zip(digits, data.digits(binary=True), strict=True):
        assert binary.x.dtype == torch.float32 and set(binary.x.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(binary.x == 1, part.x >= 0.5) and torch.equal(binary.y, part.y)


def test_digits_are_a_fresh_copy_each_time(digits):
    first = data.digits()
    first.train.x.zero_()
    assert torch.equal(data.digits().train.x, digits.train.x)


@pytest.mark.parametrize("binary", [1, 0, "yes", None, 0.5, [], {}, np.True_, torch.tensor(True), b"1", object])
def test_digits_refuse_a_binary_that_is_no_bool(binary):
    with pytest.raises(TypeError, match="^binary: expected True or False, got "):
        data.digits(binary)


def _pickled(path):
    np.savez(path, images=np.array([object()]), labels=np.array([0]))


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(p.read_bytes()[:1000]),
        lambda p: p.write_bytes(_flipped(p.read_bytes())),
        lambda p: p.write_text("<!doctype html>"),
        lambda p: np.savez(p, images=np.zeros(3)),
        _pickled,
    ],
    ids=["missing", "empty", "truncated", "flipped", "html", "no labels", "pickle"],
)
def test_damaged_digits_are_refused(tmp_path, monkeypatch, damage):
    (tmp_path / "assets").mkdir()
    path = tmp_path / "assets" / "digits.npz"
    path.write_bytes(resources.files("genlib").joinpath("assets/digits.npz").read_bytes())
    damage(path)
    monkeypatch.setattr(data.resources, "files", lambda package: tmp_path)
    with pytest.raises(data.DataError, match="digits.npz is missing or damaged .*install genlib again"):
        data.digits()


def test_assets_are_package_data():
    names = {file.name for file in resources.files("genlib").joinpath("assets").iterdir()}
    assert {"digits.npz", "checksums.txt", "README.md"} <= names
    assert "CC BY-SA 3.0" in resources.files("genlib").joinpath("assets/README.md").read_text()


# --------------------------------------------------------------------------------------------------------------- toys


def _density_by_hand(name, x):
    """The density at one point, written anew: scipy's normal density, complex numbers, adaptive quadrature."""
    normal = stats.norm.pdf
    if name == "bimodal":
        return 0.4 * normal(x[0], -2, 0.4) + 0.6 * normal(x[0], 1, 0.8)
    if name == "checkerboard":
        dark = max(abs(x[0]), abs(x[1])) <= 4 and (math.floor(x[0] / 2) + math.floor(x[1] / 2)) % 2 == 0
        return dark / 32
    z = complex(*x)
    if name == "rings":
        centres = [2 * np.exp(2j * math.pi * k / 8) for k in range(8)]
        return sum(normal((z - c).real, 0, 0.2) * normal((z - c).imag, 0, 0.2) for c in centres) / 8
    if name == "pinwheel":
        arms = [z * np.exp(-1j * (0.1 * abs(z) ** 2 + 2 * math.pi * k / 5)) for k in range(5)]
        return sum(normal(a.real, 2, 0.6) * normal(a.imag, 0, 0.2) for a in arms) / 5
    if name == "moons":
        curves, end, prior = (
            [lambda t: np.exp(1j * t), lambda t: 1 + 0.5j - np.exp(1j * t)],
            math.pi,
            lambda t: 1 / math.pi,
        )
    else:
        end = 3 * math.pi
        curves, prior = [lambda t: t * np.exp(1j * t) / 3, lambda t: -t * np.exp(1j * t) / 3], lambda t: 2 * t / end**2

    def along(t):
        return prior(t) * sum(math.exp(-(abs(z - curve(t)) ** 2) / 0.02) / (0.02 * math.pi) for curve in curves) / 2

    cuts = np.linspace(0, end, 25)
    pieces = [integrate.quad(along, a, b, epsabs=0, epsrel=1e-11)[0] for a, b in zip(cuts, cuts[1:], strict=False)]
    return sum(pieces)


@pytest.mark.parametrize("name", data.TOYS)
def test_log_prob_against_a_density_written_anew(name):
    x = data.toy(name, 25, torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.cat([x, x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double() / 4])
    expected = torch.tensor([_density_by_hand(name, row.tolist()) for row in x], dtype=torch.float64).log()
    torch.testing.assert_close(data.toy_log_prob(name, x), expected, rtol=1e-8, atol=1e-8)


def test_the_curves_quadrature_has_converged(monkeypatch):
    grid = torch.cartesian_prod(*[torch.linspace(-5, 5, 61, dtype=torch.float64)] * 2)
    for name in ("moons", "spirals"):
        value = data.toy_log_prob(name, grid)
        with monkeypatch.context() as patch:
            patch.setattr(data, "_NODES", {name: 1500})
            finer = data.toy_log_prob(name, grid)
        error = (value - finer).abs()
        assert error[finer > -60].max() < 1e-8 and error.max() < 1e-6


def _cells(name):
    """Edges of cells of width 0.25 and their probabilities, by a midpoint rule of 6 points a side in each cell."""
    edges, fine = np.linspace(-6, 6, 49), (torch.arange(288, dtype=torch.float64) + 0.5) / 24 - 6
    if data.TOYS[name] == 1:
        mass = data.toy_log_prob(name, fine[:, None]).exp().reshape(48, 6).sum(1) / 24
    else:
        density = data.toy_log_prob(name, torch.cartesian_prod(fine, fine)).exp()
        mass = density.reshape(48, 6, 48, 6).sum((1, 3)).flatten() / 576
    return edges, mass.numpy()


def _p_value(x, edges, mass):
    """The chi-squared test's p-value; cells that expect fewer than ten points are taken together."""
    counts = np.histogramdd(x.double().numpy(), [edges] * x.shape[1])[0].ravel()
    common = len(x) * mass >= 10
    observed = np.append(counts[common], len(x) - counts[common].sum())
    expected = np.append(len(x) * mass[common], len(x) * (1 - mass[common].sum()))
    keep = expected > 1  # the checkerboard leaves nothing over
    if observed[~keep].any():
        return 0.0
    return stats.chi2.sf(((observed - expected)[keep] ** 2 / expected[keep]).sum(), keep.sum() - 1)


PLANTED = {  # a fault that only the sampler has
    "bimodal": ("_GAUSSIANS", {"bimodal": (*data._GAUSSIANS["bimodal"][:2], torch.tensor([0.43, 0.57]))}),
    "rings": (
        "_GAUSSIANS",
        {"rings": (data._GAUSSIANS["rings"][0], torch.full((8,), 0.22), data._GAUSSIANS["rings"][2])},
    ),
    "moons": ("_NOISE", 0.12),
    "spirals": ("_NOISE", 0.12),
    "checkerboard": ("_DARK", data._DARK + 0.02),
    "pinwheel": ("_twist", lambda x: 0.11 * (x**2).sum(-1)),
}


@pytest.mark.parametrize("name", data.TOYS)
def test_density_integrates_to_one_and_samples_follow_it(name, monkeypatch):
    # Fixed seeds; each of the six tests would raise a false alarm with one seed in 10,000.
    edges, mass = _cells(name)
    assert abs(mass.sum() - 1) < 1e-6
    p_value = _p_value(data.toy(name, 40_000, torch.Generator().manual_seed(3)), edges, mass)
    assert p_value > 1e-4, f"{name}: p = {p_value:.2g}"
    with monkeypatch.context() as patch:
        patch.setattr(data, *PLANTED[name])
        wrong = data.toy(name, 40_000, torch.Generator().manual_seed(3))
    assert _p_value(wrong.clamp(-5.99, 5.99), edges, mass) < 1e-4, "the planted fault went unseen"


def test_the_checkerboard_has_the_entropy_of_its_area():
    x = data.toy("checkerboard", 5000, torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(data.toy_log_prob("checkerboard", x), torch.full((5000,), -math.log(32)).double())
    light = torch.tensor([[1.0, -1.0], [-3.0, 3.0], [5.0, 5.0], [4.5, 3.0]])
    assert (data.toy_log_prob("checkerboard", light) == -math.inf).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("u", [0.0, 0.5, "last below one"])
def test_extreme_uniforms_stay_on_the_support(monkeypatch, dtype, u):
    u = u if u != "last below one" else 1 - 2.0 ** (-24 if dtype == torch.float32 else -53)
    monkeypatch.setattr(data, "rand", lambda *shape, like, generator: torch.full(shape, u, dtype=like.dtype))
    for name in data.TOYS:
        x = data.toy(name, 9, torch.Generator().manual_seed(0), dtype=dtype)
        assert torch.isfinite(data.toy_log_prob(name, x)).all(), name


@pytest.mark.parametrize("name", data.TOYS)
def test_toys_keep_the_contract(name):
    dim = data.TOYS[name]
    x = data.toy(name, 2500, torch.Generator().manual_seed(5))
    assert x.shape == (2500, dim) and x.dtype == torch.float32 and x.is_contiguous()
    assert torch.equal(x, data.toy(name, 2500, torch.Generator().manual_seed(5)))
    assert (
        data.toy(name, 1).shape == (1, dim) and data.toy(name, np.int64(2), dtype=torch.float64).dtype == torch.float64
    )
    state = torch.get_rng_state()
    data.toy(name, 3, torch.Generator())
    assert torch.equal(state, torch.get_rng_state())
    value = data.toy_log_prob(name, x)
    assert value.shape == (2500,) and value.dtype == torch.float32
    assert torch.equal(value, data.toy_log_prob(name, x.double()).float())  # computed in float64
    rows = torch.cat([data.toy_log_prob(name, row[None].double()) for row in x[::50]])
    torch.testing.assert_close(data.toy_log_prob(name, x.double())[::50], rows, rtol=1e-12, atol=1e-12)
    far = data.toy_log_prob(name, torch.full((1, dim), 1e140, dtype=torch.float64))
    assert far < -1e100  # and minus infinity off the checkerboard


@pytest.mark.parametrize("name", data.TOYS)
def test_log_prob_has_the_right_gradient(name):
    with torch.inference_mode():  # what is kept between calls must not be bound to inference
        data.toy_log_prob(name, torch.zeros(1, data.TOYS[name]))
    x = data.toy(name, 6, torch.Generator().manual_seed(2), dtype=torch.float64)
    at_the_origin = torch.zeros(1, data.TOYS[name], dtype=torch.float64)
    x = torch.cat([x, at_the_origin] if name != "checkerboard" else [x]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: data.toy_log_prob(name, x), x, eps=1e-6, atol=1e-5)


def test_toys_ignore_the_default_device():
    with torch.device("meta"):
        for name in data.TOYS:
            assert torch.isfinite(data.toy_log_prob(name, data.toy(name, 5))).all()


@pytest.mark.parametrize(
    "name", ["moon", "", "Moons", "rings ", None, 3, ["moons"], b"moons", ("moons",), {}, np.zeros(2)]
)
def test_an_unknown_toy_is_refused_with_the_names(name):
    for call in (lambda: data.toy(name, 3), lambda: data.toy_log_prob(name, torch.zeros(3, 2))):
        with pytest.raises((TypeError, ValueError), match="^name: expected one of 'bimodal', .*'spirals', got "):
            call()


@pytest.mark.parametrize(
    ("kwargs", "error", "argument"),
    [
        ({"n": 0}, ValueError, "n"),
        ({"n": -3}, ValueError, "n"),
        ({"n": 2.0}, TypeError, "n"),
        ({"n": "10"}, TypeError, "n"),
        ({"n": None}, TypeError, "n"),
        ({"n": True}, TypeError, "n"),
        ({"n": [3]}, TypeError, "n"),
        ({"generator": 0}, TypeError, "generator"),
        ({"generator": "cpu"}, TypeError, "generator"),
        ({"generator": np.random.default_rng(0)}, TypeError, "generator"),
        ({"dtype": torch.int64}, ValueError, "dtype"),
        ({"dtype": torch.float16}, ValueError, "dtype"),
        ({"dtype": "float32"}, ValueError, "dtype"),
        ({"dtype": None}, ValueError, "dtype"),
    ],
)
def test_toy_refuses_bad_input(kwargs, error, argument):
    with pytest.raises(error, match=f"^{argument}: expected "):
        data.toy("moons", **{"n": 4} | kwargs)


@pytest.mark.parametrize(
    ("x", "error"),
    [
        ([[0.0, 0.0]], TypeError),
        (np.zeros((3, 2)), TypeError),
        (None, TypeError),
        (torch.zeros(3, 2, dtype=torch.int64), TypeError),
        (torch.zeros(3, 2, dtype=torch.bool), TypeError),
        (torch.zeros(3, 2, dtype=torch.complex64), TypeError),
        (torch.zeros(3, 1), ValueError),
        (torch.zeros(3, 3), ValueError),
        (torch.zeros(2), ValueError),
        (torch.zeros(1, 3, 2), ValueError),
        (torch.zeros(0, 2), ValueError),
        (torch.tensor([[0.0, math.nan]]), ValueError),
        (torch.tensor([[0.0, math.inf]]), ValueError),
    ],
)
def test_toy_log_prob_refuses_bad_input(x, error):
    for name in ("moons", "checkerboard", "pinwheel"):
        with pytest.raises(error, match="^x: expected "):
            data.toy_log_prob(name, x)


# ----------------------------------------------------------------------------------------------------- the full sets

ENTRIES = {"mnist": data.mnist, "fashion-mnist": data.fashion_mnist}
NAMES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


def _flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def contents():
    """A set of the same shape, with 5,003 rows to train and validate on and 600 to test."""
    rng = np.random.Generator(np.random.PCG64(0))
    tile = rng.integers(0, 256, (600, 28, 28), dtype=np.uint8)
    arrays = [
        np.resize(tile, (5003, 28, 28)),
        rng.integers(0, 10, 5003, dtype=np.uint8),
        tile,
        np.arange(600, dtype=np.uint8),
    ]
    return {name: _idx(array) for name, array in zip(NAMES, arrays, strict=True)}


@pytest.fixture(scope="module")
def packed(contents):
    return {f"{name}.gz": gzip.compress(content, 1, mtime=0) for name, content in contents.items()}


@pytest.fixture(scope="module")
def server(packed):
    """Mirrors on this machine: the first folder of the path says how the mirror behaves."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            _, manner, name = self.path.split("/")
            asked.append((manner, name))
            good = packed[name]
            if manner == "flaky" and asked.count((manner, name)) == 1:
                manner = "503"
            body = {
                "html": b"<!doctype html><title>Sign in</title>",
                "empty": b"",
                "short": good[:-100],
                "flipped": _flipped(good),
            }
            if manner == "dropped":
                self.connection.close()
            elif manner == "302":  # even to the right file: the next address may not be https
                self.send_response(302)
                self.send_header("Location", f"/ok/{name}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif manner.isdigit():
                self.send_error(int(manner))
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body.get(manner, good))))
                self.end_headers()
                self.wfile.write(good[: len(good) // 2] if manner == "truncated" else body.get(manner, good))

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/", asked
        httpd.shutdown()


@pytest.fixture
def place(tmp_path, monkeypatch, contents, packed, server):
    """An empty cache and system folder, no GENLIB_DATA, and ``place.mirrors(...)`` to choose how the mirrors behave."""

    class Place:
        root, asked, cache, system = server[0], server[1], tmp_path / "cache" / "genlib", tmp_path / "system"

        @staticmethod
        def mirrors(*manners):
            refused = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
            urls = tuple(refused if m == "refused" else m if "://" in m else f"{server[0]}{m}/" for m in manners)
            monkeypatch.setattr(data, "_MIRRORS", dict.fromkeys(ENTRIES, urls))

        @classmethod
        def left_behind(cls):
            return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir())

    server[1].clear()
    sums = {n: (hashlib.sha256(packed[f"{n}.gz"]).hexdigest(), hashlib.sha256(contents[n]).hexdigest()) for n in NAMES}
    monkeypatch.setattr(data, "_sums", lambda dataset: sums)
    monkeypatch.setattr(data, "_SYSTEM", Place.system)
    monkeypatch.setattr(data, "_PAUSE", 0.0)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("GENLIB_DATA", raising=False)
    known = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if host == "nowhere.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with socket.socket() as deaf:  # bound but not listening: it refuses every connection
        deaf.bind(("127.0.0.1", 0))
        Place.mirrors()
        yield Place


def _assert_loaded(splits, contents):
    images, labels = np.frombuffer(contents[NAMES[0]][16:], np.uint8), np.frombuffer(contents[NAMES[1]][8:], np.uint8)
    assert [tuple(part.x.shape) for part in splits] == [(3, 1, 28, 28), (5000, 1, 28, 28), (600, 1, 28, 28)]
    both = torch.cat([splits.train.x, splits.valid.x]).mul(255).round().to(torch.uint8).flatten()
    assert both.numpy().tobytes() == images.tobytes()
    assert torch.cat([splits.train.y, splits.valid.y]).tolist() == labels.tolist()
    assert splits.train.x.dtype == torch.float32 and splits.train.y.dtype == torch.int64


def test_only_https_and_every_file_has_its_sums():
    for dataset in ENTRIES:
        assert len(data._MIRRORS[dataset]) == len(set(data._MIRRORS[dataset])) >= 2
        assert all(url.startswith("https://") and url.endswith("/") for url in data._MIRRORS[dataset])
        sums = data._sums(dataset)
        assert list(sums) == NAMES
        assert all(len(bytes.fromhex(s)) == 32 for pair in sums.values() for s in pair)
    assert len({s for dataset in ENTRIES for pair in data._sums(dataset).values() for s in pair}) == 16
    assert issubclass(data.DataError, OSError)


@pytest.mark.parametrize("dataset", ENTRIES)
def test_a_download_is_kept_and_used_again(place, contents, packed, dataset):
    place.mirrors("ok")
    _assert_loaded(ENTRIES[dataset](), contents)
    assert place.left_behind() == sorted(f"cache/genlib/{dataset}/{name}" for name in packed)
    place.asked.clear()
    _assert_loaded(ENTRIES[dataset](), contents)
    assert place.asked == []


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ("403", "403 Client Error"),
        ("404", "404 Client Error"),
        ("503", "503 Server Error"),
        ("html", "web page"),
        ("empty", "other than a gzip file"),
        ("short", "does not match the known hash"),
        ("truncated", "IncompleteRead"),
        ("flipped", "does not match the known hash"),
        ("dropped", "Connection|Remote end closed"),
        ("302", "web page"),
        ("refused", "refused"),
        ("http://nowhere.invalid/", "resolve"),
        ("https://not a url/", "(?i)invalid|label|resolve"),
    ],
)
def test_a_failed_download_is_refused_with_advice_and_leaves_nothing(place, manner, reason):
    place.mirrors(manner, "500")
    for dataset, entry in ENTRIES.items():
        with pytest.raises(data.DataError, match=reason) as caught:
            entry()
        message = str(caught.value)
        assert message.startswith(f"{dataset}: no mirror gave {NAMES[0]}.gz, tried 2 times:\n")
        assert message.count(f"/{NAMES[0]}.gz: ") == 2, "one line a mirror"
        assert "GENLIB_DATA" in message and all(f"{name}.gz" in message for name in NAMES) and "digits()" in message
        assert ("Debian" in message) == (dataset == "fashion-mnist")
        assert place.left_behind() == []


def test_a_mirror_that_is_no_https_server_is_refused(place):
    place.mirrors(place.root.replace("http://", "https://") + "ok/")
    with pytest.raises(data.DataError, match="SSL"):
        data.mnist()
    assert place.left_behind() == []


@pytest.mark.parametrize("manner", ["404", "html", "truncated", "flipped", "dropped", "302", "refused"])
def test_the_second_mirror_steps_in(place, contents, manner):
    place.mirrors(manner, "ok")
    _assert_loaded(data.mnist(), contents)
    assert [name for asked, name in place.asked if asked == "ok"] == [f"{name}.gz" for name in NAMES]


def test_a_mirror_that_fails_once_is_asked_again(place, contents):
    place.mirrors("flaky")
    _assert_loaded(data.mnist(), contents)
    assert place.asked == [("flaky", f"{name}.gz") for name in NAMES for _ in range(2)]


def test_files_that_came_stay_when_a_later_one_fails(place, contents, monkeypatch):
    place.mirrors("ok")
    retrieve = pooch.retrieve
    monkeypatch.setattr(
        pooch, "retrieve", lambda url, *a, **k: retrieve(url.replace("ok/t10k-l", "404/t10k-l"), *a, **k)
    )
    with pytest.raises(data.DataError, match="404"):
        data.mnist()
    assert place.left_behind() == sorted(f"cache/genlib/mnist/{name}.gz" for name in NAMES[:3])
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    place.asked.clear()
    _assert_loaded(data.mnist(), contents)
    assert place.asked == [("ok", f"{NAMES[3]}.gz")]


def test_a_file_appears_in_the_cache_only_when_whole(place, monkeypatch):
    place.mirrors("ok")
    fetch, seen = data._fetch, []

    def watched(url, path, pup):
        final = place.cache / "mnist" / url.rsplit("/", 1)[1]
        assert Path(path) != final and Path(path).parent == final.parent  # the same disk, so that the move is a rename
        fetch(url, path, pup)
        seen.append(final.exists())

    monkeypatch.setattr(data, "_fetch", watched)
    data.mnist()
    assert seen == [False] * 4


def test_an_interrupted_download_leaves_nothing(place, monkeypatch):
    def interrupted(url, path, _):
        Path(path).write_bytes(b"\x1f\x8b half")
        raise KeyboardInterrupt

    place.mirrors("ok")
    monkeypatch.setattr(data, "_fetch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.mnist()
    assert place.left_behind() == []


def test_a_damaged_file_in_the_cache_is_fetched_again(place, contents, packed):
    place.mirrors("ok")
    (place.cache / "mnist").mkdir(parents=True)
    for name, content in packed.items():
        (place.cache / "mnist" / name).write_bytes(_flipped(content))
    _assert_loaded(data.mnist(), contents)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device on which every write finds no space")
def test_a_full_disk_is_told_at_once(place, monkeypatch):
    place.mirrors("ok", "ok")
    monkeypatch.setattr(pooch.downloaders, "open", lambda path, mode: open("/dev/full", "wb"), raising=False)
    with pytest.raises(
        data.DataError, match=f"cannot be kept in {place.cache / 'mnist'}.*{os.strerror(errno.ENOSPC)}.*Free some disk"
    ) as caught:
        data.mnist()
    assert caught.value.__cause__.errno == errno.ENOSPC and "GENLIB_DATA" in str(caught.value)
    assert len(place.asked) == 1 and place.left_behind() == []


def _fails_with(code):
    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_cache_that_cannot_be_written_is_told(place, monkeypatch, code):
    place.mirrors("ok")
    (place.cache / "mnist").mkdir(parents=True)
    monkeypatch.setattr(pooch.utils.tempfile, "NamedTemporaryFile", _fails_with(code))
    with pytest.raises(data.DataError, match="cannot be kept in .*make that folder writable, or set GENLIB_DATA"):
        data.mnist()
    assert place.left_behind() == [] and place.asked == []


def test_a_move_that_fails_leaves_nothing(place, monkeypatch):
    place.mirrors("ok")
    monkeypatch.setattr(shutil, "move", _fails_with(errno.EIO))
    with pytest.raises(data.DataError, match="cannot be kept in"):
        data.mnist()
    assert place.left_behind() == []


def test_a_file_where_the_cache_should_be_is_told(place):
    place.mirrors("ok")
    place.cache.parent.mkdir()
    place.cache.write_text("in the way")
    with pytest.raises(data.DataError, match="cannot be kept in"):
        data.mnist()
    assert place.left_behind() == ["cache/genlib"]


# ------------------------------------------------------------------------------------ GENLIB_DATA and the system folder


@pytest.mark.parametrize("where", ["GENLIB_DATA", "system"])
@pytest.mark.parametrize("form", ["as served", "compressed anew", "not compressed"])
def test_files_on_the_disk_are_used_without_a_network(place, tmp_path, monkeypatch, contents, packed, where, form):
    root = tmp_path / where
    monkeypatch.setattr(data, "_SYSTEM", tmp_path / "system")
    if where == "GENLIB_DATA":
        monkeypatch.setenv("GENLIB_DATA", str(root))
    for dataset, entry in ENTRIES.items():
        (root / dataset).mkdir(parents=True)
        for name, content in contents.items():
            anew = {
                "as served": packed[f"{name}.gz"],
                "compressed anew": gzip.compress(content, 2),
                "not compressed": content,
            }
            (root / dataset / (name + ".gz" * (form != "not compressed"))).write_bytes(anew[form])
        _assert_loaded(entry(), contents)
    assert place.asked == []


def test_genlib_data_comes_first_and_what_it_lacks_is_looked_for_further(
    place, tmp_path, monkeypatch, contents, packed
):
    monkeypatch.setenv("GENLIB_DATA", str(tmp_path / "mine"))
    for folder, names in {"mine": NAMES[:1], "system": NAMES[1:3]}.items():
        (tmp_path / folder / "mnist").mkdir(parents=True)
        for name in names:
            (tmp_path / folder / "mnist" / name).write_bytes(contents[name])
    (tmp_path / "system" / "mnist" / NAMES[0]).write_text("never read")
    place.mirrors("ok")
    _assert_loaded(data.mnist(), contents)
    assert place.asked == [("ok", f"{NAMES[3]}.gz")]
    monkeypatch.setenv("GENLIB_DATA", "")  # empty means unset
    with pytest.raises(data.DataError, match="system"):
        data.mnist()


@pytest.mark.parametrize("where", ["GENLIB_DATA", "system"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(p.read_bytes()[:-50]),
        lambda p: p.write_bytes(_flipped(p.read_bytes())),
        lambda p: p.write_bytes(p.read_bytes() + b"more"),
        lambda p: p.write_bytes(gzip.compress(b"\0\0\x08\x03 another file")),
        lambda p: p.write_text("<!doctype html><title>404</title>"),
        lambda p: (p.unlink(), p.mkdir()),
        lambda p: (p.unlink(), p.symlink_to("nowhere")),
        lambda p: shutil.copy(p.with_name(f"{NAMES[2]}.gz"), p),
        lambda p: p.write_bytes(b"\x80\x04\x95pickled"),
    ],
    ids=[
        "empty",
        "truncated",
        "flipped",
        "longer",
        "another",
        "html",
        "folder",
        "dangling link",
        "test for train",
        "pickle",
    ],
)
def test_a_damaged_file_on_the_disk_is_refused_by_name(place, tmp_path, monkeypatch, packed, where, damage):
    root = tmp_path / where
    if where == "GENLIB_DATA":
        monkeypatch.setenv("GENLIB_DATA", str(root))
    (root / "mnist").mkdir(parents=True)
    for name, content in packed.items():
        (root / "mnist" / name).write_bytes(content)
    path = root / "mnist" / f"{NAMES[0]}.gz"
    damage(path)
    place.mirrors("ok")
    with pytest.raises(data.DataError, match="replace it, or remove it to try the next place") as caught:
        data.mnist()
    assert str(caught.value).startswith(str(path)) and place.asked == []


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_genlib_data_that_is_no_folder_is_refused(place, tmp_path, monkeypatch, kind):
    if kind == "a file":
        (tmp_path / "mine").write_text("")
    monkeypatch.setenv("GENLIB_DATA", str(tmp_path / "mine"))
    place.mirrors("ok")
    for entry in ENTRIES.values():
        with pytest.raises(data.DataError, match="^GENLIB_DATA: expected a folder, got "):
            entry()
    assert place.asked == []


@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="needs the package dataset-fashion-mnist"
)
def test_debians_fashion_mnist(monkeypatch):
    monkeypatch.delenv("GENLIB_DATA", raising=False)
    splits = data.fashion_mnist()
    assert [len(part.x) for part in splits] == [55_000, 5_000, 10_000]
    assert torch.bincount(splits.test.y).tolist() == [1000] * 10
    assert torch.bincount(torch.cat([splits.train.y, splits.valid.y])).tolist() == [6000] * 10
