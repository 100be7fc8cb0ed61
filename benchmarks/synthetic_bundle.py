"""A bundle of synthetic networks, for what is measured with whole pipelines."""

from typing import Any, cast

import numpy as np
import torch

from benchmarks.networks import INSTANCES, LATENT_STD, Synthetic
from voicestyle.generators import face_z
from voicestyle.generators.latents import Mapper
from voicestyle.manifest import Limits, Manifest

PROTOTYPES = 16
LATENTS = 128


def bundle_parts(source: Synthetic) -> dict[str, Any]:
    """Arguments of `write_bundle`: the networks, random prototypes, and latents of the generator's own distribution."""
    networks = source.load()
    sizes = cast(list[int], networks.generator.sizes)
    numbers = np.random.default_rng(0)
    with torch.no_grad():
        latents = cast(Mapper, networks.generator).map(face_z(range(LATENTS))).numpy()
    manifest = Manifest(
        name="synthetic",
        version="1",
        licence="none",
        sources=("random numbers",),
        card="networks of published shapes with synthetic weights, for measurements",
        image_size=networks.image_size,
        encoder_size=networks.image_size,
        sizes=tuple(sizes),
        embedding_dim=networks.embedding_dim,
        latent_dim=latents.shape[1],
        latent_std=LATENT_STD,
        prototypes=PROTOTYPES,
        prototype_level=PROTOTYPES,
        nearest=3,
        instances=INSTANCES,
        instance_choice="first",
        learning_rate=networks.learning_rate,
        default_steps=networks.steps,
        default_seed=0,
        default_size=max(sizes),
        limits=Limits(steps=networks.steps, audio_seconds=20.0, min_speech_seconds=0.5),
    )
    return {
        "manifest": manifest,
        "generator": networks.generator,
        "voice_encoder": networks.voice_encoder,
        "face_encoder": networks.face_encoder,
        "centroids": numbers.standard_normal((PROTOTYPES, networks.embedding_dim)).astype(np.float32),
        "latents": latents.astype(np.float32),
        "assignments": (np.arange(LATENTS) % PROTOTYPES).astype(np.int32),
    }
