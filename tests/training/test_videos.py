"""The CSV of the training videos, and the published layouts of their folders."""

import shutil

import pytest
import torch

from cmpc2.memory import read_memory
from voicestyle.training.errors import TrainingDataError
from voicestyle.training.videos import find_folders, read_videos


def read(folder, **options):
    return read_videos(folder / "training.csv", *find_folders(folder), **options)


def test_videos_come_in_the_order_of_the_csv(videos_folder):
    table = read(videos_folder())
    assert [video.video for video in table.videos] == [f"video_{number:03}" for number in range(12)]
    assert [path.name for path in table.videos[7].voice_files()] == ["00001.npy"]
    assert [path.name for path in table.videos[7].face_files()] == ["0000000.png", "0000001.png"]
    assert table.skipped == 0


def test_photographs_are_shared_by_the_videos_of_a_person(videos_folder):
    folder = videos_folder()
    for person in (folder / "faces").iterdir():
        for image in sorted(person.rglob("*.png")):
            shutil.move(image, person / f"{image.parent.name}_{image.name}")
    (folder / "faces").rename(folder / "VGG_ALL_FRONTAL")
    first, _, _, _, _, _, seventh, *_ = read(folder).videos
    assert first.name == seventh.name == "Person_0"
    assert first.face_files() == seventh.face_files()
    assert len(first.face_files()) == 4


def test_voices_by_name_without_a_column_of_speakers(videos_folder):
    folder = videos_folder()
    for number in range(6):
        (folder / "voices" / f"id{number:05}").rename(folder / "voices" / f"Person_{number}")
    lines = (folder / "training.csv").read_text().splitlines()
    kept = [",".join(line.split(",")[i] for i in (0, 3)) for line in lines]
    (folder / "training.csv").write_text("\n".join(kept) + "\n")
    assert len(read(folder).videos) == 12


def test_log_mels_go_before_recordings(videos_folder):
    folder = videos_folder()
    video = read(folder).videos[0]
    (video.voices / "00000.wav").touch()
    assert [path.suffix for path in video.voice_files()] == [".npy"]
    (video.voices / "00001.npy").unlink()
    assert [path.suffix for path in video.voice_files()] == [".wav"]


def test_missing_files_are_counted_before_the_training_starts(videos_folder):
    folder = videos_folder()
    for number in (1, 7):
        shutil.rmtree(folder / "voices" / "id00001" / f"video_{number:03}")
    shutil.rmtree(folder / "faces" / "Person_3" / "1.6" / "video_003")
    with pytest.raises(TrainingDataError) as caught:
        read(folder)
    message = str(caught.value)
    assert "2 of 12 have no recordings, e.g. " in message
    assert "id00001/video_001" in message
    assert "1 of 12 have no images" in message
    assert "\n" not in message
    table = read(folder, skip_missing=True)
    assert [video.video[-1] for video in table.videos[:4]] == ["0", "2", "4", "5"]
    assert table.skipped == 3
    shutil.rmtree(folder / "voices")
    (folder / "voices").mkdir()
    with pytest.raises(TrainingDataError, match="12 of 12 have no recordings"):
        read(folder, skip_missing=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("video_id", "video", "must have the columns VGGFace1 ID and video_id"),
        ("video_003", "", "row 4 must have 4 values"),
        (",1,id00003,video_003", "", "row 4 must have 4 values"),
        ("Person_3,1,id00003,video_003", "Person_0,1,id00000,video_000", "row 4 repeats Person_0/video_000"),
        ("Person_3", "../Person_3", "names of row 4 must be names of folders"),
    ],
)
def test_an_unusable_csv_is_one_error(videos_folder, old, new, message):
    folder = videos_folder()
    text = (folder / "training.csv").read_text()
    (folder / "training.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(TrainingDataError, match=message):
        read(folder)


def test_an_empty_or_binary_csv_is_one_error(videos_folder):
    folder = videos_folder()
    header = (folder / "training.csv").read_text().splitlines()[0]
    (folder / "training.csv").write_text(header)
    with pytest.raises(TrainingDataError, match="it has none"):
        read(folder)
    (folder / "training.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingDataError, match="must be a CSV in UTF-8"):
        read(folder)


def test_a_folder_without_faces_is_one_error(videos_folder):
    folder = videos_folder()
    (folder / "faces").rename(folder / "pictures")
    with pytest.raises(TrainingDataError, match="must contain the faces in a folder named faces or"):
        find_folders(folder)


def test_the_written_csv_belongs_to_the_memory(videos_folder, tmp_path):
    table = read(videos_folder())
    table.write(tmp_path / "written.csv")
    torch.save({"centroids": [torch.eye(3)], "inst2cluster": [torch.arange(12) % 3]}, tmp_path / "memory.pt")
    videos = read_memory(tmp_path / "memory.pt", tmp_path / "written.csv", 3).videos
    assert videos[4] == "Person_4/1.6/video_004"
