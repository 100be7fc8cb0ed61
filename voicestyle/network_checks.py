"""Checks of a bundle's networks that only a call can make: what they take, and what they return."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cmpc2.audio import SAMPLE_RATE
from voicestyle.errors import BundleError
from voicestyle.torchscript import CompiledModule

TONE_SECONDS = 2.0
_TONE_HERTZ, _TONE_AMPLITUDE = 220.0, 0.01
_SHORTEST_SECONDS = 0.04  # of what the speech detector returns


def tone(seconds: float) -> Tensor:
    """A quiet tone, float32 [n] at 16 kHz."""
    times = torch.arange(round(seconds * SAMPLE_RATE), dtype=torch.float32) / SAMPLE_RATE
    return _TONE_AMPLITUDE * torch.sin(2 * torch.pi * _TONE_HERTZ * times)


def check_front_end(
    front_end: CompiledModule,
    voice_encoder: CompiledModule,
    *,
    embedding_dim: int,
    min_speech_seconds: float,
    device: torch.device | str,
) -> None:
    """Raise BundleError unless front_end.pt and the voice encoder take speech of two seconds and the shortest speech.

    They take float32 [n] to features float32 [1, C, T], and [1, 1, C, T] to an embedding [1, E], all finite.
    """
    for seconds in (TONE_SECONDS, max(min_speech_seconds, _SHORTEST_SECONDS)):
        samples = tone(seconds).to(device)
        takes = f"{seconds:g} s of speech, float32 {list(samples.shape)}"
        features = _call("front_end.pt", takes, front_end, samples)
        is_valid = features.dtype == torch.float32 and features.dim() == 3 and len(features) == 1
        if not is_valid or not features.numel() or not features.isfinite().all():
            rule = f"front_end.pt must map {takes}, to finite features float32 [1, C, T]"
            raise BundleError(f"{rule}, got {_described(features)}")
        check_encoder("voice_encoder.pt", voice_encoder, features[None], embedding_dim)


def check_encoder(name: str, encoder: CompiledModule, example: Tensor, embedding_dim: int) -> None:
    """Raise BundleError unless the file `name` takes `example` [1, ...] and returns a finite embedding [1, E]."""
    takes = f"an input {list(example.shape)}"
    _check_output(name, takes, _call(name, takes, encoder, example), (1, embedding_dim))


def check_mapper(mapper: CompiledModule, first_latent: Tensor, embedding_dim: int) -> None:
    """Raise BundleError unless mapper.pt maps an embedding [1, E] and first_latent [1, ...] to such a latent."""
    embedding = torch.ones(1, embedding_dim, device=first_latent.device)
    takes = f"an embedding {list(embedding.shape)} and a first latent {list(first_latent.shape)}"
    latent = _call("mapper.pt", takes, mapper, embedding, first_latent)
    _check_output("mapper.pt", takes, latent, first_latent.shape)


def _call(name: str, takes: str, module: CompiledModule, *inputs: Tensor) -> Tensor:
    try:
        with torch.inference_mode():
            output = module(*inputs)
    except Exception as error:  # TorchScript and its operators raise many different exceptions
        reason = str(error).strip().split("\n")[-1].removeprefix("builtins.") or type(error).__name__
        raise BundleError(f"{name} must take {takes}; it failed: {reason}") from error
    if not isinstance(output, Tensor):
        raise BundleError(f"{name} must return one tensor, got {type(output).__name__}")
    return output


def _check_output(name: str, takes: str, output: Tensor, shape: Sequence[int]) -> None:
    if tuple(output.shape) != tuple(shape) or output.dtype != torch.float32 or not output.isfinite().all():
        raise BundleError(f"{name} must map {takes} to finite float32 {list(shape)}, got {_described(output)}")


def _described(output: Tensor) -> str:
    found = f"{str(output.dtype).removeprefix('torch.')} {list(output.shape)}"
    return found if output.isfinite().all() else f"{found} with NaN or infinity"
