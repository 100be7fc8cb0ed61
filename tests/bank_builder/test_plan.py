"""The plan: cut into shards, written once, compared with what a later run would do."""

import pytest

from voicestyle.bank_builder import BankError
from voicestyle.bank_builder.plan import Group, Plan, Source, Video


def source(number, **changes):
    return Source(f"{number:02d}.jpg", **({"size": 10, "sha256": "a"} | changes))


def plan(count=5, shard_size=2, groups=None, **settings):
    groups = groups or tuple(Group((source(number),)) for number in range(count))
    return Plan(settings={"steps": 300, "loss": "pixels"} | settings, shard_size=shard_size, groups=groups)


def test_shards_are_consecutive_and_complete():
    shards = plan(5, 2).shards()
    assert [[item.key for group in shard for item in group.photographs] for shard in shards] == [
        ["00.jpg", "01.jpg"],
        ["02.jpg", "03.jpg"],
        ["04.jpg"],
    ]


def test_photographs_of_a_person_stay_in_one_shard():
    persons = tuple(Group((source(10 * n), source(10 * n + 1)), (Video(f"{n}/1.6/v", 1, "b"),)) for n in range(3))
    assert [len(shard) for shard in plan(groups=persons, shard_size=3).shards()] == [2, 1]


def test_json_gives_the_plan_back_in_the_same_bytes():
    made = plan(
        groups=(Group((source(1, unreadable="no"),), (Video("a/1.6/v", 3, "c"),)),), w_plus=True, replacement=None
    )
    content = made.to_json()
    assert Plan.from_json(content, "plan.json") == made
    assert Plan.from_json(content, "plan.json").to_json() == content
    assert b"/root" not in content


def test_order_of_settings_does_not_matter():
    assert plan(a=1, b=2).to_json() == plan(b=2, a=1).to_json()
    assert plan(a=1).digest != plan(a=2).digest


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"settings": {}, "shard_size": 0, "groups": []}', b"\xff"])
def test_another_file_is_an_error(content):
    with pytest.raises(BankError, match="x must be the plan of a bank build"):
        Plan.from_json(content, "x")


def test_another_format_is_an_error():
    content = plan().to_json().replace(b'"format": 1', b'"format": 99')
    with pytest.raises(BankError, match="format 1, got 99"):
        Plan.from_json(content, "x")


def test_the_same_plan_has_no_differences():
    plan().check_same(plan(), "plan.json")


@pytest.mark.parametrize(
    ("now", "phrase"),
    [
        (plan(steps=20), "steps is 300 there and 20 now"),
        (plan(new=1), "new is None there and 1 now"),
        (plan(shard_size=3), "the shard size is 2 there and 3 now"),
        (plan(7), "2 photographs added, the first is '05.jpg'"),
        (plan(4), "1 photograph missing, the first is '04.jpg'"),
        (
            plan(groups=(Group((source(0, sha256="b"),)), *plan().groups[1:])),
            "1 photograph changed, the first is '00.jpg'",
        ),
        (plan(groups=(Group(tuple(plan().photographs())),)), "videos choose among other photographs"),
    ],
)
def test_differences_are_named(now, phrase):
    with pytest.raises(BankError, match="continues only with the options and files of plan.json") as caught:
        plan().check_same(now, "plan.json")
    assert phrase in str(caught.value)
    assert "--restart" in str(caught.value)


def test_many_differences_are_cut_short():
    with pytest.raises(BankError, match="and 4 more"):
        plan(**{f"x{n}": n for n in range(10)}).check_same(plan(**{f"x{n}": n + 1 for n in range(10)}), "plan.json")
