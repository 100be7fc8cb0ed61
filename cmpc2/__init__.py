"""Face and voice embeddings of CMPC (arXiv 2204.14057), with the public names of the published package cmpc2."""

from cmpc2.audio import decode
from cmpc2.checkpoint import load
from cmpc2.errors import AudioError, CheckpointError
from cmpc2.log_mel import log_mel
from cmpc2.memory import getKNearestSamples
from cmpc2.model import CMPC
from cmpc2.preprocess import audio_preprocess, load_voice, visual_preprocess
from cmpc2.resnet import ResNet, ResNetConfig
from cmpc2.vad import speech_only

__all__ = [
    "CMPC",
    "AudioError",
    "CheckpointError",
    "ResNet",
    "ResNetConfig",
    "audio_preprocess",
    "decode",
    "getKNearestSamples",
    "load",
    "load_voice",
    "log_mel",
    "speech_only",
    "visual_preprocess",
]
