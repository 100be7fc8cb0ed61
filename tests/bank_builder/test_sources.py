"""Sources: keys that are portable and distinct, contents by hash, and files that cannot be read."""

import hashlib
import os

import pytest

from tests.support.fake_bank_tools import write_photographs
from voicestyle.bank_builder import BankError
from voicestyle.bank_builder.sources import MAX_FILE_BYTES, describe, find_sources
from voicestyle.errors import CheckpointError


def keys(sources):
    return [item.key for group in sources.groups for item in group.photographs]


def test_keys_are_relative_to_the_folders_given_and_sorted(tmp_path):
    write_photographs(tmp_path / "b", 2, "sub/")
    write_photographs(tmp_path / "a", 1)
    sources = find_sources([tmp_path / "b", tmp_path / "a" / "000.png"])
    assert keys(sources) == ["000.png", "sub/000.png", "sub/001.png"]
    assert sources.paths["sub/001.png"] == tmp_path / "b" / "sub" / "001.png"
    first = sources.groups[0].photographs[0]
    content = (tmp_path / "a" / "000.png").read_bytes()
    assert (first.size, first.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_same_file_may_be_named_twice_but_not_two_with_one_key(tmp_path):
    folders = [write_photographs(tmp_path / name, 1) for name in "ab"]
    assert len(find_sources([folders[0], folders[0] / "000.png"]).groups) == 1
    with pytest.raises(BankError, match="must differ in their paths.*give the folder above both"):
        find_sources(folders)
    assert keys(find_sources([tmp_path])) == ["a/000.png", "b/000.png"]


def test_no_photograph_is_an_error(tmp_path):
    with pytest.raises(BankError, match="there must be a photograph, got none in"):
        find_sources([tmp_path])
    with pytest.raises(BankError, match="does not exist"):
        find_sources([tmp_path / "absent"])


def test_names_that_are_not_utf_8_get_a_key(tmp_path):
    (tmp_path / os.fsdecode(b"\xff<b>\n.png")).write_bytes(b"x")
    sources = find_sources([tmp_path])
    assert keys(sources) == ["\\xff<b>\n.png"]
    assert sources.paths["\\xff<b>\n.png"].read_bytes() == b"x"


def test_files_that_cannot_be_read_have_a_reason(tmp_path):
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    for path, reason in (
        (loop, "must be readable: Too many levels of symbolic links"),
        (pipe, "must be a file, received a device or a pipe"),
        (large, "must have at most 64 MiB, received 64.0 MiB"),
        (tmp_path / "absent.jpg", "must be readable: No such file or directory"),
    ):
        described = describe("key", path)
        assert (described.unreadable, described.sha256) == (reason, "")


@pytest.fixture
def published(tmp_path):
    """Two persons with photographs, three in the CSV, and frames of some videos."""
    photographs = tmp_path / "photographs"
    for name in ("Ann", "Bob", "Zoe"):
        write_photographs(photographs / name, 2)
    rows = ["Bob,x", "Ann,v2", "Ann,v1", "Ann,v1", "Cy,y"]
    (tmp_path / "training.csv").write_text("VGGFace1 ID,video_id\n" + "\n".join(rows) + "\n")
    write_photographs(tmp_path / "frames" / "Ann" / "1.6" / "v1", 2)
    write_photographs(tmp_path / "frames" / "Bob" / "1.6" / "x", 1)
    return tmp_path


def test_a_person_is_a_group_with_the_videos_of_the_csv(published):
    sources = find_sources([published / "photographs"], published / "training.csv", published / "frames")
    assert [[item.key for item in group.photographs] for group in sources.groups] == [
        ["Ann/000.png", "Ann/001.png"],
        ["Bob/000.png", "Bob/001.png"],
        [],
    ]
    assert [[(video.key, video.frames) for video in group.videos] for group in sources.groups] == [
        [("Ann/1.6/v1", 2), ("Ann/1.6/v2", 0)],
        [("Bob/1.6/x", 1)],
        [("Cy/1.6/y", 0)],
    ]
    assert sources.unused == 2
    assert [frame.name for frame in sources.frames["Ann/1.6/v1"]] == ["000.png", "001.png"]


def test_a_changed_frame_changes_its_video(published):
    def find():
        return find_sources([published / "photographs"], published / "training.csv", published / "frames")

    before = find().groups[0].videos[0]
    frame = published / "frames" / "Ann" / "1.6" / "v1" / "000.png"
    frame.write_bytes(frame.read_bytes()[:-1])
    assert find().groups[0].videos[0] != before


def test_photographs_without_a_person_of_the_csv_are_an_error(published, tmp_path):
    write_photographs(tmp_path / "others" / "Kim", 1)
    with pytest.raises(BankError, match=r"must begin with the name of a person.*'Ann'; got 'Kim/000.png'"):
        find_sources([tmp_path / "others"], published / "training.csv", published / "frames")


def test_another_csv_is_an_error(published):
    (published / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CheckpointError, match="must have the columns"):
        find_sources([published / "photographs"], published / "other.csv", published / "frames")
