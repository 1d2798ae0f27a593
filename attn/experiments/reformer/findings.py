def answer(records: Records) -> list[str]:
    """The conclusion in short: what is nearest to the paper and to the replication, and what that rests on."""
    said = _sentences(records)
    wanted = ("together, the paper", "column, the replication")
    found = _nearest("whole", "Whole grid", records) or [said[key] for key in wanted if key in said]
    return [*found, _rests_on(records)] if found else NO_RECORDS


def _rests_on(records: Records) -> str:
    """How many kinds and seeds the answer comes from, what is missing, and what had not converged."""
    there, missing = split((*CONVENTIONS, *HASHED, *CODE_MODELS), records)
    counts = [len(records[name]) for name in there]
    kinds = sum(name in CONVENTIONS for name in there)
    codes = {CODE_MODELS[name][1] for name in there if name in CODE_MODELS}
    few = f"{span_of(counts)} seed{'s' * (max(counts) > 1)} of each model"
    line = (
        f"This rests on {kinds} of {len(CONVENTIONS)} kinds of full attention, {len(codes)} of {len(CODES)} public "
        f"codes, {few}"
    )
    late = [name for name in there if not all(map(has_converged, records[name]))]
    if min(counts) > 1 and not missing and not late:
        return f"{line}; all of them had converged."
    doubts = [f"Not recorded yet: {names(missing)}."] * bool(missing)
    doubts += [f"Not converged: {names(late)}."] * bool(late)
    return " ".join([f"{line}, and may change.", *doubts])


