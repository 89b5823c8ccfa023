"""Hugging Face's own models, run in an environment of their own (see `oracles.py`); no mtmoe here.

    python hf_oracle.py JOBS.json    does all jobs of a list; their answers as JSON on stdout

A job names its folder, and has `make` (a random model and a tokenizer), `run` (logits, ids and
translations), or both.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    NllbMoeConfig,
    NllbMoeForConditionalGeneration,
    NllbTokenizer,
)

MODELS = {
    "m2m_100": (M2M100Config, M2M100ForConditionalGeneration),
    "nllb-moe": (NllbMoeConfig, NllbMoeForConditionalGeneration),
}
SHARPEN, SHARPEN_OUT = 8, 16
EOS, PAD = 2, 1


def make(folder: Path, spec: dict) -> None:
    """A model of random weights that hears its source and ends, and its tokenizer.

    `spec`: config (of theirs), seed, languages, sentencepiece (path), shard (max_shard_size).
    """
    tokenizer = NllbTokenizer(
        spec["sentencepiece"], additional_special_tokens=spec["languages"],
        src_lang=spec["languages"][0],
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    config_class, model_class = MODELS[spec["config"]["model_type"]]
    size = len(tokenizer) + spec.get("unused", 0)
    torch.manual_seed(spec["seed"])
    config = {k: v for k, v in spec["config"].items() if k != "model_type"}
    model = model_class(config_class(vocab_size=size, **config)).eval()
    model.end_bias = spec["end_bias"]
    sharpen(model)
    never = tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "<unk>", *spec["languages"]])
    model.generation_config.bad_words_ids = [[n] for n in never]  # as mtmoe's search
    model.generation_config.begin_suppress_tokens = [EOS]
    model.save_pretrained(folder, max_shard_size=spec.get("shard", "5GB"))


@torch.no_grad()
def sharpen(model: torch.nn.Module) -> None:
    """Weights large enough for outputs to depend on inputs, and a last bias towards the end."""
    for name, parameter in model.named_parameters():
        if "shared" in name:
            parameter.normal_(0, model.config.d_model**-0.5)
        elif parameter.dim() > 1:
            parameter *= SHARPEN_OUT if "out_proj" in name else SHARPEN
        elif "norm" not in name:
            parameter.normal_(0, 0.1)
    end = model.model.shared.weight[EOS]
    model.model.decoder.layer_norm.bias.copy_(model.end_bias * end / end.square().sum())


@torch.no_grad()
def run(folder: Path, job: dict) -> dict:
    """What the model in `folder` makes of ids and of text.

    `job`: source, target (lists of equally long rows of ids, padded on the right with 1); lines,
    prefix, start, forced, beams.
    """
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    model = MODELS[kind][1].from_pretrained(folder).eval()
    tokenizer = NllbTokenizer.from_pretrained(folder)
    source, target = torch.tensor(job["source"]), torch.tensor(job["target"])
    output = model(
        input_ids=source, attention_mask=(source != PAD).long(), decoder_input_ids=target
    )
    found = {"logits": output.logits.tolist()}
    if "lines" in job:
        found |= translate(model, tokenizer, job)
    return found


def translate(model, tokenizer, job: dict) -> dict:
    """Ids of the lines, and of their translations for each number of beams."""
    tokenizer.src_lang = job["source_lang"]
    texts = [job.get("prefix", "") + line for line in job["lines"]]
    encoded = [tokenizer(text).input_ids for text in texts]
    start = tokenizer.convert_tokens_to_ids(job["target_lang"])
    options = {"forced_bos_token_id": start}
    if job["start"] == "tag":
        options = {"decoder_start_token_id": start}
    hypotheses = {}
    for beams in job["beams"]:
        hypotheses[str(beams)] = [
            ids
            for first in range(0, len(encoded), job["batch"])
            for ids in generate(model, encoded[first : first + job["batch"]], beams, options)
        ]
    return {"ids": encoded, "hypotheses": hypotheses}


def generate(model, rows: list[list[int]], beams: int, options: dict) -> list[list[int]]:
    longest = max(map(len, rows))
    source = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    found = model.generate(
        input_ids=source, attention_mask=(source != PAD).long(), num_beams=beams,
        do_sample=False, early_stopping=True, max_length=100, **options,
    )  # fmt: skip
    return found.tolist()


def main() -> None:
    answers = []
    for job in json.loads(Path(sys.argv[1]).read_text()):
        if "make" in job:
            make(Path(job["folder"]), job["make"])
        answers.append(run(Path(job["folder"]), job["run"]) if "run" in job else None)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
