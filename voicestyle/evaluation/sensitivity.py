"""How much similarity changes where only background, light or colour of a face image is changed.

The similarity is that of the loss, by the bundle's own face encoder. A face encoder that sees faces changes little; how
much it changes for another person's face is the figure to compare with.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from voicestyle.bundle import Bundle
from voicestyle.engine import encoder_input
from voicestyle.evaluation.generate import Progress, no_progress
from voicestyle.evaluation.image_changes import COLOURS, LIGHTS, Pixels, with_background, with_colour, with_light
from voicestyle.evaluation.intervals import Bootstrap, Estimate, number_people
from voicestyle.evaluation.pixels import read_pixels
from voicestyle.evaluation.report import Sensitivity

BACKGROUNDS = 4  # those of other speakers of the same sex that each face gets

Embed = Callable[[Pixels], NDArray[np.float64]]


def face_embedder(bundle: Bundle, device: str) -> Embed:
    """From an image [S, S, 3], 0 to 255, to its unit vector [E] by the bundle's face encoder, as in the loss."""
    manifest = bundle.manifest

    def embed(pixels: Pixels) -> NDArray[np.float64]:
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device) / 127.5 - 1
        with torch.inference_mode():
            vector = bundle.face_encoder(encoder_input(image, manifest.image_size, manifest.encoder_size))
        return F.normalize(vector.float(), dim=1)[0].double().cpu().numpy()

    return embed


def measure_sensitivity(
    embed: Embed,
    images: Sequence[bytes],
    voices: Sequence[Tensor],
    speakers: Sequence[str],
    sexes: Sequence[str],
    bootstrap: Bootstrap,
    progress: Progress = no_progress,
) -> Sensitivity:
    """The sensitivity of image files of equal size to the voices [E] that they were made for.

    speakers, sexes: of each. Which backgrounds a face gets is drawn from the bootstrap's seed.
    """
    people, (persons,) = number_people(speakers)
    of_sexes = np.array(sexes)
    pixels = [read_pixels(image) for image in images]
    targets = [F.normalize(voice.double(), dim=0).numpy() for voice in voices]
    vectors: list[NDArray[np.float64]] = []
    source = np.random.default_rng(bootstrap.seed)
    changes: dict[str, list[float]] = {"background": [], "light": [], "colour": []}
    for i in progress(range(len(pixels)), "changing faces"):
        face, target = pixels[i].astype(np.float32), targets[i]
        vectors.append(embed(face))
        similarity = float(vectors[i] @ target)
        # Hair counts as background here, and that of the other sex would change what the face suggests.
        others = np.flatnonzero((persons != persons[i]) & (of_sexes == of_sexes[i]))
        chosen = source.choice(others, min(BACKGROUNDS, len(others)), replace=False)
        changed = {
            "background": [with_background(face, pixels[other].astype(np.float32)) for other in chosen],
            "light": [with_light(face, *light) for light in LIGHTS],
            "colour": [with_colour(face, *colour) for colour in COLOURS],
        }
        for name, variants in changed.items():
            found = [abs(float(embed(variant) @ target) - similarity) for variant in variants]
            changes[name].append(float(np.mean(found)) if found else float("nan"))
    cosines = np.array(targets) @ np.array(vectors).T  # [voice, face]
    own = cosines.diagonal()
    one, other = np.nonzero(persons[:, None] != persons[None])
    swapped = np.abs(cosines[one, other] - own[one])
    same_sex = of_sexes[one] == of_sexes[other]

    def swap(kept: NDArray[np.bool_]) -> Estimate | None:
        if not kept.any():
            return None
        return bootstrap.mean(people, swapped[kept], persons[one[kept]], persons[other[kept]])

    estimates: dict[str, Estimate | None] = {}
    for name, values in changes.items():
        kept = np.isfinite(values)
        mean = bootstrap.mean(people, np.array(values)[kept], persons[kept])
        estimates[name] = mean if kept.any() else None
    return Sensitivity(
        faces=len(pixels),
        background=estimates["background"],
        light=estimates["light"],
        colour=estimates["colour"],
        another_speaker=swap(np.ones(len(one), np.bool_)),
        another_speaker_of_one_sex=swap(same_sex),
        spread=float(np.std([own[persons == person].mean() for person in range(people)])),
    )
