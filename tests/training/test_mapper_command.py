"""`voicestyle mapper`: recordings to embeddings, a bundle with a mapper, and one line for an error."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from cmpc2 import decode
from voicestyle.bundle import Bundle
from voicestyle.cli import main
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline
from voicestyle.training.errors import TrainingDataError
from voicestyle.training.mapper_options import MapperOptions
from voicestyle.training.mapper_voices import CropOptions, Recording, embed_recordings, find_recordings

SPEAKERS = 9
FEW = ("--steps", "4", "--batch", "2", "--crops", "3", "--minutes", "5")
CROPS = CropOptions(crops=4)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """Nine pieces of the samples, each of which is a speaker."""
    folder = tmp_path_factory.mktemp("recordings")
    samples = Path(__file__).parents[2] / "samples"
    for number in range(SPEAKERS):
        voice = decode(samples / f"{('slt', 'awb', 'rms')[number % 3]}.wav")
        start = len(voice) * (number // 3) // 4
        soundfile.write(folder / f"speaker_{number}.flac", voice[start : start + len(voice) // 3], 16_000)
    return folder


@pytest.fixture
def run(tiny_bundle, recordings, tmp_path):
    def invoke(*arguments, voices=recordings):
        paths = ["--bundle", tiny_bundle, "--voices", voices, "-o", tmp_path / "out"]
        return CliRunner().invoke(main, ["mapper", *map(str, [*paths, *FEW, *arguments])])

    return invoke


def test_a_bundle_gets_a_mapper(run, tiny_bundle, tmp_path, samples):
    done = run()
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "27 embeddings; 5 speakers for training, 4 held out"
    assert lines[1].startswith("step 0: loss nan, held out ")
    assert lines[2].startswith("step 4: loss ")
    bundle = Bundle.load(tmp_path / "out")
    assert bundle.manifest.mapper
    for name, sha256 in Bundle.load(tiny_bundle).manifest.files.items():
        assert bundle.manifest.files[name] == sha256
    prepared = Pipeline(bundle).prepare(samples / "slt.wav", Options())
    latent = bundle.mapper(prepared.voice.embedding[None], prepared.first_latent[None])
    assert latent.shape == (1, 512)
    figures = json.loads((tmp_path / "out-mapper.json").read_text())
    assert [row["step"] for row in figures["validations"]] == [0, 4]
    assert figures["options"]["steps"] == 4
    assert figures["crops"]["crops"] == 3
    assert len(figures["held_out"]) == 4
    assert sorted(path.name for path in (tmp_path / "out-mapper").iterdir()) == ["checkpoint.pt", "voices.npz"]


def test_started_again_it_embeds_nothing_and_ends_in_the_same_bytes(run, tmp_path, monkeypatch):
    assert run().exit_code == 0
    before = (tmp_path / "out" / "mapper.pt").read_bytes()
    monkeypatch.setattr("voicestyle.training.mapper_voices._embed", pytest.fail)
    again = run()
    assert again.exit_code == 0, again.output
    assert (tmp_path / "out" / "mapper.pt").read_bytes() == before
    other = run("--seed", "1")
    assert other.exit_code == 2
    assert "checkpoint.pt was made with other options (options.seed" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "steps must be at least 1, received 0"),
        (["--crops", "0"], "crops and recordings must be at least 1"),
        (["--device", "meta"], "must be cpu, cuda, cuda:1 …, got meta"),
        (["--bundle", "nowhere"], "nowhere"),
    ],
)
def test_errors_are_one_line(run, tmp_path, arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_unsuitable_folders_are_one_line(run, tmp_path, recordings):
    empty = tmp_path / "empty"
    empty.mkdir()
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(recordings.iterdir())[:7]:
        (few / path.name).symlink_to(path)
    rules = {empty: "must contain speakers.csv or audio files", few: "at least 8 speakers (4 are held out), received 7"}
    for folder, message in rules.items():
        done = run(voices=folder)
        assert done.exit_code == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "out-mapper").exists()
    (few / "broken.wav").write_bytes(b"no audio")
    done = run(voices=few)
    assert done.exit_code == 2
    assert "received 7" in done.stderr.splitlines()[-1]
    assert f"skipped {few / 'broken.wav'}: audio must be in a format" in done.stderr


def test_nothing_but_a_bundle_is_replaced(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("two years")
    done = run()
    assert done.exit_code == 2
    assert "must be a bundle, which is replaced" in done.stderr
    assert (tmp_path / "out" / "thesis.txt").is_file()


def test_embeddings_are_those_of_the_service(tiny_bundle, recordings, tmp_path):
    bundle = Bundle.load(tiny_bundle)
    found = find_recordings([recordings], 4)
    assert [recording.speaker for recording in found] == [f"speaker_{number}" for number in range(SPEAKERS)]
    voices = embed_recordings(bundle, found, CROPS, tmp_path / "voices.npz")
    assert len(voices) == 4 * SPEAKERS
    pipeline = Pipeline(bundle)
    for index, recording in enumerate(found):
        embedding, speaker = voices[4 * index]
        assert speaker == recording.speaker
        assert torch.equal(embedding, pipeline.prepare(recording.path, Options()).voice.embedding)
        assert not torch.equal(embedding, voices[4 * index + 1][0])


def test_an_interrupted_embedding_continues(tiny_bundle, recordings, tmp_path, monkeypatch):
    bundle, found = Bundle.load(tiny_bundle), find_recordings([recordings], 4)
    whole = embed_recordings(bundle, found, CROPS, tmp_path / "whole.npz")
    monkeypatch.setattr("voicestyle.training.mapper_voices.SAVE_EVERY", 2)

    def some(numbers):
        for number in numbers:
            if number == 5:
                raise KeyboardInterrupt
            yield number

    with pytest.raises(KeyboardInterrupt):
        embed_recordings(bundle, found, CROPS, tmp_path / "voices.npz", progress=some)
    ranges = []
    parts = embed_recordings(
        bundle, found, CROPS, tmp_path / "voices.npz", progress=lambda numbers: ranges.append(numbers) or numbers
    )
    assert ranges == [range(4, SPEAKERS)]
    assert all(torch.equal(a, b) and x == y for (a, x), (b, y) in zip(whole, parts, strict=True))


def test_the_cache_belongs_to_bundle_options_and_content(tiny_bundle, recordings, tmp_path):
    bundle, found = Bundle.load(tiny_bundle), find_recordings([recordings], 4)[:2]
    cache = tmp_path / "voices.npz"
    cache.write_bytes(b"something else")
    copies = [Recording(tmp_path / f"{index}.flac", each.speaker) for index, each in enumerate(found)]
    for copy, each in zip(copies, found, strict=True):
        copy.path.write_bytes(each.path.read_bytes())
    ranges = []
    progress = lambda numbers: ranges.append(len(numbers)) or numbers  # noqa: E731
    for recordings_now, options in ((found, CROPS), (copies, CROPS), (copies, CropOptions(crops=2))):
        embed_recordings(bundle, recordings_now, options, cache, progress=progress)
    copies[0].path.write_bytes(found[1].path.read_bytes())
    embed_recordings(bundle, copies, CropOptions(crops=2), cache, progress=progress)
    assert ranges == [2, 0, 2, 2]


def test_folders_of_speakers_and_tables(tmp_path):
    tree, table = tmp_path / "tree", tmp_path / "table"
    for name in ("b/1/x.wav", "b/2/y.FLAC", "b/3/z.mp3", "a.ogg", "notes.txt"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    table.mkdir()
    for name in ("one.wav", "two.wav", "unlisted.wav"):
        (table / name).touch()
    (table / "speakers.csv").write_text("speaker,file,sex\na,one.wav,F\nc,two.wav,M\n")
    found = find_recordings([tree, table], 2)
    assert [(each.speaker, each.path.name) for each in found] == [
        ("a", "one.wav"),
        ("a", "a.ogg"),
        ("b", "x.wav"),
        ("b", "y.FLAC"),
        ("c", "two.wav"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,sex\none.wav,F\n", "must have the columns file and speaker, received"),
        ("file,speaker\none.wav,\n", "must have a file and a speaker in each row"),
        ("file,speaker\nthree.wav,a\n", "lists three.wav, which is missing"),
    ],
)
def test_tables_with_mistakes(tmp_path, content, message):
    (tmp_path / "one.wav").touch()
    (tmp_path / "speakers.csv").write_text(content)
    with pytest.raises(TrainingDataError, match=message):
        find_recordings([tmp_path], 4)


def test_silence_is_skipped(tiny_bundle, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(32_000, np.int16), 16_000)
    skipped = []
    voices = embed_recordings(
        Bundle.load(tiny_bundle),
        find_recordings([tmp_path], 4),
        CROPS,
        tmp_path / "voices.npz",
        skip=lambda path, reason: skipped.append((path.name, reason)),
    )
    assert voices == []
    assert [name for name, _ in skipped] == ["silence.wav"]


def test_defaults_of_the_command_are_those_of_the_options():
    command = main.commands["mapper"]
    defaults = {parameter.name: parameter.default for parameter in command.params}
    options = MapperOptions()
    shared = set(defaults) & set(MapperOptions.__dataclass_fields__)
    assert {"steps", "minutes", "batch", "seed", "patience", "hold"} <= shared
    assert all(defaults[name] == getattr(options, name) for name in shared - {"prior_weight"})
