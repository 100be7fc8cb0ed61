"""A judge, an inverter and a chooser without networks, for builds of a bank; they are deterministic and quick.

Their functions have names in a module, so that worker processes can import them.
"""

import hashlib
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from voicestyle.bank_builder.executors import Toolbox
from voicestyle.bank_builder.shard_task import Tools
from voicestyle.inversion import Inversion
from voicestyle.photographs import Figures, Judged

STEPS = 5


def write_photographs(folder, count, prefix=""):
    """Small PNG files; every fifth is too dark."""
    for number in range(count):
        path = folder / f"{prefix}{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        source = np.random.default_rng(number)
        level = 10 if number % 5 == 3 else 200
        Image.fromarray(source.integers(0, level, (24, 24, 3), dtype=np.uint8)).save(path)
    return folder


class FakeJudge:
    name = "fake detector"

    def __call__(self, path):
        try:
            pixels = np.array(Image.open(path).convert("RGB").resize((256, 256)))
        except OSError:
            return Judged(Figures(None, None, None, None, None, None), "must be an intact image", None)
        mean = float(pixels.mean())
        reason = f"brightness must be at least 50, received {mean:.1f}" if mean < 50 else None
        return Judged(Figures(1, np.float64(0.5), 24.0, mean / 10, -1.0, 100 * mean), reason, pixels)


class FakeInverter:
    """Finishes in pairs, the second first, like an inverter of a batch; writes each key to a diary."""

    loss_name = "fake loss"

    def __init__(self, diary=None, seconds=0.0, layers=0, crash_on=None):
        self.diary, self.seconds, self.layers, self.crash_on = diary, seconds, layers, crash_on

    def invert(self, photographs):
        pair = []
        for item in photographs:
            pair.append(item)
            if len(pair) == 2:
                yield from map(self._one, reversed(pair))
                pair = []
        yield from map(self._one, pair)

    def _one(self, item):
        key, aligned = item
        if key == self.crash_on:
            os._exit(9)
        time.sleep(self.seconds)
        if self.diary is not None:
            with self.diary.open("a") as file:
                file.write(key + "\n")
        digest = hashlib.sha256(key.encode() + aligned.tobytes()).digest()
        source = np.random.default_rng(list(digest))
        shape = (self.layers, 512) if self.layers else (512,)
        losses = {"pixels": [1 / (step + 1) for step in range(STEPS)], "identity": [0.5] * STEPS}
        latent = source.standard_normal(shape, dtype=np.float32)
        if key.startswith("nan"):
            latent[..., 7] = np.nan
        return Inversion(key, latent, 255 - aligned, losses, 20 + 10 * source.random(), source.random())


class FakeChooser:
    """Compares mean colours."""

    name = "mean colour"

    def embed(self, photographs):
        means = np.stack([pixels.mean(axis=(0, 1)) for pixels in photographs])
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)

    def choose(self, photographs, frames):
        pixels = [np.array(Image.open(frame).convert("RGB")) for frame in frames]
        cosines = photographs @ self.embed(pixels).T
        row = int(cosines.max(axis=1).argmax())
        return row, float(cosines[row].max())


def open_fakes(files, *, diary=None, seconds=0.0, layers=0, crash_on=None, videos=False):
    assert all(Path(path).read_bytes() for path in files.values())
    return Tools(FakeJudge(), FakeInverter(diary, seconds, layers, crash_on), FakeChooser() if videos else None)


def fake_toolbox(files=None, **options):
    return Toolbox(partial(open_fakes, **options), files or {})
