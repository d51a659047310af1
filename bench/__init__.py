"""What ``make bench`` times: each case is one computation, done by genlib, by a few lines of torch, and by peers.

A family of cases is a module with ``cases(small)``, where ``small`` asks for sizes that a test can afford.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"  # numba, which dcor imports, would set OpenMP's number anew, and so torch's

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class Case:
    """One computation and who does it: ``runs`` has "genlib", "plain torch" and the peers, each returning its numbers.

    ``truth()`` gives the first of these numbers by another way. A peer is imported only when it runs. ``known`` names
    the peers whose numbers are wrong: they are timed too, and their error is shown.
    """

    what: str
    runs: dict[str, Callable]
    truth: Callable
    tolerance: float
    remark: str = ""
    known: tuple[str, ...] = ()

    def errors(self) -> dict[str, float]:
        """Each run's largest relative error; raises ValueError where one beyond ``tolerance`` is not ``known``."""
        truth, found = np.atleast_1d(self.truth()), {}
        for name, run in self.runs.items():
            torch.manual_seed(0)
            found[name] = float(np.abs(np.atleast_1d(run())[: len(truth)] / truth - 1).max())
            if not found[name] <= self.tolerance and name not in self.known:
                raise ValueError(f"{self.what}: {name} is off by {found[name]:.1e}, expected {self.tolerance:.0e}")
        return found


def three_steps(start: Callable) -> Callable:
    """A run of three training steps that returns their losses; ``start()``, called once, gives loss and optimiser."""
    start = functools.cache(start)

    def run():
        with torch.random.fork_rng():  # the networks' seed is not the noise's
            loss, optimiser = start()
        losses = []
        for _ in range(3):
            optimiser.zero_grad()
            losses.append(loss())
            losses[-1].backward()
            optimiser.step()
        return [each.item() for each in losses]

    return run
