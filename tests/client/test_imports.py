import subprocess
import sys

import pytest

FORBIDDEN = {"torch", "numpy", "cmpc2", "faiss", "PIL", "soundfile", "tqdm", "ts"}


@pytest.mark.parametrize("module", ["voicestyle.client", "voicestyle.client.http_client"])
def test_a_client_needs_nothing_of_the_service(module):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "httpx" in loaded
    assert not FORBIDDEN & set(loaded)
    ours = {name for name in loaded if name.startswith("voicestyle.")}
    assert {name for name in ours if not name.startswith("voicestyle.client")} == set()
