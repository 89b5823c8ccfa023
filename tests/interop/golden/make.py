"""Make the golden folders anew: `MTMOE_HF_PYTHON=... python -m tests.interop.golden.make`.

Each is a tiny model of Hugging Face's own, with what `transformers==4.46.3` says of it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from tests.interop.foreign_models import LANGUAGES, padded_ids, real_lines, small_sentencepiece
from tests.interop.oracles import HF, ask

FOLDERS = {name: Path(__file__).parent / name for name in ("dense", "moe")}
EXPECTED = "expected.json"
KEPT = ("config.json", "model.safetensors", "sentencepiece.bpe.model", "special_tokens_map.json",
        "added_tokens.json")  # fmt: skip
SIZES = {
    "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "max_position_embeddings": 256,
}  # fmt: skip
KINDS = {
    "dense": {"model_type": "m2m_100", **SIZES},
    "moe": {"model_type": "nllb-moe", "num_experts": 3, "encoder_sparse_step": 1,
            "decoder_sparse_step": 1, **SIZES},
}  # fmt: skip
BEAMS = [1, 4]
LINES = 10


def copy_folder(source: Path, target: Path) -> Path:
    """A copy to damage, without what is expected."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(EXPECTED))
    return target


def main() -> None:
    """Write both folders."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "sp.model").write_bytes(small_sentencepiece())
        source, target = padded_ids(80)
        asked = {
            "source": source.tolist(), "target": target.tolist(), "lines": real_lines()[:LINES],
            "source_lang": LANGUAGES[1], "target_lang": LANGUAGES[0], "start": "end_and_tag",
            "beams": BEAMS, "batch": 5,
        }  # fmt: skip
        jobs = [
            {
                "folder": str(base / kind), "run": asked,
                "make": {"config": config, "seed": 3, "languages": LANGUAGES, "end_bias": 3.0,
                         "sentencepiece": str(base / "sp.model")},
            }
            for kind, config in KINDS.items()
        ]  # fmt: skip
        for (kind, folder), answer in zip(
            FOLDERS.items(), ask(HF, "hf_oracle.py", jobs, base), strict=True
        ):
            folder.mkdir(exist_ok=True)
            for file in KEPT:
                shutil.copyfile(base / kind / file, folder / file)
            answer["logits"] = [[[round(x, 6) for x in r] for r in s] for s in answer["logits"][:2]]
            (folder / EXPECTED).write_text(json.dumps(answer, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
