#!/usr/bin/env bash
# By the ranges of a TensorRT calibration cache, here the one that curl.sh has left: a sweep, Q/DQ, and the cache again.
set -euo pipefail
API="${API:-http://127.0.0.1:8080}"
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
post() { curl -fsS -X POST "$API/v1/$1" -H 'Content-Type: application/json' --data "$2" | field id; }
ended() { until curl -fsS "$API/v1/$1" | field state | grep -E 'succeeded|failed|cancelled'; do sleep 1; done; }

MODEL=$(curl -fsS --data-binary @examples/digits/digits.onnx -X POST "$API/v1/models?name=digits" | field id)
EVAL=$(curl -fsS --data-binary @examples/digits/eval.npz -X POST "$API/v1/datasets?name=digits-eval" | field id)
CACHE=$(curl -fsS --data-binary @calibration.cache -X POST "$API/v1/calibrations?name=digits" | field id)

SWEEP=$(post sweeps '{"model": "'"$MODEL"'", "dataset": "'"$EVAL"'", "budget": {"max_drop": 0.01}, "calibration": {"cache": "'"$CACHE"'"}}')
ended "sweeps/$SWEEP"
curl -fsS "$API/v1/sweeps/$SWEEP/fallback-layers"

TO_QDQ=$(post conversions '{"model": "'"$MODEL"'", "calibration": "'"$CACHE"'"}')
ended "conversions/$TO_QDQ"
curl -fsS "$API/v1/conversions/$TO_QDQ/files/qdq.onnx" -o qdq.onnx

QDQ=$(curl -fsS --data-binary @qdq.onnx -X POST "$API/v1/models?name=qdq" | field id)
TO_CACHE=$(post conversions '{"model": "'"$QDQ"'"}')
ended "conversions/$TO_CACHE"
curl -fsS "$API/v1/conversions/$TO_CACHE/files/calibration.cache" -o back.cache
