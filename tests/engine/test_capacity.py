"""The choice of a batch's capacity from recorded times and memory."""

import pytest

from voicestyle.engine.capacity import CPU_CAPACITY, GAIN, MEMORY_SHARE, SIZES, Trial, choose_capacity

MIB = 2**20


def choose(seconds, memory=None, *, limit=0.15, free=10**6, reserve=0):
    """The choice, and the sizes that were tried, with these seconds and bytes by size; None is out of memory."""
    tried = []

    def trial(size):
        tried.append(size)
        if seconds[size] is None:
            return None
        return Trial(seconds[size], memory[size] if memory else 0)

    return choose_capacity(trial, seconds=limit, free=free, reserve=reserve), tried


def linear(fixed, each):
    return {size: fixed + each * size for size in SIZES}


def test_the_largest_size_within_the_iteration_is_chosen():
    choice, tried = choose(linear(0.005, 0.01))  # 16: 165 ms
    assert (choice.capacity, tried) == (8, [1, 2, 4, 8, 16])
    assert choice.step_seconds == pytest.approx({1: 0.015, 2: 0.025, 4: 0.045, 8: 0.085, 16: 0.165})
    assert choice.reason == "as a step of 16 takes longer than the 150 ms of an iteration"


def test_a_step_of_exactly_the_iteration_s_time_is_within_it():
    assert choose(dict.fromkeys(SIZES, 0.15))[0].capacity == 32
    assert choose({1: 0.1, 2: 0.15, 4: 0.1501})[0].capacity == 2


def test_no_size_above_the_largest_is_tried():
    choice, tried = choose(linear(0.01, 0.001))
    assert (choice.capacity, tried) == (32, list(SIZES))
    assert choice.reason == "the most that are tried"


def test_one_item_that_exceeds_the_time_is_still_served():
    choice, tried = choose({1: 0.9})
    assert (choice.capacity, tried, choice.step_seconds) == (1, [1], {1: 0.9})


def test_the_search_ends_at_the_first_size_that_does_not_qualify():
    choice, tried = choose({1: 0.02, 2: 0.2, 4: 0.03})  # a later size would be within the time
    assert (choice.capacity, tried) == (1, [1, 2])


@pytest.mark.parametrize(("gain", "capacity"), [(GAIN - 0.01, 4), (GAIN + 0.01, 8)])
def test_a_doubling_must_give_more_faces_a_second(gain, capacity):
    seconds = {1: 0.01, 2: 0.011, 4: 0.012, 8: 0.024 / gain, 16: 1.0}
    choice, _ = choose(seconds)
    assert choice.capacity == capacity
    if capacity == 4:
        assert choice.reason == "as 8 make no more faces a second"


def test_a_size_whose_predicted_memory_does_not_fit_is_not_tried():
    memory = {1: 30, 2: 40, 4: 70, 8: 130}  # 130 = 70 + 4 · (70 − 40) / 2, and not 2 · 70
    seconds = linear(0.001, 0.0001)
    budget = int(MEMORY_SHARE * 1000)
    choice, tried = choose(seconds, memory, free=1000, reserve=budget - 129)
    assert (choice.capacity, tried) == (4, [1, 2, 4])
    assert choice.reason == "as 8 do not fit into the memory"
    choice, tried = choose(seconds, memory, free=1000, reserve=budget - 130)
    assert (choice.capacity, tried) == (8, [1, 2, 4, 8])


def test_the_second_size_is_predicted_to_need_twice_the_memory():
    choice, tried = choose(linear(0.001, 0.0001), linear(100, 10), free=1000, reserve=int(MEMORY_SHARE * 1000) - 219)
    assert (choice.capacity, tried) == (1, [1])


def test_a_size_that_took_more_memory_than_predicted_is_not_chosen():
    choice, tried = choose(linear(0.001, 0.0001), {1: 100, 2: 200, 4: 950}, free=1000)
    assert (choice.capacity, tried) == (2, [1, 2, 4])
    assert 4 in choice.step_seconds


def test_memory_that_falls_with_the_size_stops_no_search():
    memory = {1: 500, 2: 400, 4: 400, 8: 400, 16: 400, 32: 400}
    choice, _ = choose(linear(0.001, 0.0001), memory, free=2000, reserve=700)
    assert choice.capacity == 32


def test_an_out_of_memory_error_ends_the_search_at_the_size_before():
    choice, tried = choose({1: 0.01, 2: 0.011, 4: None, 8: 0.02})
    assert (choice.capacity, tried) == (2, [1, 2, 4])
    assert set(choice.step_seconds) == {1, 2}
    assert choice.reason == "as 4 do not fit into the memory"


def test_one_item_without_memory_is_an_error_that_says_how_much_is_free():
    with pytest.raises(RuntimeError, match=r"a batch of 1 does not fit into the 300 MiB of free memory"):
        choose({1: None}, free=300 * MIB)


def test_the_log_line_has_the_times_in_milliseconds():
    choice, _ = choose({1: 0.0123, 2: 0.2})
    assert choice.as_text() == (
        "1 slots in the batch, as a step of 2 takes longer than the 150 ms of an iteration; "
        "a step by batch size: 1: 12.3 ms, 2: 200 ms"
    )


def test_a_cpu_has_eight_slots():
    assert CPU_CAPACITY == 8
