"""A tiny engine in float64, and items for it."""

import torch
import torch.nn.functional as F

from voicestyle.engine import Engine, VoiceObjective

STD = 3.0
EMBEDDING = 6


class TinyGenerator(torch.nn.Module):
    """A smooth generator of 16-pixel images with two noise maps, small enough for float64."""

    latent_dim = 5
    noise_shapes = [[4, 4], [16, 16]]

    def __init__(self):
        super().__init__()
        source = torch.Generator().manual_seed(1)
        self.weight = torch.randn(5, 3 * 16 * 16, generator=source, dtype=torch.float64) / 5
        self.frozen = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, w, noise):
        image = torch.tanh(w @ self.weight).view(-1, 3, 16, 16) * self.frozen
        return image + 0.1 * F.interpolate(noise[0], 16) + 0.1 * noise[1]


def face_encoder(images):
    source = torch.Generator().manual_seed(2)
    weight = torch.randn(3 * 16 * 16, EMBEDDING, generator=source, dtype=torch.float64) / 30
    return torch.sin(images.flatten(1) @ weight)


def objective(encoder=face_encoder, **options):
    return VoiceObjective(encoder, embedding_dim=EMBEDDING, image_size=16, **options)


def engine(capacity=4, **options):
    return Engine(
        TinyGenerator(),
        options.pop("objective", None) or objective(),
        latent_std=STD,
        capacity=capacity,
        max_steps=40,
        dtype=torch.float64,
        **options,
    )


def item(number, steps=20):
    source = torch.Generator().manual_seed(100 + number)
    draw = lambda *shape: torch.randn(*shape, generator=source, dtype=torch.float64)  # noqa: E731
    return {
        "target": [draw(EMBEDDING)],
        "first_latent": draw(5),
        "noise": [draw(1, 4, 4), draw(1, 16, 16)],
        "latent_noise": draw(steps, 5),
        "seed": number,
        "steps": steps,
    }


def take_steps(running, count):
    """Take up to `count` steps with all items; remove and return those that finish, as outcomes by key."""
    finished = {}
    for _ in range(count):
        for key in running.step():
            finished[key] = running.outcome(key)
            running.remove(key)
    return finished
