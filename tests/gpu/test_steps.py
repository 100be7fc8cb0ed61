"""Steps of a batch: graphs against single kernels, padding, joining, rounding, memory."""

import gc

import pytest
import torch

from tests.support.joined_faces import (
    WITHOUT_PADDING,
    check_close,
    check_equal,
    check_not_trivial,
    optimise,
    tensors,
    warm_up,
)

NOT_DETERMINISTIC = "a kernel is not deterministic, or was chosen by a measurement"
DTYPES = ["float32", "bfloat16"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_graphs_equal_single_kernels_to_the_bit(faces, dtype):
    outcomes = []
    for graphs in (True, False):
        running = faces(graphs, dtype)
        assert running.engine.captured == graphs
        warm_up(running)
        outcomes.append(optimise(running, WITHOUT_PADDING))
        check_not_trivial(outcomes[-1])
    check_equal(*outcomes, "a graph replays other kernels, or reads memory that something else has changed")


def test_graphs_of_all_sizes_were_replayed(faces):
    """The comparison above would hold for an engine that ignores its graphs."""
    graphs, replayed = [], []

    def counted(replay):
        graphs.append(replay)
        return lambda: (replayed.append(replay), replay())

    optimise(faces(graphs=True, wrap=counted), WITHOUT_PADDING)
    assert len(graphs) == 3  # of 1, 2 and 4 faces
    assert all(replay in replayed for replay in graphs)
    assert len(replayed) == 9


@pytest.mark.parametrize("dtype", DTYPES)
def test_padding_rows_change_no_bit(faces, dtype):
    """Three faces in the graph of four, where the fourth row holds what an earlier face left there, or another face."""
    three = [(face, 5) for face in range(3)]
    padded, full, used = (faces(graphs=True, dtype=dtype) for _ in range(3))
    optimise(used, {0: [(face, 3) for face in (7, 6, 5, 4)]})
    outcomes = [
        optimise(padded, {0: three}),
        optimise(used, {0: three}),
        {face: each for face, each in optimise(full, {0: [*three, (3, 5)]}).items() if face != 3},
    ]
    check_not_trivial(outcomes[0])
    for others in outcomes[1:]:
        check_equal(outcomes[0], others, "rows of a batch are not independent")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.05)])
def test_a_face_in_a_changing_batch_is_close_to_the_face_alone(faces, dtype, tolerance):
    running = faces(graphs=True, dtype=dtype)
    joined = optimise(running, {0: [(0, 8), (1, 3)], 1: [(2, 5)], 2: [(3, 6)], 4: [(4, 4)]})
    alone = {}
    for face, steps in ((0, 8), (1, 3), (2, 5), (3, 6), (4, 4)):
        alone |= optimise(running, {0: [(face, steps)]})
    check_not_trivial(joined)
    check_close(joined, alone, tolerance, "other batch sizes round otherwise, but not by so much")


@pytest.mark.parametrize("graphs", [True, False])
def test_repeated_runs_are_equal_to_the_bit(faces, graphs):
    running = faces(graphs)
    warm_up(running)
    first, again = (optimise(running, WITHOUT_PADDING) for _ in range(2))
    check_not_trivial(first)
    check_equal(again, first, NOT_DETERMINISTIC)


def test_the_history_of_an_engine_changes_no_bit(faces):
    """Two engines, of which one has taken many other steps before."""
    fresh, used = faces(graphs=True), faces(graphs=True)
    warm_up(used)
    check_equal(optimise(used, WITHOUT_PADDING), optimise(fresh, WITHOUT_PADDING), NOT_DETERMINISTIC)


def test_bfloat16_is_close_to_float32(faces):
    narrow, wide = (optimise(faces(True, dtype), WITHOUT_PADDING) for dtype in ("bfloat16", "float32"))
    for face, outcome in narrow.items():
        expected = wide[face].figures["similarity"]
        given = outcome.figures["similarity"]
        assert not torch.equal(given, expected), "bfloat16 is not used"
        assert (given - expected).abs().max() < 0.05
    check_close(narrow, wide, 0.05, "bfloat16 loses more than rounding explains")


def test_memory_does_not_grow_while_faces_join_and_leave(faces, device):
    running = faces(graphs=True)
    warm_up(running)
    optimise(running, WITHOUT_PADDING)
    before = allocated_bytes(device)
    for _ in range(50 if device.type == "cuda" else 3):
        optimise(running, WITHOUT_PADDING)
        optimise(running, {0: [(6, 2), (7, 1)]})
    grown = allocated_bytes(device) - before
    assert grown == 0, f"{grown} bytes are still allocated after the faces have left"


def allocated_bytes(device):
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.memory_allocated(device)
    storages = {each.untyped_storage().data_ptr(): each for each in gc.get_objects() if isinstance(each, torch.Tensor)}
    return sum(each.untyped_storage().nbytes() for each in storages.values())


def test_the_comparisons_can_fail(faces):
    """A change in the last bit of one noise map is found, and an engine whose image is zero is trivial."""
    outcomes = optimise(faces(), {0: [(0, 3)]})
    changed = optimise(faces(), {0: [(0, 3)]})
    check_equal(changed, outcomes, "")
    level = changed[0].noise[-1]
    level.view(-1)[0] = torch.nextafter(level.view(-1)[0], level.new_tensor(9.0))
    with pytest.raises(AssertionError, match=f"noise map {len(changed[0].noise) - 1} of face 0 differs by up to"):
        check_equal(changed, outcomes, "")
    for values in tensors(changed[0]).values():
        values.zero_()
    with pytest.raises(AssertionError, match="face 0 does not change in each step"):
        check_not_trivial(changed)
