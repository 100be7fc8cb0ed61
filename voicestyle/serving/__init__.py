"""Runs one TorchServe on this machine: starts it, waits for the model, checks its health, and stops it."""

from voicestyle.serving.drain import DrainOptions
from voicestyle.serving.foreground import serve, stop_on_signals
from voicestyle.serving.ports import Ports
from voicestyle.serving.server import TorchServe

__all__ = ["DrainOptions", "Ports", "TorchServe", "serve", "stop_on_signals"]
