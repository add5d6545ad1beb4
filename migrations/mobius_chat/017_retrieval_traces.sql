-- Two people took the number 017 on the same day. Both files were applied, in the order of their names, and must stay.

CREATE TABLE retrieval_traces (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    message_id    uuid NOT NULL REFERENCES chat_messages (id) ON DELETE CASCADE,
    query         text NOT NULL,
    filters       jsonb NOT NULL DEFAULT '{}'::jsonb,
    rows_found    integer NOT NULL DEFAULT 0,
    rows_used     integer NOT NULL DEFAULT 0,
    traced_at     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT retrieval_traces_used CHECK (rows_used <= rows_found)
);

CREATE INDEX retrieval_traces_filters ON retrieval_traces USING gin (filters);
CREATE INDEX retrieval_traces_empty ON retrieval_traces (traced_at) WHERE rows_found = 0;

-- migrate:down
DROP TABLE retrieval_traces;
