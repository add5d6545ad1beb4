-- Single statements that a model found in a chunk, such as "Prior authorization is needed for MRI".

CREATE TYPE fact_kind AS ENUM ('requirement', 'limit', 'deadline', 'contact', 'other');

CREATE TABLE extracted_facts (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    document_id   uuid NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    chunk_id      uuid REFERENCES hierarchical_chunks (id) ON DELETE SET NULL,
    kind          fact_kind NOT NULL DEFAULT 'other',
    fact_text     text NOT NULL,
    page_number   integer,
    confidence    numeric(4, 3) NOT NULL,
    is_pertinent  boolean,
    reviewed_at   timestamp,
    reviewed_by   text,
    tags          jsonb NOT NULL DEFAULT '{}'::jsonb,
    created_at    timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE INDEX extracted_facts_document ON extracted_facts (document_id);
CREATE INDEX extracted_facts_chunk ON extracted_facts (chunk_id);
CREATE INDEX extracted_facts_tags ON extracted_facts USING gin (tags jsonb_path_ops);

COMMENT ON COLUMN extracted_facts.is_pertinent IS 'What the reviewer said; NULL until somebody looked.';

-- migrate:down
DROP TABLE extracted_facts;
DROP TYPE fact_kind;
