"""Networks that tell speakers apart: speech to embeddings, with weights from named sources."""

from voicestyle.voice_networks.ge2e import Ge2e, fetch_ge2e, fetch_ge2e_wheel, read_ge2e
from voicestyle.voice_networks.ge2e_front_end import Ge2eFrontEnd

__all__ = ["Ge2e", "Ge2eFrontEnd", "fetch_ge2e", "fetch_ge2e_wheel", "read_ge2e"]
