#!/usr/bin/env bash
# Make the model from nothing: build.sh RUN_FOLDER [TOKENS]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run=${1:?usage: build.sh RUN_FOLDER [TOKENS]}
python=${PYTHON:-python3}
# Threads sleep while they wait, so that a busy machine does not stop the training.
export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0
mkdir -p "$run"
test -f "$run/tokenizer.json" || "$python" "$here/tokenizer.py" "$run"
"$python" "$here/train.py" --run "$run" --out "$here/../../src/talu/models/pocket" --tokens "${2:-9000000}"
