"""Time a live decoder, 2 -> 128 -> 256 -> 784 with 235 thousand weights, in headless Chromium.

``python bench/live.py [pictures]`` prints, for each precision, the kilobytes of the output, the time from the script's
first line to its first picture, and how many pictures a second follow a moving slider.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import sys
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright
from torch import nn

from genlib.course.live import Image, Pad, live

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import browser as chromium  # noqa: E402

PLAY = """async n => {
    const [root] = document.querySelectorAll(".genlib-live"), [slider] = root.querySelectorAll("input");
    const frame = () => new Promise(requestAnimationFrame);
    let busy = 0;
    await frame();
    const began = performance.now();
    for (let i = 0; i < n; i++) {
        slider.value = i % 200;
        slider.dispatchEvent(new Event("input"));
        await frame();
        busy += Number(root.dataset.milliseconds);
    }
    return [1000 * n / (performance.now() - began), busy / n];
}"""


def main():
    pictures = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    torch.manual_seed(0)
    layers = [nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 784), nn.Sigmoid()]
    decoder, pad = nn.Sequential(*layers), Pad(("$z_1$", "$z_2$"), -2, 2, (0.5, -1))
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium.find(), args=chromium.FLAGS)
        for precision in ("fp32", "fp16", "int8"):
            shown = live(
                lambda z: decoder(z[None]).view(28, 28), pad,
                view=Image(), name="decoder", alt="A digit.", precision=precision,
            ).html  # fmt: skip
            tab = opened.new_page()
            timed = shown.replace("<script>(", "<script>window.began = performance.now();(")
            tab.set_content(timed.replace(".start()</script>", ".start();window.ended = performance.now()</script>"))
            first = tab.evaluate("ended - began")
            rate, busy = tab.evaluate(PLAY, pictures)
            size = f"{len(shown.encode()) / 1000:.0f} kB"
            print(f"{precision}: {size}, first picture {first:.0f} ms, then {rate:.0f} a second, {busy:.1f} ms each")
            tab.close()
        opened.close()


if __name__ == "__main__":
    main()
