"""Latent optimisation of many faces in one batch that items join and leave at any step."""

from voicestyle.engine.capacity import CPU_CAPACITY, Choice
from voicestyle.engine.encoder_input import encoder_input
from voicestyle.engine.engine import Engine
from voicestyle.engine.networks import FaceEncoder, Generator
from voicestyle.engine.noise_maps import draw as draw_noise_maps
from voicestyle.engine.objective import Objective, TargetSpec, VoiceObjective
from voicestyle.engine.outcome import Outcome, Progress
from voicestyle.engine.schedule import Schedule
from voicestyle.engine.step_graphs import CudaCapture
from voicestyle.engine.trials import Meter, measure_capacity, meter_of
from voicestyle.errors import CaptureError

__all__ = [
    "CPU_CAPACITY",
    "CaptureError",
    "Choice",
    "CudaCapture",
    "Engine",
    "FaceEncoder",
    "Generator",
    "Meter",
    "Objective",
    "Outcome",
    "Progress",
    "Schedule",
    "TargetSpec",
    "VoiceObjective",
    "draw_noise_maps",
    "encoder_input",
    "measure_capacity",
    "meter_of",
]
