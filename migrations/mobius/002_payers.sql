-- Payers and their programs, as the OS knows them. RAG spells them as its documents do; canonical_key is what both meet in.

CREATE TABLE payer (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name           text NOT NULL,
    canonical_key  text GENERATED ALWAYS AS (lower(regexp_replace(name, '[^A-Za-z0-9]+', '-', 'g'))) STORED,
    region         text,
    contact        jsonb NOT NULL DEFAULT '{}'::jsonb,
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX payer_canonical ON payer (canonical_key);

CREATE TABLE program (
    id        uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    payer_id  uuid NOT NULL REFERENCES payer (id) ON DELETE CASCADE,
    name      text NOT NULL,
    line      text NOT NULL CHECK (line IN ('medicaid', 'medicare', 'commercial')),
    valid     daterange NOT NULL DEFAULT '[,)',
    UNIQUE (payer_id, name)
);

-- migrate:down
DROP TABLE program;
DROP TABLE payer;
