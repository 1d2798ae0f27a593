"""What a run would cost is told without its corpus, and nothing is fetched for it."""

import pytest
import torch

from attn.data.errors import FileMissing
from attn.experiments.transformer import CHAPTER
from attn.reproduction import runner

CPU = torch.device("cpu")


@pytest.fixture
def asked(monkeypatch):
    """Nothing is here: the files that were asked for, each without leave to download."""
    found = []

    def locate(corpus, file_id, *, download):
        assert not download
        found.append(file_id)
        raise FileMissing(file_id)

    monkeypatch.setattr(runner, "locate", locate)
    return found


def grid(experiment, profile):
    (chosen,) = [each for each in CHAPTER.experiments if each.id == experiment]
    return runner.jobs(CHAPTER, [chosen], profile, None)


def test_a_missing_corpus_is_named_with_the_sizes_that_are_known(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_build", lambda *given: pytest.fail("it would fetch the corpus"))
    cost = runner.estimate(grid("wmt14_en_de/base", "paper"), tmp_path, CPU)
    assert cost.seconds is None and asked[0] == "europarl-v7.en"
    assert cost.memory_bytes == cost.disk_bytes == pytest.approx(16 * 63.046e6, rel=1e-3)
    assert cost.rows() == ["wmt14_en_de/base  time not known  seed 0"]
    said = str(cost)
    assert "minutes" not in said and "at least 1.0 GB of memory" in said
    assert said.endswith(
        "the time of wmt14_en_de/base, 100,000 updates of 25,000 each, and the memory of its activations are not known: "
        "europarl-v7.en of wmt14-en-de is not here, and a dry run fetches nothing"
    )


def test_only_the_files_of_its_languages_and_splits_are_looked_for(asked, monkeypatch):
    (job, *_) = grid("multi30k_en_de/transformer", "cpu")
    corpus = job.experiment.config("cpu").corpus

    def here(known, file_id, *, download):
        asked.append(file_id)

    monkeypatch.setattr(runner, "locate", here)
    assert runner._missing_file(corpus) is None
    assert {name.rpartition(".")[2] for name in asked} == {"en", "de"}
    assert {"train.en", "test_2016_flickr.de"} <= set(asked) and not [n for n in asked if "2017" in n]


def test_generated_sentences_are_never_missing(asked):
    (job, *_) = grid("table3/base", "cpu")
    assert runner._missing_file(job.experiment.config("cpu").corpus) is None and not asked


def test_a_run_may_fetch(monkeypatch, tmp_path):
    given = {}

    class Stop(Exception):
        pass

    def estimate(jobs, results, device, **options):
        given.update(options)
        raise Stop

    monkeypatch.setattr(runner, "estimate", estimate)
    with pytest.raises(Stop):
        runner.run_grid(grid("table3/base", "cpu"), results=tmp_path, runs=tmp_path, device=CPU)
    assert given["fetch"]
