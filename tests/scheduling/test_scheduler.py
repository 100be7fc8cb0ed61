"""The scheduler with plain numbers: no pipeline, no server, a clock that the test moves."""

import pytest

from voicestyle.scheduling import Admission, Phase, Request, Scheduler


class Clock:
    def __init__(self):
        self.now = 10.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(clock):
    def build(capacity=2, queue=2, batched=False, iteration_seconds=1.0):
        scheduler = Scheduler(capacity, queue, batched=batched, iteration_seconds=iteration_seconds, clock=clock)
        scheduler.begin()
        return scheduler

    return build


def add(scheduler, *steps, previews=0):
    requests = [Request(id=f"{len(scheduler.requests) + i}", steps=n, previews=previews) for i, n in enumerate(steps)]
    for request in requests:
        scheduler.add(request)
    return requests


def run(scheduler, seconds_per_step=0.25):
    """One iteration's plan, carried out; returns the ids of the requests of each step."""
    plan = scheduler.plan()
    scheduler.record_steps(plan, seconds_per_step * len(plan.steps))
    return [[request.id for request in group] for group in plan.steps]


def test_requests_are_admitted_until_batch_and_queue_are_full(make):
    scheduler = make(capacity=1, queue=2)
    for number in range(3):
        assert scheduler.admission() is Admission.ADMIT
        scheduler.add(Request(id=str(number), steps=5))
    assert scheduler.admission() is Admission.REJECT_OVERLOADED
    scheduler.finish(scheduler.requests["1"])
    assert scheduler.admission() is Admission.ADMIT


def test_a_draining_service_rejects_even_when_empty(make):
    assert make().admission(draining=True) is Admission.REJECT_DRAINING


def test_deferred_requests_count_towards_the_queue_limit(make, clock):
    scheduler = make(capacity=1, queue=1)
    clock.now += 1.0  # the iteration's time is used up
    assert [scheduler.admission() for _ in range(3)] == [
        Admission.DEFER,
        Admission.DEFER,
        Admission.REJECT_OVERLOADED,
    ]
    scheduler.begin()
    assert scheduler.admission() is Admission.ADMIT


def test_an_id_cannot_be_added_twice(make):
    scheduler = make()
    add(scheduler, 5)
    with pytest.raises(ValueError, match="request '0' was already added"):
        scheduler.add(Request(id="0", steps=5))


def test_waiting_requests_start_in_order_of_arrival(make):
    scheduler = make(capacity=2)
    first, second, third = add(scheduler, 1, 5, 5)
    assert scheduler.start_waiting() == [first, second]
    assert scheduler.start_waiting() == []
    assert third.phase is Phase.WAITING
    assert run(scheduler) == [["0"]]
    assert first.phase is Phase.RENDERING
    assert scheduler.start_waiting() == []  # its image is still to be rendered
    assert scheduler.next_to_render() is first
    assert scheduler.start_waiting() == [third]


def test_phases_follow_each_other_with_their_times(make, clock):
    scheduler = make()
    (request,) = add(scheduler, 2)
    clock.now += 1
    scheduler.start_waiting()
    clock.now += 2
    while request.phase is Phase.RUNNING:
        run(scheduler)
    clock.now += 3
    scheduler.begin()
    assert scheduler.next_to_render() is request
    scheduler.finish(request)
    assert list(request.entered) == list(Phase)
    assert request.seconds_between(Phase.WAITING, Phase.RUNNING) == 1
    assert request.seconds_between(Phase.RUNNING, Phase.ENCODING) == 5
    assert scheduler.requests == {}


def test_batched_requests_share_every_step(make):
    scheduler = make(capacity=3, batched=True)
    requests = add(scheduler, 9, 9, 9)
    scheduler.start_waiting()
    assert run(scheduler) == [["0", "1", "2"]]  # nothing is known yet about how long a step takes
    assert run(scheduler) == [["0", "1", "2"]] * 4  # 4 of 0.25 s fit into 1 s
    assert {request.step for request in requests} == {5}
    assert {request.largest_batch for request in requests} == {3}


@pytest.mark.parametrize("batched", [False, True])
def test_an_iteration_ends_at_the_first_request_to_finish(make, batched):
    scheduler = make(capacity=2, batched=batched, iteration_seconds=100.0)
    short, long = add(scheduler, 3, 50)
    scheduler.start_waiting()
    while short.phase is Phase.RUNNING:
        before = long.step
        run(scheduler)
    assert short.step == 3
    assert before <= long.step <= 3


@pytest.mark.parametrize("batched", [False, True])
def test_an_iteration_ends_at_the_step_of_a_preview(make, batched):
    scheduler = make(batched=batched, iteration_seconds=100.0)
    (request,) = add(scheduler, 10, previews=3)
    scheduler.start_waiting()
    shown = []
    while request.phase is Phase.RUNNING:
        run(scheduler)
        if request.step in request.preview_steps:
            shown.append(request.step)
    assert shown == [3, 5, 8]


def test_sequential_requests_finish_one_after_the_other(make):
    scheduler = make(capacity=2, queue=0, iteration_seconds=0.25)
    (first,) = add(scheduler, 20)
    scheduler.start_waiting()
    for _ in range(4):
        run(scheduler)
    (second,) = add(scheduler, 20)
    scheduler.start_waiting()
    run(scheduler)
    assert (first.step, second.step) == (4, 1)  # the first step of a new request comes first
    while first.phase is Phase.RUNNING:
        run(scheduler)
    assert 4 <= second.step <= 7
    assert second.largest_batch == 2


@pytest.mark.parametrize("short", [1, 4, 8])
def test_a_long_request_advances_although_short_ones_arrive(make, short):
    scheduler = make(capacity=2, iteration_seconds=0.25)
    (long,) = add(scheduler, 40)
    scheduler.start_waiting()
    run(scheduler)
    for _ in range(24 // short):
        (request,) = add(scheduler, short)
        scheduler.start_waiting()
        while request.phase is Phase.RUNNING:
            run(scheduler)
        scheduler.finish(request)
    # One of four steps is for the long one, or as near to it as the number of short steps allows.
    assert 24 // 4 <= long.step <= 24 // 2


def test_one_render_per_iteration_at_least_more_with_time(make, clock):
    scheduler = make(capacity=3, batched=True)
    requests = add(scheduler, 1, 1, 1)
    scheduler.start_waiting()
    run(scheduler)
    clock.now += 5
    assert scheduler.next_to_render() is requests[0]
    assert scheduler.next_to_render() is None
    scheduler.begin()
    assert scheduler.next_to_render() is requests[1]
    assert scheduler.next_to_render() is requests[2]
    assert scheduler.next_to_render() is None
    assert scheduler.count(Phase.ENCODING) == 3


def test_requests_without_steps_need_no_slot(make):
    scheduler = make(capacity=1, queue=4)
    long, waiting, first, second = add(scheduler, 50, 50, 0, 0)
    assert scheduler.start_waiting() == [long, first, second]
    assert (first.phase, waiting.phase) == (Phase.RENDERING, Phase.WAITING)
    assert scheduler.next_without_steps() == [first]
    assert scheduler.next_to_render() is None  # that is for requests that took steps
    assert run(scheduler) == [["0"]]
    scheduler.finish(long)
    assert scheduler.start_waiting() == [waiting]  # although `second` is yet to be rendered
    assert list(first.entered) == [Phase.WAITING, Phase.RENDERING, Phase.ENCODING]


def test_requests_without_steps_count_towards_the_queue_limit(make):
    scheduler = make(capacity=1, queue=1)
    add(scheduler, 0, 0)
    assert scheduler.admission() is Admission.REJECT_OVERLOADED


def test_batched_requests_without_steps_are_rendered_at_once(make, clock):
    scheduler = make(capacity=2, queue=4, batched=True)
    requests = add(scheduler, 0, 0, 0)
    scheduler.start_waiting()
    assert scheduler.next_without_steps() == requests[:2]  # no more than `capacity`
    assert [request.largest_batch for request in requests] == [2, 2, 0]
    clock.now += 5
    assert scheduler.next_without_steps() == []
    scheduler.begin()
    assert scheduler.next_without_steps() == requests[2:]
    assert scheduler.next_without_steps() == []


@pytest.mark.parametrize("batched", [False, True])
def test_neither_steps_nor_faces_without_steps_starve(make, clock, batched):
    """Ten iterations in which more faces without steps arrive than there is time for, each of 0.4 s."""
    scheduler = make(capacity=1, queue=100, batched=batched)
    (long,) = add(scheduler, 500)
    rendered = 0
    for _ in range(10):
        scheduler.begin()
        began = clock.now
        for _ in range(5):
            scheduler.add(Request(id=str(len(scheduler.requests)), steps=0))
        scheduler.start_waiting()
        while group := scheduler.next_without_steps():
            clock.now += 0.4
            rendered += len(group)
        assert 0 < clock.now - began < 1.0 + 0.4  # the iteration's time and one face
        before = long.step
        run(scheduler)
        assert long.step > before
    assert rendered == 30
    assert long.step >= 1 + 9 * 4  # 4 of 0.25 s fit into an iteration of 1 s


@pytest.mark.parametrize("batched", [False, True])
def test_a_finished_face_is_rendered_although_others_without_steps_are(make, clock, batched):
    scheduler = make(capacity=1, queue=4, batched=batched)
    short, _ = add(scheduler, 1, 0)
    scheduler.start_waiting()
    assert scheduler.next_without_steps()
    clock.now += 5  # the iteration's time is used up
    run(scheduler)
    assert scheduler.next_to_render() is short


def test_nothing_running_is_an_empty_plan(make):
    scheduler = make()
    add(scheduler, 5)
    plan = scheduler.plan()
    assert (plan.steps, plan.batch) == ([], 0)
    scheduler.record_steps(plan, 0.0)
    assert scheduler.next_to_render() is None


def test_the_scheduler_imports_neither_torch_nor_a_server():
    import subprocess
    import sys

    code = "import sys, voicestyle.scheduling; print([m for m in ('torch', 'ts', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
