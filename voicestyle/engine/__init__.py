"""Latent optimisation of many faces in one batch that requests join and leave at any step."""

from voicestyle.engine.encoder_input import encoder_input
from voicestyle.engine.engine import Engine, FaceEncoder, Generator, Outcome, Progress
from voicestyle.engine.schedule import Schedule

__all__ = ["Engine", "FaceEncoder", "Generator", "Outcome", "Progress", "Schedule", "encoder_input"]
