"""A tiny training writes files that cmpc2 and `voicestyle bundle published` read."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import cmpc2
from benchmarks.networks import stylegan2_weights
from cmpc2.memory import read_memory
from voicestyle.generators.stylegan2 import StyleGAN2Config
from voicestyle.offline import generate_faces
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline
from voicestyle.published import PublishedFiles, PublishedOptions, build_published_bundle
from voicestyle.training.cmpc import CmpcOptions
from voicestyle.training.cmpc_training import CmpcTraining
from voicestyle.training.errors import TrainingDataError
from voicestyle.training.published_files import embed_videos
from voicestyle.training.trainer import LoopOptions
from voicestyle.training.training_options import TrainingOptions
from voicestyle.training.video_batches import DataOptions
from voicestyle.training.videos import find_folders, read_videos

LEVELS = (4, 7)
GENERATOR = StyleGAN2Config(size=64, max_width=12)


@pytest.fixture
def trained(videos_folder, tmp_path, tiny):
    """(training, trainer) after two epochs on videos of which the first one has no images."""
    folder = videos_folder(videos=13)
    for image in (folder / "faces" / "Person_0" / "1.6" / "video_000").iterdir():
        image.unlink()
    table = read_videos(folder / "training.csv", *find_folders(folder), skip_missing=True)
    options = TrainingOptions(
        DataOptions(batch=6, image_size=32, frames=40, workers=0),
        CmpcOptions(levels=LEVELS, warm_up_epochs=1),
        LoopOptions(2),
        tiny,
        tiny,
    )
    output = tmp_path / "trained"
    output.mkdir()
    training = CmpcTraining(table, output, options)
    trainer = training.trainer()
    training.run(trainer, lambda *_: None)
    return training, trainer


def test_cmpc2_reads_the_encoders_and_the_memory(trained, tiny):
    training, trainer = trained
    model = cmpc2.load(training.output / "cmpc.pth.tar", tiny, tiny)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    paths = (training.output / "frame_memory.pth.tar", training.output / "training.csv")
    for level in LEVELS:
        memory = read_memory(*paths, level)
        assert memory.centroids.shape == (level, 16)
        assert len(memory.videos) == len(training.table.videos) == 12
        assert memory.videos[0] == "Person_1/1.6/video_001"
    voice = cmpc2.load_voice(40)(training.table.videos[5].voice_files()[0])
    with torch.inference_mode():
        embedding = model.encode_voice(voice[None])
    nearest = cmpc2.getKNearestSamples(embedding, *paths, cluster=7, K=2)
    memory = read_memory(*paths, 7)
    chosen = (F.normalize(memory.centroids) @ F.normalize(embedding)[0]).topk(2).indices
    expected = [v for v, k in zip(memory.videos, memory.assignments.tolist(), strict=True) if k in chosen]
    assert nearest == expected


def test_the_memory_has_the_faces_of_the_final_encoder(trained):
    training, trainer = trained
    embeddings = embed_videos(trainer.model, training.table.videos, training.options.data, images=2)
    memory = read_memory(training.output / "frame_memory.pth.tar", training.output / "training.csv", 7)
    own = memory.centroids[memory.assignments]
    assert torch.equal((embeddings @ memory.centroids.T).argmax(1), memory.assignments)
    assert float((embeddings * own).sum(1).min()) > 0
    one = torch.stack([cmpc2.visual_preprocess(32)(path) for path in training.table.videos[3].face_files()])
    with torch.inference_mode():
        mean = F.normalize(trainer.model.encode_face(one)).mean(0)
    torch.testing.assert_close(embeddings[3], F.normalize(mean, dim=0))


def test_workers_change_no_embedding_and_report_bad_images(trained):
    training, trainer = trained
    videos, options = training.table.videos, training.options.data
    one = embed_videos(trainer.model, videos, options, images=1)
    assert torch.equal(embed_videos(trainer.model, videos, replace(options, workers=1), images=1), one)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(videos[2].faces / "0000000.png")
    assert not torch.equal(embed_videos(trainer.model, videos, options, images=1)[2], one[2])
    (videos[2].faces / "0000000.png").write_bytes(b"")
    with pytest.raises(TrainingDataError, match="must be an image"):
        embed_videos(trainer.model, videos, options, images=1)


def test_the_trained_files_become_a_bundle_and_a_face(trained, tiny, tmp_path, samples):
    training, _ = trained
    torch.save({"g_ema": stylegan2_weights(GENERATOR, 0)}, tmp_path / "generator.pt")
    with (training.output / "training.csv").open(newline="") as file:
        videos = [f"{row['VGGFace1 ID']}/1.6/{row['video_id']}" for row in csv.DictReader(file)]
    torch.save({"latents": torch.randn(len(videos), 512), "videos": videos}, tmp_path / "latents.pt")
    names = ("cmpc.pth.tar", "frame_memory.pth.tar", "training.csv")
    files = PublishedFiles(
        *(training.output / name for name in names), tmp_path / "generator.pt", tmp_path / "latents.pt"
    )
    build_published_bundle(tmp_path / "bundle", files, PublishedOptions(level=7, encoder_size=32, encoders=tiny))
    pipeline = Pipeline.load(tmp_path / "bundle")
    options = Options(steps=3)
    faces = dict(generate_faces(pipeline, [("face", pipeline.prepare(samples / "slt.wav", options))]))
    assert len(faces["face"].trace) == 3
