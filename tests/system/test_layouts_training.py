"""Stock fairseq-train under torchrun: any layout of ranks trains as one process does."""

from __future__ import annotations

import functools

import pytest

from tests.torchrun import check_equal, start, train
from tests.toy_data import write_toy_data

LAYOUTS = {
    "data": (2, ["--zero", "parameters"]),
    "expert": (2, ["--expert-parallel-size", "2", "--state-location", "host"]),
    "tensor": (2, ["--tensor-parallel-size", "2"]),
    "expert and tensor": (
        4,
        ["--expert-parallel-size", "2", "--tensor-parallel-size", "2", "--deduplicate-tokens",
         "--zero", "gradients", "--checkpoint-activations", "keep_communication"],
    ),
}  # fmt: skip


def batches_of(name):
    """How many different batches the ranks of a layout read."""
    num_ranks, options = LAYOUTS[name]
    return num_ranks // (2 if "--tensor-parallel-size" in options else 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_toy_data(tmp_path_factory.mktemp("layouts") / "data-bin")


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """One process that takes the ranks' batches as micro-batches, after 5 and after 10 updates."""
    folder = tmp_path_factory.mktemp("alone")

    @functools.cache
    def trained(count, num_updates):
        options = ["--update-freq", str(count), "--max-update", str(num_updates)]
        return train(1, data, folder / f"{count}-{num_updates}", *options)

    return trained


@pytest.mark.long
@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_layout_trains_as_one_process_and_the_next_one_resumes_it(data, alone, tmp_path, name):
    num_ranks, options = LAYOUTS[name]
    count = batches_of(name)
    found = train(num_ranks, data, tmp_path / "run", *options, "--max-update", "5")
    check_equal(found, alone(count, 5))
    others = [other for other in LAYOUTS if batches_of(other) == count]
    following = others[(others.index(name) + 1) % len(others)]
    num_ranks, options = LAYOUTS[following]
    found = train(num_ranks, data, tmp_path / "run", *options, "--max-update", "10")
    check_equal(found, alone(count, 10))


@pytest.mark.slow
def test_sharded_and_gathered_checkpoints_resume_on_any_layout(data, alone, tmp_path):
    steps = [("4", 1, ["--update-freq", "2"]), ("7", *LAYOUTS["expert"]), ("10", *LAYOUTS["data"])]
    for number, (updates, num_ranks, options) in enumerate(steps):
        kind = "gathered" if number == 2 else "sharded"
        options = [*options, "--checkpoint-format", kind, "--max-update", updates]
        found = train(num_ranks, data, tmp_path / "run", *options)
    check_equal(found, alone(2, 10))
    assert not list((tmp_path / "run" / "shards").iterdir()), "no file names them any more"


REFUSED = {
    "--expert-parallel-size=3": "must divide the number of ranks (2), but is 3 * 1",
    "--no-save-optimizer-state": "no_save_optimizer_state must be off where several ranks",
}


@pytest.mark.slow
@pytest.mark.parametrize("option", list(REFUSED))
def test_what_cannot_work_is_one_sentence(data, tmp_path, option):
    process = start(2, data, tmp_path / "run", option)
    out = process.communicate(timeout=100)[0]
    assert process.returncode
    assert REFUSED[option] in out
    assert "multitask_translation.py" not in out, "no traceback"
