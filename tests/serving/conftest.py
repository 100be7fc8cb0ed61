"""Archives of tiny bundles, and a real TorchServe for them."""

import pytest


@pytest.fixture(scope="session")
def tiny_archive(tiny_bundle, tmp_path_factory):
    from voicestyle.archive import build_archive

    return build_archive(tiny_bundle, tmp_path_factory.mktemp("store") / "voicestyle.mar")


@pytest.fixture(scope="session")
def fragile_archive(tmp_path_factory):
    """An archive whose steps take milliseconds, with a size that cannot be rendered."""
    from tests.support.tiny_service import fragile_parts
    from voicestyle.archive import build_archive
    from voicestyle.bundle import write_bundle

    bundle = tmp_path_factory.mktemp("bundles") / "fragile"
    write_bundle(bundle, **fragile_parts())
    return build_archive(bundle, tmp_path_factory.mktemp("store") / "voicestyle.mar")


@pytest.fixture(scope="session")
def service(fragile_archive, samples):
    """One TorchServe for the whole session, with that archive."""
    import httpx

    from tests.support.tiny_service import Service
    from voicestyle.serving import TorchServe

    with pytest.MonkeyPatch.context() as patch, httpx.Client(timeout=120, trust_env=False) as client:
        patch.setenv("OMP_NUM_THREADS", "1")  # with such small tensors, several threads only wait for each other
        with TorchServe(fragile_archive) as running:
            yield Service(running, client, (samples / "slt.wav").read_bytes())


@pytest.fixture
def unharmed(service):
    """After the test the server makes faces, and no worker was replaced."""
    before = service.pids
    yield
    assert service.makes_faces()
    assert service.pids == before
    assert len(before) == 1


@pytest.fixture(scope="session")
def server(demo_bundle, tmp_path_factory):
    """One TorchServe with the demo bundle for the whole session."""
    from voicestyle.archive import build_archive
    from voicestyle.serving import TorchServe

    archive = build_archive(demo_bundle, tmp_path_factory.mktemp("store") / "voicestyle.mar")
    with TorchServe(archive) as running:
        yield running
