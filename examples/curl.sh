#!/usr/bin/env bash
# The whole way by hand, against a running `make serve`. Needs curl and python3 (to read one field of a JSON answer).
set -euo pipefail
API="${API:-http://127.0.0.1:8080}"
KEY="${QUANTSIEVE_KEY:-$(cat "${QUANTSIEVE_DATA_DIR:-$HOME/.local/share/quantsieve}/key")}"
call() { curl -fsS -H @<(printf 'Authorization: Bearer %s' "$KEY") "$@"; }   # so that no list of processes shows the key
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

MODEL=$(call --data-binary @examples/digits/digits.onnx -X POST "$API/v1/models?name=digits" | field id)
EVAL=$(call --data-binary @examples/digits/eval.npz -X POST "$API/v1/datasets?name=digits-eval" | field id)
CALIB=$(call --data-binary @examples/digits/calib.npz -X POST "$API/v1/datasets?name=digits-calib" | field id)

SWEEP=$(call -X POST "$API/v1/sweeps" -H 'Content-Type: application/json' --data @- <<JSON | field id
{
  "model": "$MODEL",
  "dataset": "$EVAL",
  "backend": "onnxruntime",
  "metric": {"name": "top1"},
  "budget": {"max_drop": 0.01},
  "calibration": {"method": "max", "dataset": "$CALIB"}
}
JSON
)

until call "$API/v1/sweeps/$SWEEP" | field state | grep -E 'succeeded|failed|cancelled'; do sleep 1; done

call "$API/v1/sweeps/$SWEEP/layers"                               # the table as JSON
call "$API/v1/sweeps/$SWEEP/layers" -H 'Accept: text/csv'         # the same as CSV
call "$API/v1/sweeps/$SWEEP/fallback-layers"                      # the layers to keep in floating point
call "$API/v1/sweeps/$SWEEP/report.html" -o report.html           # one self-contained page
call "$API/v1/sweeps/$SWEEP/artifacts/calibration.cache" -o calibration.cache   # the ranges, as TensorRT 10 and before read them

# another question to the same sweep: an estimate at once, and with "verify" measured until it is decided
SELECTION=$(call -X POST "$API/v1/sweeps/$SWEEP/selections" -H 'Content-Type: application/json' \
  --data '{"budget": {"max_drop": 0.03}, "selection": {"cost": "weight_bytes"}, "verify": true}' | field id)
until call "$API/v1/sweeps/$SWEEP/selections/$SELECTION" | field state | grep -E 'done|failed|cancelled'; do sleep 1; done
call "$API/v1/sweeps/$SWEEP/selections"                           # all that was asked, side by side
