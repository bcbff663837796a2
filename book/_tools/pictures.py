"""Make the moving picture of the landing page and the picture of the README.

    .venv/bin/python book/_tools/pictures.py

Three real textures run through the forward process; then three fresh draws of the prior run backwards under the exact
score of these textures.  Grey images above, the same as phases in cyclic colours below.  Takes about a minute; the
pictures are part of the repository, so that this is needed only when they are to change.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

import kodm_lite as kodm
from kodm_lite.data import textures
from kodm_lite.pictures.plotting import CYCLIC

BOOK = Path(__file__).resolve().parents[1]
SIZE, GAP = 64, 3
SEEDS = (0, 4, 2)  # of the first twelve, the first three that make the three different textures
WHITE = 255


def tile(theta: torch.Tensor) -> list[np.ndarray]:
    """A field of phases (1, H, W) as a grey and as a coloured picture."""
    grey = kodm.to_uint8(theta, 0.9)[0].numpy()[..., None].repeat(3, -1)
    turn = ((kodm.wrap(theta)[0] / (2 * torch.pi)) + 0.5).numpy()
    colour = (matplotlib.colormaps[CYCLIC](turn)[..., :3] * 255).round().astype(np.uint8)
    return [grey, colour]


def table(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Pictures of one size in rows and columns, with white between them."""
    side = SIZE + GAP
    canvas = np.full((len(rows) * side - GAP, len(rows[0]) * side - GAP, 3), WHITE, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            canvas[i * side :, j * side :][:SIZE, :SIZE] = picture
    return canvas


def frame(states: torch.Tensor) -> Image.Image:
    """Three states (3, 1, H, W) side by side, grey above coloured."""
    grey, colour = zip(*(tile(theta) for theta in states), strict=True)
    return Image.fromarray(table([list(grey), list(colour)]))


def main() -> None:
    images = textures(size=SIZE, n=3, seed=20, scale=0.9).theta
    process = kodm.KuramotoProcess.for_shape(images.shape[1:])
    times = np.linspace(0, 1, 17).tolist()
    forward = process.trajectory(images, times, generator=torch.Generator().manual_seed(1))

    backward: dict[float, torch.Tensor] = {}
    score = kodm.ImageSetScore(process, images)
    # Many steps: with few, the order parameter of 4096 pixels is biased enough to favour one image (chapter 5).
    kodm.sample(
        score, process, images.shape, steps=480, seeds=SEEDS, progress=True,
        callback=lambda t, theta: backward.update({round(t, 4): theta}),
    )  # fmt: skip
    states = [*forward, *[backward[round(t, 4)] for t in reversed(times)]]

    frames = [frame(state) for state in states]
    last = len(frames) - 1
    durations = [700 if k in (0, 16, 17) else 130 for k in range(len(frames))]
    durations[last] = 1800
    film = BOOK / "_static" / "hero.webp"
    frames[0].save(film, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=45, method=6)
    frames[-1].save(BOOK / "_static" / "hero-still.png", optimize=True)

    shown = [0, 4, 7, 10, 16]
    rows = [[tile(states[n][k])[1] for n in [*shown, *[last - n for n in reversed(shown)]]] for k in range(3)]
    strip = Image.fromarray(table(rows))
    still = BOOK / "images" / "hero.png"
    strip.resize((2 * strip.width, 2 * strip.height), Image.Resampling.NEAREST).save(still, optimize=True)
    for path in (film, still):
        print(f"{path.name}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
