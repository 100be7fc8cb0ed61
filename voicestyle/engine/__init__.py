"""Latent optimisation of many faces in one batch that items join and leave at any step."""

from voicestyle.engine.encoder_input import encoder_input
from voicestyle.engine.engine import Engine
from voicestyle.engine.networks import FaceEncoder, Generator
from voicestyle.engine.objective import Objective, TargetSpec, VoiceObjective
from voicestyle.engine.outcome import Outcome, Progress
from voicestyle.engine.schedule import Schedule
from voicestyle.engine.step_graphs import CudaCapture

__all__ = [
    "CudaCapture",
    "Engine",
    "FaceEncoder",
    "Generator",
    "Objective",
    "Outcome",
    "Progress",
    "Schedule",
    "TargetSpec",
    "VoiceObjective",
    "encoder_input",
]
