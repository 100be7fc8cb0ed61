"""Faces of recordings, the judge of sex and age, light, the figure, and the section of the report."""

import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cmpc2 import decode
from voicestyle.demo_bundle import ASSETS
from voicestyle.evaluation.agreement import count_by_sex
from voicestyle.evaluation.consistency import FacesOfSpeakers, embed_faces, measure_consistency
from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.figure import write_figure
from voicestyle.evaluation.generate import Plan, generate_all
from voicestyle.evaluation.generation import GenerationEvaluation
from voicestyle.evaluation.intervals import Bootstrap
from voicestyle.evaluation.judge import JudgeError, Judgement, install_judge, judge_faces, judge_name
from voicestyle.evaluation.light import Light
from voicestyle.evaluation.page import read_report, write_report
from voicestyle.evaluation.speakers import Recording, choose_recordings, held_out_speakers, read_speakers, to_wav
from voicestyle.offline import generate_face
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline
from voicestyle.voice_conditions import CONDITIONS

ROOT = Path(__file__).parents[2]


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_faces_are_counted_by_the_sex_of_their_speaker_and_their_judged_sex():
    table = count_by_sex(["F", "F", "F", "M"], ["F", "M", "F", "M"])
    assert table == {"F": {"F": 2, "M": 1}, "M": {"F": 0, "M": 1}}


@pytest.fixture
def fake_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`fake_command(name, script)`: put a shell script of that name first on PATH."""

    def write(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")

    return write


def test_judgements_come_in_the_order_of_the_faces(tmp_path: Path, fake_command):
    rows = '[{"sex": "M", "probability": 0.98712, "age": 31.44}, {"sex": "F", "probability": 0.6, "age": 50}]'
    fake_command("node", f"test $1 = judge.mjs || exit 1; echo '{rows}'")
    faces = [Path("b.png"), Path("a.png")]
    assert judge_faces(tmp_path, faces) == [Judgement("M", 0.987, 31.4), Judgement("F", 0.6, 50.0)]
    with pytest.raises(JudgeError, match="all 3 faces; got 2 judgements"):
        judge_faces(tmp_path, [*faces, Path("c.png")])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no such model >&2; exit 1", "node judge.mjs failed in .*no such model"),
        ("echo warning", "must print a JSON array of judgements; got 'warning"),
        ("""echo '[{"sex": "F"}]'""", "must print a JSON array of judgements"),
        ("""echo '[{"sex": "F", "probability": null, "age": 3}]'""", "must print a JSON array of judgements"),
    ],
)
def test_a_failing_judge_is_one_error(tmp_path: Path, fake_command, script: str, message: str):
    fake_command("node", script)
    with pytest.raises(JudgeError, match=message):
        judge_faces(tmp_path, [Path("a.png")])


def test_a_judge_without_node_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JudgeError, match=r"needs node \(Node.js\) on PATH"):
        judge_faces(tmp_path, [])


def test_install_copies_the_program_and_runs_npm(tmp_path: Path, fake_command):
    fake_command("npm", "echo $1 > called")
    install_judge(tmp_path / "judge")
    assert (tmp_path / "judge" / "called").read_text() == "install\n"
    assert (tmp_path / "judge" / "judge.mjs").is_file()
    versions = json.loads((tmp_path / "judge" / "package.json").read_text())["dependencies"].values()
    assert all(version[0].isdigit() for version in versions)  # pinned
    fake_command("npm", "echo no network >&2; exit 1")
    with pytest.raises(JudgeError, match="npm install failed in .*no network"):
        install_judge(tmp_path / "judge")


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("npm") and shutil.which("node")), reason="needs Node.js with npm")
def test_the_real_judge_tells_women_from_men(tmp_path: Path):
    """The first faces of docs/images/first_last.jpg: four women in the first row, four men in the second."""
    install_judge(tmp_path)
    faces = []
    with Image.open(ROOT / "docs" / "images" / "first_last.jpg") as sheet:
        for i in range(8):
            left, top = i % 4 * 336, i // 4 * 176
            faces.append(tmp_path / f"{i}.png")
            sheet.crop((left, top, left + 160, top + 160)).save(faces[-1])
    judged = judge_faces(tmp_path, faces)
    assert "".join(judgement.sex for judgement in judged) == "FFFFMMMM"
    assert all(judgement.probability > 0.5 and 15 < judgement.age < 80 for judgement in judged)


def test_a_first_face_is_the_face_before_the_optimisation(tiny_bundle, samples):
    voices = [samples / "slt.wav", samples / "rms.wav", samples / "awb.wav"]
    pipeline = Pipeline.load(tiny_bundle, capacity=2)
    recordings = [Recording(voice, voice.stem, "F") for voice in voices]
    found, skipped = generate_all(pipeline, recordings, Plan(size=32, steps=4))
    assert not skipped
    assert len({faces.kinds["last"].image for faces in found}) == 3
    for voice, faces in zip(voices, found, strict=True):
        first, last = faces.kinds["first"], faces.kinds["last"]
        assert list(faces.kinds) == ["first", "last"]
        assert not faces.conditions
        assert last.trace == generate_face(pipeline, voice, Options(steps=4, seed=0, size=32)).trace
        prepared = pipeline.prepare(voice, Options())
        assert first.trace == [pipeline.first_similarity(prepared)]
        assert first.trace != last.trace[:1], "the first step has noise"
        assert (first.settings.steps, last.settings.steps) == (1, 4)
        assert first.image != last.image
        assert torch.equal(faces.voice, prepared.voice.embedding)


def test_faces_under_conditions_are_those_of_the_changed_recordings(tiny_bundle, samples):
    pipeline = Pipeline.load(tiny_bundle, capacity=2)
    recordings = [Recording(samples / "slt.wav", "slt", "F"), Recording(samples / "rms.wav", "rms", "M", 1)]
    found, skipped = generate_all(pipeline, recordings, Plan(size=32, steps=2, conditions=("telephone", "noise")))
    assert not skipped
    for recording, faces in zip(recordings, found, strict=True):
        assert list(faces.conditions) == ["telephone", "noise"]
        changed = to_wav(CONDITIONS["telephone"](decode(recording.audio()), np.random.default_rng(0)))
        expected = generate_face(pipeline, changed, Options(steps=2, seed=0, size=32))
        assert faces.conditions["telephone"].trace == expected.trace
        assert len({face.image for face in (faces.kinds["last"], *faces.conditions.values())}) == 3
    # The random numbers of a recording depend on nothing else that is evaluated.
    alone, _ = generate_all(pipeline, recordings[1:], Plan(size=32, steps=2, conditions=("noise",)))
    assert alone[0].conditions["noise"].image == found[1].conditions["noise"].image
    # With a preset of which no kind of faces is, the faces to compare with are made too.
    fast, _ = generate_all(
        pipeline, recordings[:1], Plan(size=32, steps=2, conditions=("mp3",), condition_preset="fast")
    )
    assert list(fast[0].conditions) == ["none", "mp3"]
    assert {face.settings.preset for face in fast[0].conditions.values()} == {"fast"}
    assert {face.settings.preset for face in fast[0].kinds.values()} == {"default"}


def test_an_unusable_recording_is_left_out_and_named(tiny_bundle, samples, tmp_path):
    (tmp_path / "letter.txt").write_text("dear voice")
    recordings = [
        Recording(tmp_path / "letter.txt", "a", "F"),
        Recording(tmp_path / "letter.txt", "a", "F", 1),
        Recording(samples / "slt.wav", "b", "F"),
    ]
    finished = []

    def progress(faces, task):
        assert task == "generating faces"
        for number in faces:
            yield number
            finished.append(number)

    found, skipped = generate_all(Pipeline.load(tiny_bundle), recordings, Plan(size=32, steps=2), progress)
    assert finished == list(range(6))
    assert [faces is None for faces in found] == [True, True, False]
    assert set(skipped) == {"letter.txt", "letter.txt, half 1"}
    assert all("audio must be in a format" in reason for reason in skipped.values())


def test_a_recording_that_is_unusable_under_a_condition_is_left_out_there(tiny_bundle, tmp_path, samples):
    speech = np.resize(decode(samples / "slt.wav"), 19_500 * 16)  # the limit is 20 s
    (tmp_path / "long.wav").write_bytes(to_wav(speech))
    recordings = [Recording(tmp_path / "long.wav", "a", "F")]
    plan = Plan(size=32, steps=1, conditions=("faster", "slower"))
    found, skipped = generate_all(Pipeline.load(tiny_bundle), recordings, plan)
    assert list(found[0].conditions) == ["faster"]
    assert list(skipped) == ["long.wav, slower"]


def test_the_halves_of_a_recording_are_all_of_it(samples):
    whole = decode(samples / "slt.wav")
    halves = [Recording(samples / "slt.wav", "a", "F", part) for part in (1, 2)]
    assert [half.name for half in halves] == ["slt.wav, half 1", "slt.wav, half 2"]
    parts = [decode(half.audio()) for half in halves]
    assert np.array_equal(np.concatenate(parts), whole)
    assert len(parts[0]) == len(whole) // 2
    assert Recording(samples / "slt.wav", "a", "F").audio() == samples / "slt.wav"


@pytest.fixture
def table(tmp_path):
    """`table(row …)`: a folder with speakers.csv and an empty file for each row; returns the rows that are read."""

    def write(*rows: str) -> list:
        (tmp_path / "speakers.csv").write_text("\n".join(["file,speaker,sex", *rows]) + "\n")
        for row in rows:
            (tmp_path / row.split(",")[0]).touch()
        return read_speakers(tmp_path / "speakers.csv")

    return write


def test_two_recordings_of_each_speaker_are_used(tmp_path, table):
    listed = table("a1.wav,a,M", "b1.wav,b,F", "a2.wav,a,M", "a3.wav,a,M", "c1.wav,c,F")
    chosen = choose_recordings(listed, tmp_path)
    assert [(each.name, each.sex) for each in chosen] == [
        ("a1.wav", "M"),
        ("a2.wav", "M"),
        ("b1.wav, half 1", "F"),
        ("b1.wav, half 2", "F"),
        ("c1.wav, half 1", "F"),
        ("c1.wav, half 2", "F"),
    ]
    chosen = choose_recordings(listed, tmp_path, halves=False, per_sex=1)
    assert [each.name for each in chosen] == ["a1.wav", "a2.wav", "b1.wav"]
    (tmp_path / "x").mkdir()
    chosen = choose_recordings(table("x/1.wav,x,F", "1.wav,x,F"), tmp_path)
    assert [each.name for each in chosen] == ["x/1.wav", "1.wav"]
    (tmp_path / "c1.wav").unlink()
    with pytest.raises(EvaluationError, match=r"must contain the recording c1.wav, and does not"):
        choose_recordings(listed, tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "must have at least one row"),
        (["a.wav,a,x"], "line 2: must have a file, a speaker and F or M"),
        (["a.wav,,F"], "line 2: must have a file, a speaker and F or M"),
        (["a.wav,a,F", "b.wav,a,M"], "line 3: a speaker must have one sex, received both for a"),
    ],
)
def test_bad_tables_of_speakers(table, rows, message):
    with pytest.raises(EvaluationError, match=message):
        table(*rows)


def test_other_tables_of_speakers_are_errors(tmp_path):
    with pytest.raises(EvaluationError, match=r"speakers.csv must be a table file,speaker,sex .* it does not exist"):
        read_speakers(tmp_path / "speakers.csv")
    (tmp_path / "speakers.csv").write_text("path,who\n")
    with pytest.raises(EvaluationError, match=r"must have the columns file, speaker, sex, received \['path', 'who'\]"):
        read_speakers(tmp_path / "speakers.csv")
    (tmp_path / "speakers.csv").write_bytes("file,speaker,sex\na.wav,Zoë,F\n".encode("latin-1"))
    with pytest.raises(EvaluationError, match=r"speakers.csv must be a table in UTF-8"):
        read_speakers(tmp_path / "speakers.csv")


def test_the_demo_has_twenty_held_out_speakers_of_each_sex():
    listed = held_out_speakers(ASSETS)
    assert sorted(row.sex for row in listed) == ["F"] * 20 + ["M"] * 20
    assert len({row.speaker for row in listed}) == 40


def test_light():
    pixels = np.full((100, 100, 3), 10)
    pixels[50:66, 33:50] = (200, 100, 50)
    pixels[50:66, 50:67] = 40
    light = Light.of(png(pixels))
    left = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert light.skin == pytest.approx((left + 40) / 2)
    assert light.side == pytest.approx(left - 40)
    assert light.brightness == pytest.approx(10 + 0.16 * 0.17 * (left - 10 + 30))


class FakeRecogniser:
    """The mean colour of the quarters of an image, as a unit vector."""

    name = "mean colours"

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        assert tuple(images.shape[1:]) == (3, 256, 256)
        return torch.nn.functional.normalize(torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1))


def fake_judge(faces):
    """Takes first faces and every second face of the bank for a woman's, all others for a man's."""
    assert all(face.is_file() for face in faces)
    women = [face.stem.endswith(("_first", "_0000", "_0002")) for face in faces]
    return [Judgement("MF"[woman], 0.9, 30.0 + woman) for woman in women]


@pytest.fixture
def recordings(samples):
    """Halves of three recordings, of two sexes."""
    people = (("slt", "F"), ("rms", "M"), ("awb", "M"))
    return [Recording(samples / f"{name}.wav", name, sex, part) for name, sex in people for part in (1, 2)]


@pytest.fixture
def evaluation(tiny_bundle, tmp_path):
    return GenerationEvaluation(
        tiny_bundle,
        tmp_path / "out",
        FakeRecogniser(),
        fake_judge,
        "a fake",
        Bootstrap(100),
        bank_faces=4,
        figure=tmp_path / "figure.jpg",
        steps=3,
    )


def test_the_section_of_generated_faces(evaluation, recordings, tmp_path):
    section = evaluation.run(recordings)
    assert (section.bundle, section.steps, section.face_seed, section.speakers) == ("tiny@7", 3, 0, 3)
    assert section.networks.loss == "voice and face encoder of tiny@7"
    assert section.networks.loss_sources == ("made in the tests",)
    assert (section.networks.recogniser, section.networks.sex_and_age) == ("mean colours", "a fake")
    rows = section.rows
    assert [row.recording for row in rows] == [recording.name for recording in recordings]
    assert [(row.speaker, row.number) for row in rows] == [(r.speaker, i // 2 + 1) for i, r in enumerate(recordings)]
    assert list(section.faces) == ["first", "last"]
    first, last = section.faces["first"], section.faces["last"]
    assert first.sex.table == {"F": {"F": 2, "M": 0}, "M": {"F": 4, "M": 0}}
    assert last.sex.table == {"F": {"F": 0, "M": 2}, "M": {"F": 0, "M": 4}}
    assert last.sex.agreement.value == pytest.approx(4 / 6)
    assert {sex: share.value for sex, share in last.sex.agreement_by_sex.items()} == {"F": 0, "M": 1}
    assert (first.sex.youngest, last.sex.youngest) == (31, 30)
    assert (first.skin, first.brightness, first.side_light) == (None, None, None)
    changes = np.array([row.faces["last"].skin - row.faces["first"].skin for row in rows])
    assert last.skin.mean.value == pytest.approx(changes.mean())
    assert last.skin.mean_absolute.value == pytest.approx(np.abs(changes).mean())
    assert last.skin.largest_absolute == pytest.approx(np.abs(changes).max())
    assert (last.consistency.speakers, last.consistency.halves) == (3, True)
    assert last.consistency.nearest_chance == pytest.approx(1 / 5)
    for kind, figures in section.faces.items():
        assert figures.similarity.value == pytest.approx(np.mean([row.faces[kind].similarity for row in rows]))
        images = [(tmp_path / "out" / row.faces[kind].file).read_bytes() for row in rows]
        vectors = embed_faces(FakeRecogniser(), images)
        faces = FacesOfSpeakers(vectors, [r.speaker for r in rows], [r.sex for r in rows])
        assert figures.consistency == measure_consistency(faces, Bootstrap(100), halves=True)
        men = vectors[2:] @ vectors[2:].T
        assert list(figures.between_speakers_by_sex) == ["M"]  # there is one woman
        assert figures.between_speakers_by_sex["M"].value == pytest.approx(men[:2, 2:].mean())
        for row, image in zip(rows, images, strict=True):
            assert Light.of(image).skin == pytest.approx(row.faces[kind].skin)
            assert Image.open(io.BytesIO(image)).size == (64, 64)
    bank = [path.read_bytes() for path in sorted((tmp_path / "out" / "faces").glob("bank_*.png"))]
    assert section.bank.count == len(bank) == 4
    cosines = (vectors := embed_faces(FakeRecogniser(), bank)) @ vectors.T
    assert section.bank.between_by_sex == pytest.approx({"F": cosines[0, 2], "M": cosines[1, 3]})
    assert section.bank.between_of_one_sex == pytest.approx((cosines[0, 2] + cosines[1, 3]) / 2)
    assert section.distinct_prototype_sets == len({tuple(sorted(row.prototypes)) for row in rows})
    assert (section.conditions, section.sensitivity) == (None, None)
    assert Image.open(tmp_path / "figure.jpg").size[0] > 0


def test_conditions_and_sensitivity_are_measured_on_the_same_faces(evaluation, recordings, tmp_path):
    plain = evaluation.run(recordings[:4])
    section = replace(evaluation, conditions=("telephone", "slower"), sensitivity=True).run(recordings[:4])
    assert section.faces == plain.faces
    assert (section.conditions.preset, section.conditions.steps) == ("default", 3)
    figures = section.conditions.figures
    assert list(figures) == ["none", "telephone", "slower"]
    assert figures["none"].sex == section.faces["last"].sex
    assert figures["none"].to_clean.value == pytest.approx(1)
    images = {
        name: [(tmp_path / "out" / row.conditions[name].file).read_bytes() for row in section.rows]
        for name in ("telephone", "slower")
    }
    last = embed_faces(FakeRecogniser(), [(tmp_path / "out" / r.faces["last"].file).read_bytes() for r in section.rows])
    for name, found in images.items():
        cosines = (embed_faces(FakeRecogniser(), found) * last).sum(axis=1)
        assert figures[name].to_clean.value == pytest.approx(cosines.mean())
        assert figures[name].sex.table == {"F": {"F": 0, "M": 2}, "M": {"F": 0, "M": 2}}
        similarity = [row.conditions[name].similarity for row in section.rows]
        assert figures[name].similarity.value == pytest.approx(np.mean(similarity))
    assert section.sensitivity.faces == 4
    # One woman and one man: nobody else of one sex.
    assert (section.sensitivity.another_speaker_of_one_sex, section.sensitivity.background) == (None, None)
    assert min(getattr(section.sensitivity, name).value for name in ("light", "colour", "another_speaker")) > 0


def test_instant_faces_need_a_mapper(evaluation, recordings):
    for asked in ({"instant": True}, {"conditions": ("mp3",), "condition_preset": "instant"}):
        with pytest.raises(EvaluationError, match=r"need a bundle with a mapper \(mapper.pt\), received tiny@7"):
            replace(evaluation, **asked).run(recordings)


def test_instant_faces_stand_beside_first_and_last(evaluation, recordings, mapper_bundle, tmp_path):
    sheet = tmp_path / "sheet.jpg"
    asked = replace(
        evaluation, bundle=mapper_bundle, instant=True, conditions=("mp3",), condition_preset="instant", sheet=sheet
    )
    section = asked.run(recordings[:4])
    assert list(section.faces) == ["first", "instant", "last"]
    pipeline = Pipeline.load(mapper_bundle)
    for row, recording in zip(section.rows, recordings[:4], strict=True):
        expected = generate_face(pipeline, recording.audio(), Options(preset="instant", seed=0, size=64))
        assert row.faces["instant"].similarity == pytest.approx(expected.similarity, abs=1e-6)
        assert row.faces["instant"].similarity != row.faces["first"].similarity
        assert list(row.conditions) == ["mp3"]  # each face is made once
    instant = section.faces["instant"]
    changes = [row.faces["instant"].skin - row.faces["first"].skin for row in section.rows]
    assert instant.skin.mean.value == pytest.approx(np.mean(changes))
    assert (section.conditions.preset, section.conditions.steps) == ("instant", 0)
    assert section.conditions.figures["none"].sex == instant.sex
    page = write_report(tmp_path / "out", generation=section).read_text()
    assert page.count('alt="instant face"') == 4
    with Image.open(sheet) as image:
        assert image.size == (2 * (3 * 96 + 14) + 14, 18 + 2 * 96 + 14 + 18 + 14)
    assert list(read_report(tmp_path / "out").generation.faces) == ["first", "instant", "last"]


@pytest.mark.long
def test_a_report_is_read_as_it_was_written_and_the_same_run_gives_the_same_bytes(evaluation, recordings, tmp_path):
    page = write_report(tmp_path / "out", generation=evaluation.run(recordings))
    first = (tmp_path / "out" / "report.json").read_bytes(), page.read_bytes()
    generation = read_report(tmp_path / "out").generation
    assert generation is not None
    judged = {kind: face.judged for kind, face in generation.rows[0].faces.items()}
    assert judged == {"first": Judgement("F", 0.9, 31.0), "last": Judgement("M", 0.9, 30.0)}
    write_report(tmp_path / "out", generation=evaluation.run(recordings))
    assert ((tmp_path / "out" / "report.json").read_bytes(), page.read_bytes()) == first


def test_one_face_has_neither_consistency_nor_intervals(evaluation, recordings):
    section = replace(evaluation, judge=None).run(recordings[:1])
    last = section.faces["last"]
    assert (last.consistency, last.sex, section.networks.sex_and_age) == (None, None, None)
    assert (last.between_speakers, last.between_speakers_by_sex) == (None, {})
    assert last.similarity.low is None
    assert (section.bank.between_of_one_sex, section.bank.between_by_sex) == (None, {})


def test_no_usable_recording_is_an_error(evaluation, tmp_path):
    (tmp_path / "letter.txt").write_text("dear voice")
    with pytest.raises(EvaluationError, match=r"at least one recording must be usable, received: .*letter.txt"):
        evaluation.run([Recording(tmp_path / "letter.txt", "a", "F")])


def test_the_judge_is_named_with_its_version():
    assert judge_name() == "age and sex network of @vladmandic/face-api 1.7.15"


def test_the_figure_puts_first_faces_left_of_last_faces(tmp_path: Path):
    write_figure(tmp_path / "figure", [(png(np.zeros((64, 64, 3))), png(np.full((64, 64, 3), 255)))] * 8, edge=40)
    with Image.open(tmp_path / "figure") as figure:
        assert figure.format == "JPEG"
        sheet = np.asarray(figure.convert("L"))
    assert sheet.shape == (2 * 44 - 4, 4 * 84 - 4)
    assert sheet[20, 20] < 10
    assert sheet[20, 60] > 245
