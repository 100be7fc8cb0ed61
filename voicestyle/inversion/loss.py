"""The loss of an inversion as an objective of the engine: a weighted sum of terms, from the files that are given."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from voicestyle.engine import TargetSpec
from voicestyle.errors import CheckpointError
from voicestyle.face_networks import (
    DEFAULT_CACHE,
    FaceNetwork,
    IrSe50,
    fetch_dlib_resnet,
    fetch_lpips_linear,
    read_lpips_linear,
    read_vgg16,
)
from voicestyle.inversion.perceptual import PerceptualTerm
from voicestyle.inversion.terms import EdgeTerm, IdentityTerm, PixelTerm, Term, resized
from voicestyle.precision import adapt_convolutions_

# Of the stand-ins, chosen by PSNR and by a face network that is in no loss (docs/bank.md). The factor of dlib's network
# is above 1, because its embeddings of two people still have a cosine of 0.85.
PIXEL_FACTOR, EDGE_FACTOR, DLIB_FACTOR = 10.0, 10.0, 3.0


@dataclass(frozen=True)
class LossFiles:
    """Weights of the published loss, each by path; what is missing is replaced by a stand-in that is named.

    vgg: torchvision's VGG-16. lpips: the linear layers of LPIPS for it; the `lpips` wheel's by default. unweighted: no
    linear layers, for another VGG-16, to which they do not belong. identity: `model_ir_se50.pth`.
    """

    vgg: Path | None = None
    lpips: Path | None = None
    unweighted: bool = False
    identity: Path | None = None

    def __post_init__(self) -> None:
        if self.lpips and not self.vgg:
            raise CheckpointError(f"the linear layers of LPIPS need a VGG-16 file, got {self.lpips} alone")
        if self.unweighted and not self.vgg:
            raise CheckpointError("unweighted features need a VGG-16 file, got none")
        if self.lpips and self.unweighted:
            raise CheckpointError(f"unweighted features have no linear layers, got {self.lpips}")


class InversionLoss(nn.Module):
    """The weighted sum of terms: an objective of `voicestyle.engine`, whose figures are the terms without weights.

    Images of another size than 256 pixels are resized. `name` says which terms, networks and weights are used.
    """

    def __init__(self, name: str, terms: Sequence[Term], network: FaceNetwork) -> None:
        super().__init__()
        self.name = name
        self.network = network
        self._terms = nn.ModuleList(terms)
        self.requires_grad_(False).eval()

    @property
    def terms(self) -> list[Term]:
        """The terms, in the order of the figures."""
        return [term for term in self._terms.children() if isinstance(term, Term)]

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the terms."""
        return tuple(term.name for term in self.terms)

    @property
    def targets(self) -> tuple[TargetSpec, ...]:
        """The tensors of all terms."""
        return tuple(spec for term in self.terms for spec in term.targets)

    @torch.no_grad()
    def target(self, photograph: Tensor) -> list[Tensor]:
        """The target of a photograph [3, 256, 256] in [-1, 1]."""
        return [tensor[0] for term in self.terms for tensor in term.target(photograph[None])]

    def forward(self, images: Tensor, targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Images [N, 3, S, S] and targets [N, ...] to the loss [N] and its terms [N, T]."""
        images, rest = resized(images), list(targets)
        loss, figures = images.new_zeros(len(images)), list[Tensor]()
        for term in self.terms:
            own, rest = rest[: len(term.targets)], rest[len(term.targets) :]
            figures.append(term(images, own))
            loss = loss + term.factor * figures[-1]
        return loss, torch.stack(figures, dim=1)


def load_loss(
    files: LossFiles = LossFiles(),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    cache: Path = DEFAULT_CACHE,
) -> InversionLoss:
    """The published loss, LPIPS + (1 − ArcFace dot product), as far as its files are given.

    Without `files.vgg`, pixels and edges replace LPIPS. Without `files.identity`, dlib's face-recognition network
    replaces ArcFace; npm downloads it to `cache`. VGG-16 and ArcFace compute in `dtype`.

    Raises CheckpointError, OSError.
    """
    terms: list[Term] = []
    if files.vgg is None:
        terms += [PixelTerm(PIXEL_FACTOR), EdgeTerm(EDGE_FACTOR)]
        first = f"{PIXEL_FACTOR:g} · squared difference of pixels + {EDGE_FACTOR:g} · difference of edges"
    else:
        linear = None
        if not files.unweighted:
            linear = read_lpips_linear(files.lpips) if files.lpips else fetch_lpips_linear(cache)
        terms.append(PerceptualTerm(read_vgg16(files.vgg), linear))
        adapt_convolutions_(terms[0], dtype)
        first = f"unweighted VGG-16 features ({files.vgg.name})" if linear is None else f"LPIPS ({files.vgg.name})"
    if files.identity is None:
        network, factor = fetch_dlib_resnet(cache), DLIB_FACTOR
    else:
        network, factor = IrSe50.read(files.identity).to(dtype), 1.0
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    terms.append(IdentityTerm(network, factor))
    name = f"{first} + {f'{factor:g} · ' if factor != 1 else ''}identity by {network.name}"
    return InversionLoss(name, terms, network).to(device)
