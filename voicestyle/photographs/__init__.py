"""Photographs of faces: find them, read them safely, align them, and decide which can go into a latent bank."""

from voicestyle.photographs.errors import PhotographError
from voicestyle.photographs.files import find_photographs
from voicestyle.photographs.gates import Figures, Gates
from voicestyle.photographs.judge import Judged, PhotographJudge

__all__ = ["Figures", "Gates", "Judged", "PhotographError", "PhotographJudge", "find_photographs"]
