"""JSON schema of what `attn status --json` prints."""

STRING, NUMBER, BOOL, NULL = {"type": "string"}, {"type": "number"}, {"type": "boolean"}, {"type": "null"}
TEXT = {"type": "string", "minLength": 1}


def array(items, **limits):
    return {"type": "array", "items": items, **limits}


def maybe(schema):
    return {"anyOf": [schema, NULL]}


def entry(**properties):
    """An object with exactly these keys."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


PATH = {"type": "string", "pattern": r"^results/.+/seed\d+\.json$"}
PROFILE = {"enum": ["cpu", "gpu", "paper"]}
INTERVAL = array(NUMBER, minItems=2, maxItems=2)
DETAIL = entry(
    std=maybe(NUMBER), quartiles=maybe(array(NUMBER, minItems=2)), seeds={"type": "integer", "minimum": 1}, seed_values=array(NUMBER, minItems=1), scale=TEXT,
    device=TEXT, seconds=NUMBER, unit=STRING, records=array(PATH, minItems=1),
)  # fmt: skip
FRESHNESS = {"enum": ["fresh", "revalidated", "stale", None]}
CELL = entry(
    column=TEXT,
    kind={"enum": ["exact", "recomputed", "measured", "quoted", "own", "setting"]},
    paper={"type": ["number", "string", "null"]},
    values={
        "type": "object",
        "propertyNames": {"enum": ["exact", "recomputed", "cpu", "gpu", "paper"]},
        "additionalProperties": {"type": ["number", "string"]},
    },
    state={
        "enum": [
            "matches",
            "differs",
            "fitted",
            "unverified",
            "recorded",
            "pending",
            "quoted",
            "own",
            "setting",
        ]
    },
    verified=BOOL,
    matches={"enum": ["yes", "no", "fitted", None]},
    freshness=FRESHNESS,
    note=maybe(STRING),
    detail={"type": "object", "propertyNames": PROFILE, "additionalProperties": DETAIL},
)
ROW = entry(
    id=TEXT,
    label=TEXT,
    quoted=BOOL,
    command=maybe({"type": "string", "pattern": "^attn run "}),
    cells=array(CELL, minItems=1),
)
TABLE = entry(
    id=TEXT, whose={"type": "string", "pattern": "^the "}, caption=TEXT, checked={"enum": ["two sources", "one source", "memory only"]}, read_off=BOOL, source=maybe(STRING),
    notes=STRING, columns=array(entry(name=TEXT, role={"enum": ["label", "setting", "value"]}), minItems=1),
    rows=array(ROW, minItems=1),
)  # fmt: skip
CLAIM = entry(
    id=TEXT, fact=TEXT, statement=TEXT, table=TEXT, kind={"enum": ["order", "equality", "arithmetic"]}, measure=STRING,
    unit=STRING, verdict={"enum": ["holds", "fails", "not tested at this scale"]}, contradicted=maybe(BOOL),
    profile=maybe(PROFILE),
    seeds={"type": "integer", "minimum": 0}, estimate=maybe(NUMBER), interval=maybe(INTERVAL), margin=maybe(NUMBER),
    control=maybe(entry(statement=TEXT, interval=INTERVAL, shown=BOOL)), freshness=FRESHNESS, reason=maybe(TEXT),
)  # fmt: skip
RECORD = entry(
    path=PATH, experiment=TEXT, profile=PROFILE,
    seed={"type": "integer", "minimum": 0}, freshness={"enum": ["fresh", "revalidated", "stale"]}, why=maybe(TEXT),
    device=TEXT, seconds=NUMBER, commit=TEXT, torch=TEXT, date={"type": "string", "pattern": r"^\d{4}-\d\d-\d\d$"},
)  # fmt: skip
STATUS = array(
    entry(
        id=TEXT,
        number={"type": "integer", "minimum": 1},
        title=TEXT,
        short_title=TEXT,
        notebook=TEXT,
        headline=TEXT,
        tables=array(TABLE, minItems=1),
        claims=array(CLAIM),
        records=array(RECORD),
        deviations=array(entry(id=TEXT, place=TEXT, paper=TEXT, ours=TEXT, switch=TEXT, effect=maybe(TEXT))),
        skipped=array(entry(path=TEXT, reason=TEXT)),
    )  # fmt: skip
)
