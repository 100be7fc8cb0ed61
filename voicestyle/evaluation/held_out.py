"""The speakers that were held out of the training of the demo encoders, as listed in encoders.json."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HeldOutSpeaker:
    """A recording's file name, the speaker's id, and F or M."""

    file: str
    speaker: str
    sex: str


def held_out_speakers(assets: Path, voices: Path) -> list[HeldOutSpeaker]:
    """Read the held-out speakers of `assets`/encoders.json. Raises FileNotFoundError if `voices` lacks a recording."""
    card = json.loads((assets / "encoders.json").read_text(encoding="utf-8"))
    speakers = [HeldOutSpeaker(**row) for row in card["held_out"]]
    for speaker in speakers:
        if not (voices / speaker.file).is_file():
            raise FileNotFoundError(
                f"the folder of voices must contain the held-out recording {speaker.file}; {voices} does not"
            )
    return speakers
