#!/usr/bin/env bash
# Make samples/*.wav with flite (apt-get install flite): synthetic voices of one woman and two men.
set -euo pipefail
cd "$(dirname "$0")/../samples"
text="A voice tells more than words. Whoever listens to a stranger on the telephone begins, without wanting to, \
to paint a face, and is surprised when the two of them meet."
for voice in slt rms awb; do
  flite -voice "$voice" -t "$text" -o "$voice.wav"
done
