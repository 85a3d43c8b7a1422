#!/usr/bin/env bash
# Makes the sample tokens of the gateway's tests anew, with PyJWT. Their private keys are not kept.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/need.sh venv-jwt
exec .cache/venv-jwt/bin/python -B scripts/jwt-samples.py gateway/src/access/samples.json
