"""Results of benchmarks, made up."""

import json


def row(name="copy, batch 1", heap="default", *, seconds=(0.002, 0.009), goal=4, disturbed=False):
    """A row with the variants "ours" and "theirs", and a goal against theirs."""
    ours = seconds[0]
    return {
        "heap": heap,
        "name": name,
        "rounds": 15,
        "goal": None if goal is None else {"against": "theirs", "ratio": goal},
        "probe_gflops": [101.0, 98.0],
        "disturbed": disturbed,
        "variants": [
            {
                "name": variant,
                "seconds": value,
                "quartiles": [0.95 * value, 1.1 * value],
                "rate": 1 / value,
                "ratio": value / ours,
            }
            for variant, value in zip(("ours", "theirs"), seconds, strict=True)
        ],
    }


def result(*rows, benchmark="ntm", device="cpu", threads=1):
    """A result with these rows, or with one for each heap."""
    return {
        "schema": 1,
        "benchmark": benchmark,
        "unit": "sequences",
        "finished": "2026-11-21",
        "environment": {
            "python": "3.11.2",
            "torch": "2.13.0",
            "cuda": None if device == "cpu" else "13.0",
            "packages": {},
            "device": device,
            "cpu": "Example <Processor>",
            "device_count": 1,
            "dtype": "float32",
            "threads": threads,
        },
        "code": {"commit": "a" * 40, "clean": True},
        "rows": list(rows) or [row(heap="default"), row(heap="kept")],
    }


def store(results, data, name="cpu", folder=None):
    """Write a result where it belongs, or into another folder below speed/; returns the path."""
    path = results / "speed" / (folder or data["benchmark"]) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path
