import pickle

from cmpc2 import AudioError, CheckpointError


def test_an_audio_error_survives_pickling():
    error = pickle.loads(pickle.dumps(AudioError("too_long", "at most 60 s")))
    assert (error.code, error.message, str(error)) == ("too_long", "at most 60 s", "at most 60 s")


def test_a_wrong_checkpoint_is_not_an_audio_error():
    assert issubclass(AudioError, ValueError)
    assert not issubclass(CheckpointError, AudioError)
