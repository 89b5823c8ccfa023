#!/usr/bin/env bash
# Make the environments of the programs that tests/interop compares with (about 1.2 GB).
# Usage: bash tests/interop/make_oracles.sh FOLDER
set -euo pipefail
folder=$(realpath -m "${1:?name a folder for the environments}")
python3 -m venv "$folder/hf"
"$folder/hf/bin/pip" install -q transformers==4.46.3 torch==2.13.0 sentencepiece protobuf
python3 -m venv "$folder/ct2"
"$folder/ct2/bin/pip" install -q ctranslate2==4.8.5 numpy
echo "export MTMOE_HF_PYTHON=$folder/hf/bin/python MTMOE_CT2_PYTHON=$folder/ct2/bin/python"
