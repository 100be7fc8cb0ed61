"""The formats of list files, as published, and the errors of others."""

import pytest

from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.lists import Matching, RetrievalItems, Verification, group_of, read_list
from voicestyle.evaluation.people import read_people

HEADER = "id,voice-speaker-id,face-speaker-id,label,voice-path,face-path"
VIDEO, OTHER = "w9H-ZMvdE_0", "-abcdefghi_"
VOICE, FACE, FACE_2 = (
    f"id10002/{VIDEO}/00001.wav",
    f"Ann_Lee/1.6/{VIDEO}/0005575.jpg",
    f"J._Doe/1.6/{OTHER}/0000025.jpg",
)
GOOD = f"1,2,2,1,Ann_Lee/{VIDEO}_0000001.wav,Ann_Lee/{OTHER}/0005575.jpg"
BAD = f"2,2,7,0,Ann_Lee/{VIDEO}_0000001.wav,J._Doe/{OTHER}/0000025.jpg"


@pytest.fixture
def read(tmp_path):
    def write(*lines, name="list.csv"):
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return read_list(path)

    return write


def test_matching_lists(read):
    found = read(f"{VOICE} {FACE} {FACE_2}", f"{VOICE} {FACE} Unknown/1.6/x/1.jpg", name="matching_v2f_GN.csv")
    assert isinstance(found, Matching)
    assert (found.source, found.probe_kind, found.group) == ("matching_v2f_GN.csv", "voice", "GN")
    assert found.probes == [f"id10002/{VIDEO}/00001"] * 2
    assert found.candidates[0] == [f"Ann_Lee/1.6/{VIDEO}/0005575", f"J._Doe/1.6/{OTHER}/0000025"]
    assert found.candidate_persons == [["id10002", "J._Doe"], ["id10002", "Unknown"]]
    assert read(f"{FACE} {VOICE} id10003/x/1.wav", name="matching_f2v_U.csv").probe_kind == "face"


def test_verification_lists_use_a_short_form_of_the_same_paths(read):
    found = read(HEADER, GOOD, BAD, name="veriflist_test_random_unseenunheard.txt")
    assert isinstance(found, Verification)
    assert found.group == "U"
    assert found.voices == [f"id10002/{VIDEO}/00001"] * 2
    assert found.faces == [f"Ann_Lee/1.6/{OTHER}/0005575", f"J._Doe/1.6/{OTHER}/0000025"]
    assert (found.voice_persons, found.face_persons) == (["id10002", "id10002"], ["id10002", "id10007"])
    assert found.labels == [True, False]


def test_verification_lists_of_other_folders(read):
    found = read(HEADER, "1,ann,ann,1,ann/one.flac,ann/two.png", "2,ann,bea,0,ann/one.flac,bea/two.png")
    assert (found.voices, found.faces) == (["ann/one"] * 2, ["ann/two", "bea/two"])
    assert (found.voice_persons, found.face_persons, found.group) == (["ann", "ann"], ["ann", "bea"], None)


def test_retrieval_lists(read):
    found = read("VoxCeleb1 ID\twav", f"id10002\t{VOICE}", name="wav_20k.csv")
    assert found == RetrievalItems("wav_20k.csv", "voice", [f"id10002/{VIDEO}/00001"], ["id10002"])
    assert read("VoxCeleb1 ID\tjpg", f"id10002\t{FACE}").kind == "face"


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("matching_v2f_U.csv", "U"),
        ("matching_f2v_N.csv", "N"),
        ("matching_1_5.csv", "U"),
        ("veriflist_test_random_seenheard.txt", "U"),
        ("veriflist_test_G_unseenunheard.txt", "G"),
        ("veriflist_test_A_unseenunheard.txt", "A"),
        ("veriflist_test_GNA_seenheard.txt", "GNA"),
        ("veriflist_test_GN.txt", "GN"),
        ("mine.csv", None),
        ("matching_v2f_Good.csv", None),
    ],
)
def test_groups_are_named_by_files(name, group):
    assert group_of(name) == group


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "must have at least one line, received an empty file"),
        ([""], r"line 1: must be a known header, or a probe and at least two candidates .*received ''"),
        ([f"{VOICE} {FACE}"], "line 1: must be a known header, or a probe and at least two candidates"),
        (["one two three"], "line 1: must be a known header"),
        ([f"{VOICE} {FACE} {FACE_2}", f"{VOICE} {FACE}"], "line 2: must have 3 paths as line 1, received 'id10002/"),
        (
            [f"{VOICE} {FACE} {FACE_2}", f"{FACE} {VOICE} {VOICE}"],
            "line 2: must be the path of a voice and then of faces",
        ),
        ([f"{VOICE} {FACE} {VOICE}"], "line 1: must be the path of a voice and then of faces"),
        ([f"{VOICE} {FACE} {FACE}"], "line 1: candidates after the first must be of other people"),
        (
            [f"{VOICE} {FACE} {FACE_2}", f"{VOICE} {FACE_2} {FACE}"],
            "line 2: id10002 and Ann_Lee must always be one person",
        ),
        (
            [f"{VOICE} {FACE} {FACE_2}", f"id7/a.wav {FACE} {FACE_2}"],
            "line 2: Ann_Lee and id10002 must always be one person",
        ),
        (
            [f"{VOICE} {FACE} ../secret/1.jpg"],
            "line 1: a path must be relative and without .., received '../secret/1.jpg'",
        ),
        ([f"/{VOICE} {FACE} {FACE_2}"], "line 1: a path must be relative"),
        ([HEADER], "must have lines after its header, received none"),
        ([HEADER, GOOD, "1,2,3"], "line 3: must have the six columns of the header, received '1,2,3'"),
        ([HEADER, GOOD.replace(",1,", ",0,")], "line 2: label must be 1 where both ids are equal"),
        ([HEADER, BAD.replace(",0,", ",1,")], "line 2: label must be 1 where both ids are equal"),
        ([HEADER, GOOD.replace(",1,Ann", ",yes,Ann")], "line 2: label must be 1"),
        ([HEADER, GOOD.replace(".wav", ".txt")], "line 2: must end with the path of a recording and that of an image"),
        ([HEADER, GOOD.replace(f"/{OTHER}/", "/")], "line 2: a path NAME/VIDEO_0000001.wav needs numeric ids"),
        ([HEADER, GOOD.replace(",2,2,", ",x,x,")], "line 2: a path NAME/VIDEO_0000001.wav needs numeric ids"),
        ([HEADER, GOOD, GOOD], "must have pairs of one person and of two, received only one kind"),
        (["VoxCeleb1 ID\twav"], "must have lines after its header"),
        (["VoxCeleb1 ID\twav", VOICE], "line 2: must be a person and a path, split at a tab"),
        (["VoxCeleb1 ID\twav", f"\t{VOICE}"], "line 2: must be a person and a path"),
        (["VoxCeleb1 ID\twav", f"id10002\t{FACE}"], "line 2: must have the path of a voice"),
        (["VoxCeleb1 ID\tjpg", f"a\t{FACE}", f"a\t{FACE}"], "must list each path once, received Ann_Lee/.* 2 times"),
        (["VoxCeleb1 ID,wav", f"id10002,{VOICE}"], "line 1: must be a known header"),
    ],
)
def test_bad_lists_are_one_error_with_file_line_rule_and_what_was_received(read, lines, message):
    with pytest.raises(EvaluationError, match=f"list.csv.*{message}") as caught:
        read(*lines)
    assert "\n" not in str(caught.value)


def test_a_list_of_another_encoding_is_an_error(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EvaluationError, match="must be a list file in UTF-8"):
        read_list(tmp_path / "list.csv")


def test_people(people_file):
    people = read_people(people_file)
    assert people.same("G")("id10001", "Bea")
    assert not people.same("G")("id10001", "Dan")
    assert people.same("N")("Ann", "id10004")
    assert not people.same("GN")("Ann", "Dan")
    with pytest.raises(
        EvaluationError, match=r"vox1_meta.csv must have a row for each person, received none for 'Gus'"
    ):
        people.same("G")("Ann", "Gus")


def test_a_table_of_people_in_another_encoding_is_an_error(people_file):
    people_file.write_bytes(people_file.read_text().replace("Spain", "España").encode("latin-1"))
    with pytest.raises(EvaluationError, match="vox1_meta.csv must be a table in UTF-8"):
        read_people(people_file)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Nationality", "Country", "must have the columns .*, received none named 'Nationality'"),
        ("\tf\t", "\t\t", "line 2: must have a Gender, received"),
        ("id10003", "id10001", "line 4: 'id10001' must occur once, received it twice"),
    ],
)
def test_bad_tables_of_people(people_file, old, new, message):
    people_file.write_text(people_file.read_text().replace(old, new))
    with pytest.raises(EvaluationError, match=message):
        read_people(people_file)
