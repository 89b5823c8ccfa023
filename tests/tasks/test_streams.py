"""Training on sampled streams with stock fairseq-train."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
import torch
from fairseq.logging import metrics

from data_prep.mmap_files import write_mmap
from data_prep.vocabulary import add_task_symbols
from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.config import BatchMix, EncoderTags, MultitaskConfig, SamplingConfig, TaskTokens
from mtmoe.data.mixture import Mixture, Stream
from mtmoe.data.sampler import Budget
from mtmoe.data.vocabulary import EOS
from mtmoe.errors import CheckpointError, ConfigError, DataError
from mtmoe.inference.engine import Translator
from mtmoe.tasks.data_bin import OneSplit, load_side, load_vocabulary
from mtmoe.tasks.direction_dataset import split_to_multiple
from mtmoe.tasks.stream_dataset import Dealing, StreamDataset, make_iterator
from mtmoe.tasks.streams import find_streams, load_stream
from tests.fairseq_run import train
from tests.tasks.test_training import assert_same_state

MIX = "translation=6,denoising=2,modelling=1,title=1"
NAMES = ["denoising:aa", "modelling:aa", "title:aa-bb"]


@pytest.fixture(scope="module")
def folder(toy_data, tmp_path_factory):
    """Toy data with monolingual text of `aa`, and texts in `aa` with titles in both."""
    folder = shutil.copytree(toy_data, tmp_path_factory.mktemp("streams") / "data-bin")
    for name in ("mono", "titles"):
        (folder / name).mkdir()
    for split in ("train", "valid"):
        for kind in ("bin", "idx"):
            text, title = (folder / f"{split}.aa-bb.{side}.{kind}" for side in ("aa", "bb"))
            shutil.copy(text, folder / f"mono/{split}.aa.{kind}")
            shutil.copy(text, folder / f"titles/{split}.aa-bb.aa.text.{kind}")
            shutil.copy(title, folder / f"titles/{split}.aa-bb.bb.title.{kind}")
            shutil.copy(text, folder / f"titles/{split}.aa-bb.aa.title.{kind}")
    add_task_symbols(folder)
    return folder


def config_of(folder, **options):
    return MultitaskConfig(str(folder), sampling=SamplingConfig(task_mix=MIX), **options)


def load(folder, name, **options):
    split = OneSplit(folder, "train")
    return load_stream(config_of(folder, **options), load_vocabulary(folder), split, name, 1)


def test_symbols_are_added_once_before_the_tags(toy_data, folder):
    before, after = load_vocabulary(toy_data), load_vocabulary(folder)
    added = ("<mask>", "<denoising>", "<modelling>", "<title>")
    assert after.symbols == (*before.symbols[:-3], *added, *before.symbols[-3:])
    assert after.languages == before.languages
    text = (folder / "dict.aa.txt").read_text("utf-8")
    add_task_symbols(folder)
    assert (folder / "dict.aa.txt").read_text("utf-8") == text
    assert after.decode([[after.index["<mask>"], *after.encode(["abc"])[0]]]) == ["abc"]
    with pytest.raises(DataError, match=r"DATA-BIN must hold dict\.LANG\.txt"):
        add_task_symbols(folder / "none")


def streams_of(folder, mix):
    config = MultitaskConfig(str(folder), sampling=SamplingConfig(task_mix=mix))
    return find_streams(config, OneSplit(folder, "train"))


def test_streams_are_found_by_the_names_of_their_files(folder):
    languages = ("aa", "bb", "cc")  # the last two by their sides of pairs
    texts = [f"{task}:{code}" for task in ("denoising", "modelling") for code in languages]
    assert streams_of(folder, MIX) == [*texts, "title:aa-aa", "title:aa-bb"]
    assert streams_of(folder, "translation") == []
    with pytest.raises(ConfigError, match="task_mix must be among translation, denoising"):
        streams_of(folder, "dreaming")


def test_a_language_without_text_of_its_own_has_its_side_of_the_largest_pair(tmp_path):
    (tmp_path / "mono").mkdir()
    for name, size in (("en-aa.en", 3), ("en-bb.en", 5), ("en-cc.en", 4), ("en-dd.dd", 0)):
        write_mmap(tmp_path / f"train.{name}", [[5, EOS]] * size, 100)
    write_mmap(tmp_path / "valid.en-dd.en", [[5, EOS]] * 9, 100)
    write_mmap(tmp_path / "mono/train.dd", [[5, EOS]], 100)
    write_mmap(tmp_path / "mono/train.en", [], 100)
    found = OneSplit(tmp_path, "train").texts
    assert found == {"dd": tmp_path / "mono/train.dd", "en": tmp_path / "train.en-bb.en"}


def test_titles_that_several_pairs_have_are_those_of_the_largest(tmp_path):
    (tmp_path / "titles").mkdir()
    for pair, size in (("en-aa", 2), ("en-bb", 3), ("en-cc", 0)):
        for side in pair.split("-"):
            for part in ("text", "title"):
                prefix = tmp_path / f"titles/train.{pair}.{side}.{part}"
                write_mmap(prefix, [[5, EOS]] * size, 100)
    titles = OneSplit(tmp_path, "train").titles
    pairs = ["aa-aa", "aa-en", "bb-bb", "bb-en", "en-aa", "en-bb", "en-en"]
    assert sorted(titles) == pairs
    names = ("train.en-bb.en.text", "train.en-bb.en.title")
    assert titles["en-en"] == tuple(tmp_path / "titles" / name for name in names)
    assert [path.name for path in titles["aa-en"]] == [
        "train.en-aa.aa.text",
        "train.en-aa.en.title",
    ]


@pytest.mark.parametrize("tags", list(EncoderTags))
@pytest.mark.parametrize("token", list(TaskTokens))
def test_what_encoder_and_decoder_read_of_each_task(folder, tags, token):
    vocabulary = load_vocabulary(folder)
    text, titles = (load_side(folder, "train", "aa-bb", side) for side in ("aa", "bb"))
    for name in NAMES:
        stream = load(folder, name, encoder_tags=tags, task_tokens=token)
        target = "bb" if name.startswith("title") else "aa"
        languages = {"source": ["aa"], "target": [target], "both": ["aa", target]}[tags.value]
        expected = [vocabulary.tag(language) for language in languages]
        if token is TaskTokens.others:
            expected.append(vocabulary.index[f"<{name.split(':')[0]}>"])
        assert stream.source_tags == expected
        assert stream.target_tag == vocabulary.tag(target)
        wanted = titles if target == "bb" else text
        assert all(torch.equal(stream.target[row], wanted[row]) for row in range(9))
    assert load(folder, "modelling:aa").source[5].tolist() == [EOS]
    assert torch.equal(load(folder, "title:aa-bb").source[5], text[5])
    noised = load(folder, "denoising:aa").source
    changed = [not torch.equal(noised[row], text[row]) for row in range(100)]
    assert sum(changed) > 60
    assert all(noised[row][-1] == EOS for row in range(100))
    assert all(len(noised[row]) <= len(text[row]) for row in range(600))


def iterator_of(folder, mix, rank, num_ranks, update_freq):
    streams = [load(folder, name) for name in NAMES]
    sizes = [Stream(s.name, len(s.source)) for s in streams]
    sampling = SamplingConfig(task_mix="denoising=2,modelling=1,title=1", batch_mix=mix)
    budget = Budget(200, None, (1000, 1000))
    dealing = Dealing(num_ranks, rank, update_freq, 12)
    dataset = StreamDataset(streams, [0, 1, 2])
    mixture = Mixture(sizes, sampling, 1.0)
    return make_iterator(dataset, mixture, budget, 1, dealing=dealing, epoch=1, num_workers=0)


def read(iterator, count=None):
    """The next sentences of a rank, batch by batch, as the model reads them."""
    items = iterator.next_epoch_itr(shuffle=True)
    limit = len(items) if count is None else count
    keys = ("id", "target")
    found = []
    for _ in range(limit):
        batch = next(items)
        found.append(
            [batch[k].tolist() for k in keys] + [batch["net_input"]["src_tokens"].tolist()]
        )
    return found


@pytest.mark.filterwarnings("ignore:.*pin_memory")
@pytest.mark.parametrize("mix", list(BatchMix))
def test_all_numbers_of_ranks_read_one_sequence_also_after_a_resume(folder, mix):
    whole = read(iterator_of(folder, mix, 0, 1, 4))
    assert len(whole) == 48
    for num_ranks in (1, 2, 4):
        found = [None] * 48
        for rank in range(num_ranks):
            first = iterator_of(folder, mix, rank, num_ranks, 4 // num_ranks)
            begun = read(first, 20 // num_ranks)  # 5 of 12 updates
            resumed = iterator_of(folder, mix, rank, num_ranks, 4 // num_ranks)
            resumed.load_state_dict(first.state_dict())
            found[rank::num_ranks] = begun + read(resumed, 28 // num_ranks)
        assert found == whole
    other = iterator_of(folder, mix, 0, 1, 4)
    other.load_state_dict(first.state_dict())  # saved on 4 ranks, goes on with one
    assert read(other, 28) == whole[20:]


@pytest.mark.filterwarnings("ignore:.*pin_memory")
def test_a_state_of_other_streams_or_updates_is_refused(folder):
    first = iterator_of(folder, BatchMix.mixed, 0, 1, 4)
    read(first, 20)
    state = first.state_dict()
    with pytest.raises(CheckpointError, match=r"ranks x update_freq must be as in the interrupted"):
        iterator_of(folder, BatchMix.mixed, 0, 1, 3).load_state_dict(state)
    state["begin"]["names"] = ["aa-bb"]
    with pytest.raises(CheckpointError, match="samples the same tasks and directions"):
        iterator_of(folder, BatchMix.mixed, 0, 1, 4).load_state_dict(state)


OPTIONS = [
    "--task-mix", MIX, "--epoch-updates", "6", "--sampling-temperature", "2",
    "--mask-ratio", "0:0.1/9:0.5", "--join-updates", "aa-cc=3", "--update-freq", "2",
    "--loss-power", "1", "--min-share", "0.05", "--max-share", "0.9", "--permutation", "0.5",
    "--span-length", "2", "--random-ratio", "0.2", "--deletion-ratio", "0.1",
]  # fmt: skip


def test_training_on_all_tasks_resumes_exactly_within_and_between_epochs(folder, tmp_path):
    whole = train(folder, tmp_path / "whole", *OPTIONS, "--max-update", "15")
    for updates in ("4", "6", "15"):
        parts = train(folder, tmp_path / "parts", *OPTIONS, "--max-update", updates)
    assert_same_state(whole, parts)
    state = parts["extra_state"]["train_iterator"]
    assert state["seen"] == whole["extra_state"]["train_iterator"]["seen"]
    assert state["epoch"] == 3
    assert set(state["losses"]) == {"aa-bb", "aa-cc", "bb-aa", "cc-aa"}
    shares = {name: count / sum(state["seen"].values()) for name, count in state["seen"].items()}
    for task, asked in (("denoising", 0.2), ("title", 0.1)):
        found = sum(share for name, share in shares.items() if name.startswith(task))
        assert found == pytest.approx(asked, rel=0.1)
    translator = Translator.from_checkpoint(tmp_path / "parts" / "checkpoint_last.pt")
    assert len(translator.translate(["abc ab", "j"], "aa", "bb", beam=2)) == 2


def test_shares_are_logged_and_single_batches_train(folder, tmp_path, monkeypatch):
    seen, log = [], metrics.log_scalar

    def keep(name, value, *args, **kwargs):
        seen.append((name, value))
        log(name, value, *args, **kwargs)

    monkeypatch.setattr("mtmoe.tasks.multitask_translation.metrics.log_scalar", keep)
    options = ["--task-mix", MIX, "--batch-mix", "single", "--max-update", "20"]
    subsets = ["--valid-subset", "valid,valid_denoising:aa,valid_modelling:aa,valid_title:aa-bb"]
    more = ["--epoch-updates", "20", "--direction-shares", "aa-cc=0.5", "--task-tokens", "none"]
    state = train(folder, tmp_path / "run", *options, *subsets, *more)
    names = {name for name, _ in seen}
    assert {"share_denoising", "share_modelling", "share_title", "share_translation"} <= names
    last = dict(seen)
    assert last["share_denoising"] == pytest.approx(0.2, abs=0.05)
    losses = state["extra_state"]["train_iterator"]["new_losses"]
    assert {"denoising:aa", "modelling:aa", "title:aa-bb", "aa-bb"} <= set(losses)
    assert load_checkpoint(tmp_path / "run/checkpoint_last.pt").directions == (
        "aa-bb", "aa-cc", "bb-aa", "cc-aa",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task-mix", "translation,denoising"], "the dictionaries must hold <denoising>, but do"),
        (["--task-mix", "translation,title"], "task_mix must be among translation, but is 'title'"),
        (["--task-mix", "sleeping"], "task_mix must be among translation, denoising, modelling"),
        (["--mask-ratio", "2"], "mask_ratio must be at most 1, but is '2'"),
        (["--span-length", "0.5"], "span_length must be 0 (a mask for each token) or from 1 to"),
        (["--span-length", "1e300"], "span_length must be 0 (a mask for each token) or from 1 to"),
    ],
)
def test_what_the_folder_lacks_is_told(toy_data, folder, tmp_path, capsys, options, message):
    data = shutil.copytree(toy_data, tmp_path / "data-bin")
    if "ratio" in options[0]:
        data, options = folder, [*options, "--task-mix", MIX]
    with pytest.raises(SystemExit) as stop:
        train(data, tmp_path / "run", "--max-update", "1", *options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_batches_are_split_until_their_number_is_a_multiple():
    batches = [np.arange(n) for n in (5, 1, 8)]
    split = split_to_multiple(batches, 4)
    assert [len(batch) for batch in split] == [5, 1, 4, 4]
    assert split_to_multiple(batches, 3) == batches
    assert len(split_to_multiple([np.arange(1)], 4)) == 1


def test_unequal_sides_are_named(folder, tmp_path):
    data = shutil.copytree(folder, tmp_path / "data-bin")
    write_mmap(data / "titles/train.aa-bb.bb.title", [[5, EOS]], 100)
    logging.disable(logging.NOTSET)
    with pytest.raises(DataError, match="both sides of title:aa-bb in train must have as many"):
        load(data, "title:aa-bb")
