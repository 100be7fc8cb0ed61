"""Folders are searched in a stable order, without loops and without doubles."""

from pathlib import Path

import pytest

from voicestyle.photographs import PhotographError, find_photographs


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_folders_are_searched_recursively_and_sorted(tmp_path):
    make(tmp_path, "b/2.JPG", "b/10.png", "a.jpeg", "b/c/x.webp", "z.heic")
    make(tmp_path, "b/notes.txt", "b/.hidden.jpg", ".git/y.jpg")
    expected = ["a.jpeg", "b/10.png", "b/2.JPG", "b/c/x.webp", "z.heic"]
    assert names(find_photographs([tmp_path]), tmp_path) == expected
    assert names(find_photographs([tmp_path / "b", tmp_path]), tmp_path) == expected
    assert names(find_photographs([tmp_path / "a.jpeg", tmp_path, tmp_path]), tmp_path) == expected


def test_a_named_file_counts_whatever_its_extension(tmp_path):
    make(tmp_path, "scan", "notes.txt")
    assert names(find_photographs([tmp_path / "scan"]), tmp_path) == ["scan"]
    assert find_photographs([tmp_path]) == []
    assert find_photographs([]) == []


def test_links_to_parents_end_and_doubles_keep_their_real_path(tmp_path):
    make(tmp_path, "real/1.jpg", "real/deep/2.jpg")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "real")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "lost.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "loop").symlink_to("loop")
    found = names(find_photographs([tmp_path]), tmp_path)
    assert found == ["loop.jpg", "lost.jpg", "real/1.jpg", "real/deep/2.jpg"]


def test_linked_folders_elsewhere_are_searched(tmp_path):
    make(tmp_path, "elsewhere/1.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    assert names(find_photographs([tmp_path / "photos"]), tmp_path) == ["photos/link/1.jpg"]


def test_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(PhotographError, match=r"must be files or folders, .*nothing does not exist"):
        find_photographs([tmp_path / "nothing"])


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(PhotographError, match=f"must be readable, {tmp_path}: Permission denied"):
        find_photographs([tmp_path])
