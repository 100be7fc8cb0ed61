"""VoiceStyle: send a voice, get the face it suggests (10.1145/3671002), as a production service."""

from importlib.metadata import version

__version__ = version("voicestyle")
