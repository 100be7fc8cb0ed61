"""The mapper: from a voice embedding and the first latent to the latent of a face, in one pass.

A bundle may contain one as `mapper.pt`; `voicestyle.training.mapper_training` trains it, through generator and face
encoder.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from voicestyle.errors import BundleError

HIDDEN = 512  # units of each hidden layer
LAYERS = 2  # hidden layers
BOUND = 3.0  # largest change of a component of w, in its standard deviations over the bank
SMALLEST_STD = 1e-3  # of the mean one: components that hardly vary in the bank are not blown up


class Mapper(nn.Module):
    """The first latent plus a bounded residual: first + std · bound · tanh(MLP(voice, first latent) / bound).

    The multilayer perceptron takes the embedding, L2-normalised, and the first latent, whitened per component. Its last
    layer starts at zero, so an untrained mapper returns the first latent. Of w+ it takes the mean over the rows, and
    adds the same residual to each row. The residual has no component along the held directions. Scriptable; no
    reduction crosses items.

    Args:
        embedding_dim: E, the components of a voice embedding.
        mean, std: of each component of w over the latent bank, [D].
        held: orthonormal directions in w that the residual leaves as they are, [H, D]; none by default.
        hidden, layers: units of each hidden layer, and how many there are.
        bound: largest change of a component, in its standard deviations, before the held directions are taken out.

    Raises ValueError for shapes that do not match each other and for numbers out of range.
    """

    mean: Tensor
    std: Tensor
    held: Tensor
    bound: Tensor

    def __init__(
        self,
        embedding_dim: int,
        mean: ArrayLike,
        std: ArrayLike,
        held: ArrayLike | None = None,
        *,
        hidden: int = HIDDEN,
        layers: int = LAYERS,
        bound: float = BOUND,
    ) -> None:
        super().__init__()
        centre, scale = (torch.tensor(np.asarray(values, np.float32)) for values in (mean, std))
        latent_dim = centre.numel()
        directions = torch.tensor(np.zeros((0, latent_dim)) if held is None else np.asarray(held), dtype=torch.float32)
        if centre.dim() != 1 or scale.shape != centre.shape or directions.shape[1:] != centre.shape:
            raise ValueError(
                "a mapper needs mean [D], std [D] and held [H, D], got "
                f"{list(centre.shape)}, {list(scale.shape)} and {list(directions.shape)}"
            )
        if min(embedding_dim, hidden, layers) < 1 or not bound > 0:
            raise ValueError(
                "embedding_dim, hidden and layers must be at least 1 and bound above 0, got "
                f"{embedding_dim}, {hidden}, {layers} and {bound}"
            )
        if not bool((scale >= 0).all()) or not bool((scale > 0).any()):
            raise ValueError("std must have no component below 0 and at least one above 0")
        self.embedding_dim: int = embedding_dim
        self.register_buffer("mean", centre)
        self.register_buffer("std", scale.clamp(min=SMALLEST_STD * float(scale.mean())))
        self.register_buffer("held", directions)
        self.register_buffer("bound", torch.tensor(float(bound)))
        widths = [embedding_dim + latent_dim, *[hidden] * layers]
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), nn.LayerNorm(after), nn.SiLU())
            for before, after in pairwise(widths)
        )
        self.last = nn.Linear(hidden, latent_dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, embedding: Tensor, first_latent: Tensor) -> Tensor:
        """Voice embeddings [N, E] of any norm and first latents w [N, D] or w+ [N, L, D] to latents of the same shape.

        Raises ValueError for other shapes (in TorchScript: torch.jit.Error).
        """
        if embedding.dim() != 2 or embedding.shape[1] != self.embedding_dim:
            raise ValueError(f"embedding must be [N, {self.embedding_dim}], got {embedding.shape}")
        if first_latent.dim() < 2 or first_latent.dim() > 3 or first_latent.shape[-1] != self.mean.shape[0]:
            raise ValueError(
                f"first_latent must be [N, {self.mean.shape[0]}] or [N, L, {self.mean.shape[0]}], "
                f"got {first_latent.shape}"
            )
        first = first_latent.mean(dim=1) if first_latent.dim() == 3 else first_latent
        voice = F.normalize(embedding, dim=1) * self.embedding_dim**0.5  # components of about 1, as the latent's
        x = torch.cat([voice, (first - self.mean) / self.std], dim=1)
        for layer in self.hidden:
            x = layer(x)
        residual = self.std * self.bound * torch.tanh(self.last(x) / self.bound)
        residual = residual - (residual @ self.held.t()) @ self.held
        return first_latent + (residual.unsqueeze(1) if first_latent.dim() == 3 else residual)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All weights and buffers by name, for `np.savez`: matrices of weights in float16, the others in float32."""
        return {
            name: (value.half() if _is_matrix(name) else value.float()).detach().cpu().numpy()
            for name, value in self.state_dict().items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Mapper":
        """The mapper of `to_arrays`, in evaluation mode and float32.

        Raises BundleError for missing, unknown, misshapen or non-finite arrays.
        """
        try:
            widths = arrays["hidden.0.0.weight"].shape
            layers = sum(name.startswith("hidden.") and name.endswith(".0.weight") for name in arrays)
            mapper = cls(
                widths[1] - len(arrays["mean"]),
                arrays["mean"],
                arrays["std"],
                arrays["held"],
                hidden=widths[0],
                layers=layers,
                bound=float(arrays["bound"]),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise BundleError(f"a mapper must have the arrays of Mapper.to_arrays: {error}") from error
        expected = {name: tuple(value.shape) for name, value in mapper.state_dict().items()}
        received = {name: tuple(value.shape) for name, value in arrays.items()}
        if differing := sorted(name for name in expected | received if expected.get(name) != received.get(name)):
            name = differing[0]
            raise BundleError(
                f"array {name} of a mapper must have the shape {expected.get(name)}, got {received.get(name)}"
            )
        if bad := [name for name, value in arrays.items() if not np.isfinite(value).all()]:
            raise BundleError(f"array {bad[0]} of a mapper must be finite")
        mapper.load_state_dict({name: torch.tensor(np.asarray(value, np.float32)) for name, value in arrays.items()})
        return mapper.eval()


def _is_matrix(name: str) -> bool:
    """Whether a weight is stored in float16. The held directions are not: rounded, they would not be orthonormal."""
    return name.endswith((".0.weight", "last.weight"))
