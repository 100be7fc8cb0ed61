"""Fit MobileStyleGAN's 256-pixel head to the full network's image, on patches of generated faces.

The features are strongly correlated. Therefore the head's first layers are trained on whitened features, and the
whitening is merged into their weights at the end.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from voicestyle.generators import WHEEL_SHA256, MobileStyleGAN, face_z
from voicestyle.generators.haar import haar
from voicestyle.generators.mobilestylegan import ImageHead
from voicestyle.training.checkpoint import write_atomically
from voicestyle.training.faces import Progress
from voicestyle.training.head_patches import Patches

HELD_OUT_SEED = 4_000_000_000
MARGIN = 4  # image pixels at a patch's edges that depend on the padding of the head's two 3×3 layers
WARM_UP = 50  # steps
WHITENING_FLOOR = 1e-3  # minimum variance, with each channel's variance scaled to 1
FLOOR = 1e-6  # prevents division by zero for a constant channel

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class HeadOptions:
    """Options of the fit. Styles depend on all 512 components of w, therefore their learning rate is lower."""

    epochs: int = 12
    batch_size: int = 16
    learning_rate: float = 3e-3
    style_learning_rate: float = 2e-4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "seed" and value <= 0:
                raise ValueError(f"{name} must be positive, received {value}")


class Coordinates:
    """Well-conditioned coordinates for the head's parameters: w standardised, features whitened."""

    def __init__(self, patches: Patches) -> None:
        features = torch.from_numpy(patches.features[:, 0].astype(np.float32))
        subbands = haar(torch.from_numpy(patches.images[:, 0].astype(np.float32)))
        x = features[..., ::2, ::2].movedim(1, -1).flatten(0, 2)  # [pixels, C]
        y = subbands[..., ::2, ::2].movedim(1, -1).flatten(0, 2)  # [pixels, 12]
        self.w_mean, self.w_scale = patches.w.mean(dim=0), patches.w.std(dim=0, correction=0) + FLOOR
        self.scale = x.std(dim=0) + FLOOR  # [C]
        x = x / self.scale
        self.mean = x.mean(dim=0)
        x = x - self.mean
        values, vectors = torch.linalg.eigh((x.T @ x / len(x)).double())
        self.whitener = ((vectors * (values + WHITENING_FLOOR).rsqrt()) @ vectors.T).float()  # [C, C]
        design = torch.cat([x @ self.whitener, torch.ones(len(x), 1)], dim=1)
        self.linear = torch.linalg.lstsq(design, y).solution  # [C + 1, 12]

    def start(self, head: ImageHead, generator: torch.Generator) -> Parameters:
        """Initial parameters: neutral styles and depthwise convolutions, and the linear path by least squares."""
        parameters: Parameters = {}
        for name, value in head.state_dict().items():
            if name.startswith("style"):
                parameters[name] = torch.ones_like(value) if name.endswith("bias") else torch.zeros_like(value)
            elif name.startswith("depthwise"):
                parameters[name] = torch.zeros_like(value)
                parameters[name][:, :, 1, 1] = 1
            elif name.endswith("bias"):
                parameters[name] = torch.zeros_like(value)
            else:
                bound = 0.02 if name == "out.weight" else value.shape[1] ** -0.5
                parameters[name] = bound * torch.randn(value.shape, generator=generator)
        parameters["direct.weight"] = self.linear[:-1].T[:, :, None, None].clone()
        parameters["direct.bias"] = self.linear[-1].clone()
        return parameters

    def fold(self, parameters: Parameters) -> Parameters:
        """The head's weights in the original coordinates, differentiable in `parameters`."""
        folded = dict(parameters)
        for style in ("style1", "style2", "style3"):
            weight = parameters[f"{style}.weight"] / self.w_scale
            folded[f"{style}.weight"] = weight
            folded[f"{style}.bias"] = parameters[f"{style}.bias"] - weight @ self.w_mean
        folded["style1.weight"] = folded["style1.weight"] / self.scale[:, None]
        folded["style1.bias"] = folded["style1.bias"] / self.scale
        for conv in ("direct", "pointwise1"):
            weight = parameters[f"{conv}.weight"].flatten(1) @ self.whitener
            folded[f"{conv}.weight"] = weight[:, :, None, None]
            folded[f"{conv}.bias"] = parameters[f"{conv}.bias"] - weight @ self.mean
        return folded


def fit_head(head: ImageHead, patches: Patches, options: HeadOptions, checkpoint: Path, progress: Progress) -> None:
    """Fit `head` in place. Writes `checkpoint` after each epoch, and resumes from it if it exists.

    Raises ValueError if the checkpoint was written with other options.
    """
    coordinates = Coordinates(patches)
    parameters = coordinates.start(head, torch.Generator().manual_seed(options.seed))
    for value in parameters.values():
        value.requires_grad_()
    styles = [value for name, value in parameters.items() if name.startswith("style")]
    others = [value for name, value in parameters.items() if not name.startswith("style")]
    adam = torch.optim.Adam([{"params": styles}, {"params": others}], betas=(0.9, 0.99))
    first_epoch = _resume(checkpoint, options, parameters, adam)
    faces, per_face = patches.features.shape[:2]
    batches = max(1, faces * per_face // options.batch_size)
    for step in progress(range(first_epoch * batches, options.epochs * batches)):
        epoch, batch = divmod(step, batches)
        rate = min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / (options.epochs * batches)))
        adam.param_groups[0]["lr"] = options.style_learning_rate * rate
        adam.param_groups[1]["lr"] = options.learning_rate * rate
        order = np.random.default_rng((options.seed, epoch)).permutation(faces * per_face)
        face, patch = np.divmod(order[batch * options.batch_size : (batch + 1) * options.batch_size], per_face)
        x = torch.from_numpy(patches.features[face, patch]).float()
        target = torch.from_numpy(patches.images[face, patch]).float()
        image = functional_call(head, coordinates.fold(parameters), (x, patches.w[face]))
        difference = (image - target)[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
        adam.zero_grad()
        difference.square().mean().backward()
        adam.step()
        if batch + 1 == batches:
            state = {"options": asdict(options), "epoch": epoch + 1, "parameters": parameters}
            write_atomically(checkpoint, state | {"adam": adam.state_dict()})
    with torch.no_grad():
        head.load_state_dict(coordinates.fold(parameters))


def _resume(checkpoint: Path, options: HeadOptions, parameters: Parameters, adam: torch.optim.Adam) -> int:
    """Load the checkpoint if it exists. Returns the next epoch."""
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    if state["options"] != asdict(options):
        raise ValueError(f"{checkpoint.name} must have the options {asdict(options)}, received {state['options']}")
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(state["parameters"][name])
    adam.load_state_dict(state["adam"])
    return state["epoch"]


def save_head(head: ImageHead, path: Path) -> None:
    """Write the weights as float16, with the hash of the wheel that they were fitted to."""
    arrays = {name: value.numpy().astype(np.float16) for name, value in head.state_dict().items()}
    np.savez_compressed(path, wheel_sha256=np.array(WHEEL_SHA256), **arrays)


@torch.no_grad()
def measure_head(generator: MobileStyleGAN, seeds: range, progress: Progress) -> NDArray[np.float64]:
    """PSNR in dB of the head's image against the average-pooled image of the full network, for each seed.

    10·log10(4 / mean squared difference over all pixels and channels), with both images clamped to [-1, 1] (range 2)
    and w = map(z) without truncation.
    """
    values: list[float] = []
    for seed in progress(seeds):
        w = generator.map(face_z([seed]))
        head = generator(w, []).clamp(-1, 1)
        whole = generator.render(w, [], generator.optimise_size).clamp(-1, 1)
        values.append(10 * math.log10(4 / (head - whole).square().mean().item()))
    return np.array(values)
