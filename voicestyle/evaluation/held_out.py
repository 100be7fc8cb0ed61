"""The speakers that the demo encoders never heard: listed in encoders.json by the training that held them out."""

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
    """The held-out speakers of `assets`/encoders.json. Raises FileNotFoundError where `voices` lacks one of them."""
    card = json.loads((assets / "encoders.json").read_text(encoding="utf-8"))
    speakers = [HeldOutSpeaker(**row) for row in card["held_out"]]
    for speaker in speakers:
        if not (voices / speaker.file).is_file():
            raise FileNotFoundError(
                f"the folder of voices must hold the held-out recording {speaker.file}; {voices} does not"
            )
    return speakers
