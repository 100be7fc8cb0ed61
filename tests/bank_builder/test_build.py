"""A build: the same bytes whatever shards, workers and interruptions; nothing is done twice; one build at a time."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from tests.support.fake_bank_tools import fake_toolbox, open_fakes, write_photographs
from voicestyle.bank_builder import BankError, BankOptions, build_bank, rewrite_report
from voicestyle.bank_builder.executors import Toolbox
from voicestyle.bank_builder.folder import BankFolder
from voicestyle.bundle import sha256
from voicestyle.inverted_latents import read_latents

ROOT = Path(__file__).parents[2]
COUNT = 23
KEPT = 19  # every fifth photograph is rejected


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"), COUNT)


def build(photographs, folder, toolbox=None, progress=lambda counts: None, **options):
    return build_bank(BankOptions((photographs,), folder, **options), progress, toolbox or fake_toolbox())


@pytest.fixture(scope="module")
def undisturbed(photographs, tmp_path_factory):
    return build(photographs, tmp_path_factory.mktemp("bank"))


def assert_same(built, undisturbed):
    assert built.latents.read_bytes() == undisturbed.latents.read_bytes()
    assert built.bank.read_bytes() == undisturbed.bank.read_bytes()


def test_the_bank_has_the_published_form(undisturbed):
    latents = read_latents(undisturbed.latents)
    assert latents.latents.shape == (KEPT, 512)
    assert latents.videos == tuple(f"{n:03d}.png" for n in range(COUNT) if n % 5 != 3)
    content = torch.load(undisturbed.latents, weights_only=True)
    assert content["latents"].dtype == torch.float32


def test_the_description_says_where_the_latents_come_from(undisturbed):
    description = msgspec.json.decode(undisturbed.bank.read_bytes())
    assert description["loss"] == "fake loss"
    assert description["detector"] == "fake detector"
    assert description["settings"]["steps"] == 300
    assert description["latents"] == sha256(undisturbed.latents)
    assert description["photographs"]["kept"] == KEPT
    assert description["photographs"]["rejected"] == {"brightness must be at least 50, received …": COUNT - KEPT}
    for path in undisturbed.latents.parent.rglob("*"):
        if path.is_file():
            assert str(ROOT).encode() not in path.read_bytes()
            assert str(path.parent.parent).encode() not in path.read_bytes()
    assert "19 of 23 photographs kept, 4 rejected" in str(undisturbed)


@pytest.mark.parametrize("shard_size", [1, 5, 100])
def test_other_shards_give_the_same_bytes(photographs, undisturbed, tmp_path, shard_size):
    assert_same(build(photographs, tmp_path, shard_size=shard_size), undisturbed)


def test_other_places_give_the_same_bytes(photographs, undisturbed, tmp_path):
    (tmp_path / "moved").symlink_to(photographs)
    assert_same(build(tmp_path / "moved", tmp_path / "bank"), undisturbed)


@pytest.mark.long
def test_two_workers_give_the_same_bytes(photographs, undisturbed, tmp_path):
    assert_same(build(photographs, tmp_path, shard_size=4, workers=2), undisturbed)


@pytest.mark.long
def test_a_killed_worker_is_an_error_and_the_build_continues(photographs, undisturbed, tmp_path):
    with pytest.raises(BankError, match="one of 2 was killed.*run again"):
        build(photographs, tmp_path, fake_toolbox(crash_on="020.png"), shard_size=4, workers=2)
    assert_same(build(photographs, tmp_path, shard_size=4), undisturbed)


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def start(photographs, folder, diary, workers):
    command = [sys.executable, "-m", "tests.support.bank_process", photographs, folder, diary, str(workers), "0.1"]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


@pytest.mark.long
def test_a_build_that_is_killed_three_times_gives_the_same_bytes_and_does_nothing_twice(
    photographs, undisturbed, tmp_path
):
    diary, folder = tmp_path / "diary", tmp_path / "bank"
    diary.touch()
    source = random.Random(11)
    finished: set[str] = set()
    for workers in (1, 2, 1):
        before = len(diary.read_text().split())
        until = before + source.randrange(2, 5)
        process = start(photographs, folder, diary, workers)
        wait_until(lambda until=until: len(diary.read_text().split()) >= until)
        started = [process.pid, *children_of(process.pid)]
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        wait_until(lambda started=started: not any(Path(f"/proc/{pid}").exists() for pid in started))
        assert not finished & set(diary.read_text().split()[before:])  # a finished shard is not done again
        shards = sorted(int(path.stem) for path in (folder / "shards").glob("[0-9]*.shard"))
        finished = {f"{n:03d}.png" for shard in shards for n in range(3 * shard, 3 * shard + 3)}
    before = len(diary.read_text().split())
    assert_same(build(photographs, folder, fake_toolbox(diary=diary), shard_size=3), undisturbed)
    done = diary.read_text().split()
    assert not finished & set(done[before:])
    assert set(done) == {f"{n:03d}.png" for n in range(COUNT) if n % 5 != 3}
    assert max(Counter(done).values()) <= 4  # a photograph is begun again only if its shard was not finished


def test_a_finished_build_does_nothing_again(photographs, undisturbed, tmp_path):
    diary = tmp_path / "diary"
    build(photographs, tmp_path / "bank", fake_toolbox(diary=diary))
    first = diary.read_text()
    counts = []
    assert_same(build(photographs, tmp_path / "bank", fake_toolbox(diary=diary), counts.append), undisturbed)
    assert diary.read_text() == first
    assert [(count.done, count.resumed) for count in counts] == [(COUNT, COUNT)]


def test_progress_counts_photographs_and_rejections_are_logged(photographs, tmp_path, caplog):
    counts = []
    build(photographs, tmp_path, progress=counts.append, shard_size=4)
    done = [count.done for count in counts]
    assert done[0] == 0
    assert done == sorted(done)
    assert set(done) == set(range(COUNT + 1))
    assert (counts[-1].kept, counts[-1].rejected) == (KEPT, COUNT - KEPT)
    assert [record.getMessage() for record in caplog.records if "'013.png'" in record.getMessage()] == [
        "'013.png': brightness must be at least 50, received 4.6"
    ]


def test_other_options_or_files_are_refused_until_restart(tmp_path):
    photographs = write_photographs(tmp_path / "photographs", 4)
    build(photographs, tmp_path / "bank")
    with pytest.raises(BankError, match="steps is 300 there and 20 now"):
        build(photographs, tmp_path / "bank", steps=20)
    (photographs / "000.png").write_bytes((photographs / "001.png").read_bytes())
    with pytest.raises(BankError, match="1 photograph changed, the first is '000.png'"):
        build(photographs, tmp_path / "bank")
    built = build(photographs, tmp_path / "bank", restart=True, shard_size=2)
    assert_same(built, build(photographs, tmp_path / "other"))


def test_a_weight_file_is_part_of_the_plan(photographs, tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"one")
    built = build(photographs, tmp_path / "bank", fake_toolbox({"vgg": weights}))
    assert built.description.settings["sha256 of vgg"] == sha256(weights)
    weights.write_bytes(b"two")
    with pytest.raises(BankError, match="sha256 of vgg is"):
        build(photographs, tmp_path / "bank", fake_toolbox({"vgg": weights}))


def test_a_second_build_on_the_folder_is_refused_and_a_dead_one_is_not(photographs, tmp_path):
    with BankFolder(tmp_path).locked(), pytest.raises(BankError, match=f"the first is process {os.getpid()}"):
        build(photographs, tmp_path)
    (tmp_path / "lock").write_text("process 1")  # what a killed process leaves behind
    build(photographs, tmp_path)


def test_drafts_of_a_killed_run_are_removed(photographs, tmp_path):
    build(photographs, tmp_path)
    draft = tmp_path / "shards" / ".000000.shard.77.part"
    draft.write_bytes(b"half")
    build(photographs, tmp_path)
    assert not draft.exists()


def test_a_damaged_or_foreign_shard_is_an_error(photographs, tmp_path):
    build(photographs, tmp_path)
    shard = tmp_path / "shards" / "000001.shard"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(BankError, match=r"000001.shard must have the sha256.*remove it and run again"):
        build(photographs, tmp_path)
    shard.write_bytes((tmp_path / "shards" / "000000.shard").read_bytes())
    with pytest.raises(BankError, match="must be shard 1 of"):
        build(photographs, tmp_path)
    shard.unlink()
    with pytest.raises(BankError, match="must hold all shards of its plan, 1 are missing"):
        rewrite_report(tmp_path)
    build(photographs, tmp_path)
    assert shard.read_bytes() == content


def test_a_folder_without_a_build_has_no_report(tmp_path):
    with pytest.raises(BankError, match="must be the folder of a bank build"):
        rewrite_report(tmp_path)


def test_tools_are_made_with_the_threads_of_the_shards(photographs, tmp_path):
    """The mean latent is a sum, whose rounding depends on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    seen = []

    def open_tools(files):
        seen.append(torch.get_num_threads())
        return open_fakes(files)

    try:
        build(photographs, tmp_path, Toolbox(open_tools, {}), threads=2)
        seen.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert seen == [2, 3]


def test_w_plus_gives_a_latent_for_each_layer(tmp_path):
    photographs = write_photographs(tmp_path / "photographs", 2)
    built = build(photographs, tmp_path / "bank", fake_toolbox(layers=14), w_plus=True)
    assert torch.load(built.latents)["latents"].shape == (2, 14, 512)
    assert built.description.settings["w_plus"] is True


def test_a_bank_without_latents_is_an_error_with_the_reasons(tmp_path):
    (tmp_path / "photographs").mkdir()
    for name in "ab":
        (tmp_path / "photographs" / f"{name}.jpg").write_bytes(b"")
    with pytest.raises(BankError, match="none of 2 photographs: 2 × must be an intact image"):
        build(tmp_path / "photographs", tmp_path / "bank")


def test_videos_share_the_latent_of_their_photograph(tmp_path):
    write_photographs(tmp_path / "photographs" / "Ann", 1)
    for video in ("v1", "v2"):
        write_photographs(tmp_path / "frames" / "Ann" / "1.6" / video, 2)
    (tmp_path / "training.csv").write_text("VGGFace1 ID,video_id\nAnn,v2\nAnn,v1\nAnn,v3\n")
    options = {"csv": tmp_path / "training.csv", "frames": tmp_path / "frames"}
    built = build(tmp_path / "photographs", tmp_path / "bank", fake_toolbox(videos=True), **options)
    found = read_latents(built.latents)
    assert found.videos == ("Ann/1.6/v1", "Ann/1.6/v2")
    assert np.array_equal(*found.latents)
    assert built.description.videos.rejected == {"there must be frames of the video, got none": 1}
    assert built.description.settings["replacement"] == "mean colour"
    assert "2 of 3 videos with a latent" in str(built)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"shard_size": 0}, "shard_size must be at least 1, got 0"),
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, got int8"),
        ({"csv": Path("a.csv")}, "got csv without frames"),
        ({"frames": Path("frames")}, "got frames without csv"),
        ({"clip": Path("clip.pt")}, "clip compares photographs with frames of videos"),
    ],
)
def test_options_check_themselves(options, message):
    with pytest.raises(BankError, match=message):
        BankOptions((Path("photographs"),), Path("bank"), **options)
