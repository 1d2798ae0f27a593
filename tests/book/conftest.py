"""A made-up status and made-up records, of the form that the real ones have."""

import json
from pathlib import Path

import pytest

from attn.reproduction.records import write_record

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def status():
    """One chapter with every state, verdict and freshness there is."""
    return json.loads((Path(__file__).parent / "status.json").read_text("utf-8"))


def record(experiment, profile, seed):
    """The least that fits the schema of records."""
    metric = {"value": 0.25, "unit": "bits per sequence", "definition": "made up for a test"}
    return {
        "schema": 1,
        "paper": "graves2014ntm",
        "experiment": experiment,
        "profile": profile,
        "seed": seed,
        "config": {},
        "code": {"commit": None, "clean": None, "sources": {"attn.ntm": "0" * 64}},
        "environment": {
            "python": "3.11",
            "torch": "2.13.0",
            "cuda": None,
            "packages": {},
            "device": "Example CPU",
            "device_count": 1,
            "dtype": "float32",
            "threads": 1,
        },
        "data": {},
        "run": {
            "finished": "2026-11-21",
            "seconds": 1.5,
            "steps": 2,
            "seen": 4,
            "unit": "sequences",
            "units_per_second": 2.0,
            "peak_memory_bytes": 1,
            "parameters": 1,
            "share": "nothing",
        },
        "replay": {"losses": [1.0]},
        "history": [{"step": 1, "seen": 2}],
        "metrics": {"cost": metric, "errors": metric},
        "artifact": None,
    }


@pytest.fixture
def results(tmp_path, monkeypatch, status):
    """A results folder with the records that the status names, a file cut short, and a foreign one."""
    folder = tmp_path / "results"
    for entry in status[0]["records"]:
        write_record(folder, record(entry["experiment"], entry["profile"], entry["seed"]), {})
    (folder / "graves2014ntm/copy/ntm_lstm/cpu/seed9.json").write_text("{half")
    (folder / "foreign.json").write_text("[]")
    monkeypatch.setenv("ATTN_RESULTS", str(folder))
    return folder
