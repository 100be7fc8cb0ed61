import pickle

from cmpc2 import AudioError, CheckpointError


def test_audio_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(AudioError("too_long", "at most 60 s")))
    assert (error.code, error.message, str(error)) == ("too_long", "at most 60 s", "at most 60 s")


def test_checkpoint_error_is_not_an_audio_error():
    assert issubclass(AudioError, ValueError)
    assert not issubclass(CheckpointError, AudioError)
