"""The JSON file of all options."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from cmpc2 import ResNetConfig
from voicestyle.training.errors import TrainingError
from voicestyle.training.training_options import TrainingOptions, read_options


def read(tmp_path, content):
    path = tmp_path / "options.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_options(path)


def test_what_the_file_lacks_keeps_its_default(tmp_path):
    options = read(
        tmp_path,
        {
            "seed": 3,
            "objective": {"levels": [10, 20], "temperature": 1},
            "loop": {"optimiser": {"name": "adamw", "clip": 5}},
            "voice": {"widths": [8, 8, 16, 32], "embedding_dim": 32},
            "face": {"embedding_dim": 32},
        },
    )
    assert options.seed == 3
    assert options.objective.levels == (10, 20)
    assert options.objective.temperature == 1.0
    assert options.objective.warm_up_epochs == TrainingOptions().objective.warm_up_epochs
    assert options.loop.optimiser.name == "adamw"
    assert options.loop.optimiser.clip == 5.0
    assert options.voice == ResNetConfig((8, 8, 16, 32), embedding_dim=32)
    assert options.face == ResNetConfig(embedding_dim=32)
    assert read(tmp_path, {}) == TrainingOptions()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be JSON"),
        ("[]", "must be a JSON object, received list"),
        ({"sead": 1}, "unknown option sead; the nearest known one is seed"),
        ({"loop": {"epoch": 1}}, "unknown option loop.epoch; the nearest known one is loop.epochs"),
        ({"loop": {"epochs": "many"}}, "option loop.epochs: Expected `int`, got `str`"),
        ({"loop": 4}, "option loop: Expected `object`, got `int`"),
        ({"loop": {"epochs": 0}}, "options loop: epochs must be at least 1, received 0"),
        ({"voice": {"widths": [1]}}, "options voice: widths must be 4 positive integers"),
        ({"voice": {"embedding_dim": 32}}, "voice and face must have the same embedding_dim, received 32 and 512"),
        ({"seed": -1}, "options of the training: seed must be at least 0"),
    ],
)
def test_mistakes_are_one_error(tmp_path, content, message):
    with pytest.raises(TrainingError, match=message):
        read(tmp_path, content)


def test_the_documentation_shows_the_defaults():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"(?s)```json\n(.+?)```", page)
    assert json.loads(shown) == json.loads(json.dumps(asdict(TrainingOptions())))
