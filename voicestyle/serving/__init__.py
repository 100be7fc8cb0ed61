"""TorchServe on this machine: started, awaited, watched, and stopped with everything that it started."""

from voicestyle.serving.drain import DrainOptions
from voicestyle.serving.foreground import serve, stop_on_signals
from voicestyle.serving.ports import Ports
from voicestyle.serving.server import TorchServe

__all__ = ["DrainOptions", "Ports", "TorchServe", "serve", "stop_on_signals"]
