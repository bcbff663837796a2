#!/usr/bin/env bash
# What only a machine with a GPU can tell, in at most eight minutes: the tests that need CUDA, then speeds as JSON.
#
#     benchmarks/device.sh          on such a machine, with the package's environment active (or PYTHON=.venv/bin/python)
#     benchmarks/device.sh --dry    the same on any machine, tiny: does it run to its end?
#
# OUT is the folder of the results, benchmarks/results by default; PEAK the card's TFLOP/s in bf16, if it is not known.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-benchmarks/results}
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

failed=0
timeout 180 "${PYTHON:-python3}" -m pytest -q -rs -p no:cacheprovider -m cuda tests/test_cuda.py || failed=$?
timeout 290 "${PYTHON:-python3}" benchmarks/device.py --out "$out/device.json" ${PEAK:+--peak "$PEAK"} "$@"
exit "$failed"
