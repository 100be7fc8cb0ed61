"""VoiceStyle: send a voice, get the face it suggests (10.1145/3671002), as a production service."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("voicestyle")
except PackageNotFoundError:  # inside an archive the package is a folder, not an installed distribution
    __version__ = "0.1.0"
