"""Draw the cover, book/_static/cover.svg and cover.pdf: noise becomes data along paths of equal probability.

Data ``x`` mixed with standard normal noise ``e`` is ``(1 - s^2)^(1/2) x + s e``. Its density is the kernel estimate
of the shrunken points with bandwidth ``s``. As ``s`` falls from one to nearly zero, each path follows one quantile.
"""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap

from genlib.models.density import KDE

STATIC = Path(__file__).resolve().parent.parent / "book" / "_static"
COLORS = LinearSegmentedColormap.from_list(
    "cover", ["#4a86c5", "#3f9a86", "#c2703d"]
)  # 3:1 on white and on the dark page
HUMPS = [
    (-2.2, 0.16, 0.2),
    (-1.1, 0.1, 0.1),
    (0.15, 0.24, 0.36),
    (1.25, 0.1, 0.1),
    (2.3, 0.18, 0.24),
]  # mean, std, share


def main():
    noise = torch.special.ndtri((torch.arange(400, dtype=torch.float64) + 0.5) / 400)
    x = torch.cat([mean + std * noise[:: round(0.4 / share)] for mean, std, share in HUMPS])[:, None]
    grid = torch.linspace(-3.2, 3.2, 401, dtype=torch.float64)[:, None]
    levels, y = (np.arange(64) + 0.5) / 64, grid[:, 0].numpy()
    scales = np.cos(np.linspace(0, np.arccos(0.03), 36))  # an even turn from noise to data
    densities = [KDE(s).fit((1 - s**2) ** 0.5 * x).log_prob(grid).exp().numpy() for s in scales]
    paths = np.array([np.interp(levels, p.cumsum() / p.sum(), y) for p in densities])

    plt.rcParams.update({"svg.hashsalt": "cover", "path.simplify": False})
    figure, ax = plt.subplots(figsize=(9, 3.4), layout="none")
    figure.subplots_adjust(0, 0, 1, 1)
    for path, level in zip(paths.T, levels, strict=True):
        ax.plot(np.linspace(0, 1, len(path)), path, color=COLORS(level), linewidth=0.9, linestyle="-")
    ax.fill_betweenx(y, -0.01, -0.01 - 0.3 * densities[0], color="#8a94a0", alpha=0.6, linewidth=0)
    ax.fill_betweenx(y, 1.01, 1.01 + 0.16 * densities[-1], color="#8a94a0", alpha=0.6, linewidth=0)
    ax.set(xlim=(-0.14, 1.14), ylim=(-3.2, 3.2))
    ax.axis("off")
    figure.savefig(STATIC / "cover.pdf", transparent=True, metadata={"CreationDate": None})
    figure.savefig(STATIC / "cover.svg", transparent=True, metadata={"Date": None})
    text = (STATIC / "cover.svg").read_text("utf8")
    (STATIC / "cover.svg").write_text(re.sub(r"\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", text), "utf8")


if __name__ == "__main__":
    main()
