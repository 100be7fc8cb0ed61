"""The shard function: the same bytes wherever its files are; videos choose; results are complete."""

import numpy as np
import pytest
from PIL import Image

from tests.support.fake_bank_tools import open_fakes, write_photographs
from voicestyle.bank_builder import BankError
from voicestyle.bank_builder.build import _task
from voicestyle.bank_builder.plan import Plan
from voicestyle.bank_builder.shard import Shard, decode, encode, thumbnail
from voicestyle.bank_builder.shard_task import run_shard
from voicestyle.bank_builder.sources import find_sources


def task_of(sources):
    (groups,) = Plan(settings={}, shard_size=10**6, groups=sources.groups).shards()
    return _task("digest", 0, groups, sources)


def run(task, on_result=lambda: None, **options):
    return decode(run_shard(task, open_fakes({}, **options), on_result), "shard")


@pytest.fixture
def photographs(tmp_path):
    return write_photographs(tmp_path / "photographs", 7)


def test_every_photograph_has_a_result_and_is_counted_once(photographs):
    counted = []
    (photographs / "nan.png").write_bytes((photographs / "000.png").read_bytes())
    (photographs / "broken.jpg").write_bytes(b"no image")
    shard = run(task_of(find_sources([photographs])), lambda: counted.append(1))
    assert [item.key for item in shard.photographs] == [*(f"00{n}.png" for n in range(7)), "broken.jpg", "nan.png"]
    assert {item.key: item.rejected for item in shard.photographs if item.rejected} == {
        "003.png": "brightness must be at least 50, received 4.5",
        "broken.jpg": "must be an intact image",
        "nan.png": "the inversion must end with a finite latent, it did not",
    }
    assert len(counted) == 9
    kept = shard.photographs[0]
    assert kept.inverted.array().shape == (512,)
    assert kept.figures["faces"] == 1
    assert kept.inverted.losses["pixels"][0] == 1.0
    assert shard.photographs[3].aligned
    assert shard.photographs[7].aligned is None


def test_contents_give_the_bytes_that_paths_give(photographs):
    task = task_of(find_sources([photographs]))
    carried = task.with_contents()
    assert all(file.path is None and file.content for file in carried.photographs.values())
    assert run_shard(carried, open_fakes({})) == run_shard(task, open_fakes({}))


def test_a_changed_file_is_an_error(photographs):
    task = task_of(find_sources([photographs]))
    (photographs / "005.png").write_bytes((photographs / "004.png").read_bytes())
    with pytest.raises(BankError, match="must not change during a build, '005.png' did"):
        run(task)


@pytest.fixture
def videos(tmp_path):
    """Ann has a red, a blue and a dark photograph; her first video is reddish, her second one blue; Bob has none."""
    colours = {"Ann/red": (220, 10, 10), "Ann/blue": (10, 10, 240), "Ann/dark": (1, 1, 1), "Ann/grey": (120, 120, 120)}
    for name, colour in colours.items():
        path = tmp_path / "photographs" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), colour).save(path)
    frames = {"Ann/1.6/v1": [(9, 9, 9), (200, 40, 40)], "Ann/1.6/v2": [(30, 20, 200)], "Ann/1.6/v3": [(200, 0, 0)]}
    for key, shown in frames.items():
        folder = tmp_path / "frames" / key
        folder.mkdir(parents=True)
        for number, colour in enumerate(shown):
            Image.new("RGB", (24, 24), colour).save(folder / f"{number}.jpg")
    (tmp_path / "training.csv").write_text("VGGFace1 ID,video_id\nAnn,v1\nAnn,v2\nAnn,v3\nAnn,v4\nBob,x\n")
    return find_sources([tmp_path / "photographs"], tmp_path / "training.csv", tmp_path / "frames")


def test_videos_choose_and_only_the_chosen_are_inverted(videos, tmp_path):
    counted, diary = [], tmp_path / "diary"
    shard = run(task_of(videos), lambda: counted.append(1), videos=True, diary=diary)
    chosen = {video.key: (video.photograph, video.rejected) for video in shard.videos}
    assert chosen == {
        "Ann/1.6/v1": ("Ann/grey.png", None),  # its grey frame has the largest cosine
        "Ann/1.6/v2": ("Ann/blue.png", None),
        "Ann/1.6/v3": ("Ann/red.png", None),
        "Ann/1.6/v4": (None, "there must be frames of the video, got none"),
        "Bob/1.6/x": (None, "there must be frames of the video, got none"),
    }
    assert sorted(diary.read_text().split()) == ["Ann/blue.png", "Ann/grey.png", "Ann/red.png"]
    assert {item.key: item.chosen_by for item in shard.photographs} == {
        "Ann/blue.png": 1,
        "Ann/dark.png": 0,
        "Ann/grey.png": 1,
        "Ann/red.png": 1,
    }
    assert len(counted) == 4


def test_a_video_without_usable_photographs_has_a_reason(videos, tmp_path):
    for name in ("red", "blue", "grey"):
        Image.new("RGB", (24, 24), (1, 1, 1)).save(tmp_path / "photographs" / "Ann" / f"{name}.png")
    again = find_sources([tmp_path / "photographs"], tmp_path / "training.csv", tmp_path / "frames")
    shard = run(task_of(again), videos=True)
    assert shard.videos[0].rejected == "there must be a usable photograph of the person, got none"


def test_videos_need_a_chooser(videos):
    with pytest.raises(ValueError, match="videos need a chooser"):
        run(task_of(videos))


def test_a_shard_is_damaged_or_whole():
    content = encode(Shard("plan", 3, [], []))
    assert decode(content, "x").number == 3
    for damaged in (content[:-1], content[:40] + b"\0" + content[41:], b""):
        with pytest.raises(BankError, match="x must have the sha256 that it begins with"):
            decode(damaged, "x")


def test_thumbnails_are_small_and_equal():
    pixels = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    assert thumbnail(pixels) == thumbnail(pixels.copy())
    smooth = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 256, 3))
    assert len(thumbnail(np.ascontiguousarray(smooth))) < 3000
