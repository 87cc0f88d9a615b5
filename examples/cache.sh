#!/usr/bin/env bash
# By the ranges of a TensorRT calibration cache, here the one that curl.sh has left: a sweep, Q/DQ, and the cache again.
set -euo pipefail
API="${API:-http://127.0.0.1:8080}"
KEY="${QUANTSIEVE_KEY:-$(cat "${QUANTSIEVE_DATA_DIR:-$HOME/.local/share/quantsieve}/key")}"
call() { curl -fsS -H @<(printf 'Authorization: Bearer %s' "$KEY") "$@"; }   # so that no list of processes shows the key
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
post() { call -X POST "$API/v1/$1" -H 'Content-Type: application/json' --data "$2" | field id; }
ended() { until call "$API/v1/$1" | field state | grep -E 'succeeded|failed|cancelled'; do sleep 1; done; }

MODEL=$(call --data-binary @examples/digits/digits.onnx -X POST "$API/v1/models?name=digits" | field id)
EVAL=$(call --data-binary @examples/digits/eval.npz -X POST "$API/v1/datasets?name=digits-eval" | field id)
CACHE=$(call --data-binary @calibration.cache -X POST "$API/v1/calibrations?name=digits" | field id)

SWEEP=$(post sweeps '{"model": "'"$MODEL"'", "dataset": "'"$EVAL"'", "budget": {"max_drop": 0.01}, "calibration": {"cache": "'"$CACHE"'"}}')
ended "sweeps/$SWEEP"
call "$API/v1/sweeps/$SWEEP/fallback-layers"

TO_QDQ=$(post conversions '{"model": "'"$MODEL"'", "calibration": "'"$CACHE"'"}')
ended "conversions/$TO_QDQ"
call "$API/v1/conversions/$TO_QDQ/files/qdq.onnx" -o qdq.onnx

QDQ=$(call --data-binary @qdq.onnx -X POST "$API/v1/models?name=qdq" | field id)
TO_CACHE=$(post conversions '{"model": "'"$QDQ"'"}')
ended "conversions/$TO_CACHE"
call "$API/v1/conversions/$TO_CACHE/files/calibration.cache" -o back.cache
