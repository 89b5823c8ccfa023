"""Hugging Face and CTranslate2; runs in the environment that benchmarks/peers.sh makes.

The libraries are imported by name when a row is built: they are not installed beside mtmoe.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.translate_calls import batch_sorted, make_calls, read_work
from benchmarks.worker import Call

PAD, EOS = 1, 2
CLASSES = {"dense": "M2M100ForConditionalGeneration", "moe16": "NllbMoeForConditionalGeneration"}


def build_huggingface(options: dict[str, Any]) -> dict[str, Call]:
    """`generate` of the same weights as M2M-100, or NLLB-MoE for experts; ids to ids.

    Args:
        options: model, threads, beams, batches, folder.
    """
    folder = Path(options["folder"])
    work = read_work(folder)
    torch.set_num_threads(options["threads"])
    transformers = import_module("transformers")
    kind = getattr(transformers, CLASSES[options["model"]])
    model = kind.from_pretrained(folder / f"{options['model']}_huggingface").eval()
    model.generation_config = transformers.GenerationConfig(
        pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=work.start
    )

    def translate(beam: int, batch: int) -> int:
        return sum(
            _generate(model, rows, beam, work.length) for rows in batch_sorted(work.ids, batch)
        )

    return make_calls(options, translate)


def _generate(model: Any, rows: Sequence[Sequence[int]], beam: int, length: int) -> int:
    longest = max(map(len, rows))
    source = torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])
    found = model.generate(
        input_ids=source, attention_mask=(source != PAD).long(), num_beams=beam, do_sample=False,
        early_stopping=beam > 1, min_new_tokens=length, max_new_tokens=length,
    )  # fmt: skip
    return int(found[:, 1:].numel())  # without the start


def build_ctranslate2(options: dict[str, Any]) -> dict[str, Call]:
    """CTranslate2 on the same weights; pieces to pieces.

    Args:
        options: model, dtype, workers, threads (of each worker), beams, batches, folder.
    """
    folder = Path(options["folder"])
    work = read_work(folder)
    translator = import_module("ctranslate2").Translator(
        str(_converted(folder, options["model"])), device="cpu", compute_type=options["dtype"],
        inter_threads=options["workers"], intra_threads=options["threads"],
    )  # fmt: skip
    prefix = [[work.pieces[0][1]]] * len(work.pieces)  # the target language's tag

    def translate(beam: int, batch: int) -> int:
        found = translator.translate_batch(
            work.pieces, target_prefix=prefix, beam_size=beam, max_batch_size=batch,
            min_decoding_length=work.length, max_decoding_length=work.length,
        )  # fmt: skip
        return sum(len(result.hypotheses[0]) for result in found)

    return make_calls(options, translate)


def _converted(folder: Path, model: str) -> Path:
    """The checkpoint as CTranslate2 reads it; made by the first row that needs it."""
    out = folder / f"{model}_ctranslate2"
    if not out.exists():
        load = import_module("mtmoe.checkpoint.fairseq_file").load_checkpoint
        checkpoint = load(folder / f"{model}.pt")
        out.mkdir()
        import_module("mtmoe.interop.ctranslate2_out").write_folder(checkpoint, out)
    return out
