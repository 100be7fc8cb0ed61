"""The device lacks memory in each stage: that fails the requests in this call at most, and never ends the worker."""

import pytest

from tests.support.failing_pipeline import QUICK, STAGES, FailingPipeline, codes, fail_in_stage, fill, lack_of_memory

ALL_RUNNING = {"new", "stream", "grpc"}
FAILED = {stage: {"new"} for stage in STAGES} | {"step": ALL_RUNNING, "progress": ALL_RUNNING, "remove": set()}


@pytest.fixture
def pipeline():
    pipeline = FailingPipeline()
    yield pipeline
    pipeline.may_encode.set()


@pytest.fixture(autouse=True)
def goes_on(exits, pipeline):
    """After each test the worker goes on, with an empty batch."""
    yield
    assert not exits.timers
    assert not pipeline.steps


@pytest.mark.parametrize("stage", STAGES)
def test_it_fails_the_requests_in_that_call_alone(frontend, pipeline, counted, stage):
    fill(frontend, pipeline)
    pipeline.may_encode.set()
    fail_in_stage(frontend, pipeline, stage, lack_of_memory(), is_final=False)
    frontend.post("later")
    responses = frontend.run(calls=200)
    failed = FAILED[stage]
    faces = {"encoded", "stream", "grpc", "later"} - failed
    assert codes(responses) == dict.fromkeys(faces, None) | dict.fromkeys(failed, "out_of_memory")
    if failed and stage != "preview":  # which fails in a started stream
        assert responses["new"].status == 503
        assert int(responses["new"].headers["Retry-After"]) >= 1
    assert sum(count for name, count in counted().items() if name.startswith("failed")) == len(failed)


@pytest.mark.parametrize("method", ["start", "render_all"])
def test_of_several_requests_it_fails_none_that_has_enough_alone(frontend, pipeline, method):
    pipeline.may_encode.set()
    pipeline.fail(method, lack_of_memory(), is_final=False)
    for key in "abc":
        frontend.post(key, **QUICK)
    assert codes(frontend.run()) == dict.fromkeys("abc")
    assert pipeline.raised
    assert pipeline.render_calls == ([["a"], ["b"], ["c"]] if method == "render_all" else [["a", "b", "c"]])


@pytest.mark.parametrize("method", ["start", "step", "render_all"])
def test_it_is_never_an_unexplained_failure(frontend, pipeline, method):
    pipeline.may_encode.set()
    for key in "abcd":
        pipeline.fail(method, lack_of_memory(), is_final=False)
        frontend.post(key, **({} if method == "step" else QUICK))
        frontend.run()
    assert codes(frontend.responses) == dict.fromkeys("abcd", "out_of_memory")
