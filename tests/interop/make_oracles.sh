#!/usr/bin/env bash
# Make the environment of Hugging Face's models, which tests/interop compares with (1.1 GB).
# Usage: bash tests/interop/make_oracles.sh FOLDER
set -euo pipefail
folder=$(realpath -m "${1:?name a folder for the environment}")
python3 -m venv "$folder/hf"
"$folder/hf/bin/pip" install -q transformers==4.46.3 torch==2.13.0 sentencepiece protobuf
echo "export MTMOE_HF_PYTHON=$folder/hf/bin/python"
