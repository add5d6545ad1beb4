-- One row for each run of the job that fills published_rag_metadata. Read, written and upserted must be the same number,
-- or Vertex AI has vectors that no row explains.

CREATE TABLE sync_runs (
    run_id                 uuid PRIMARY KEY,
    started_at             timestamptz NOT NULL,
    finished_at            timestamptz,
    mart_rows_read         integer,
    postgres_rows_written  integer,
    vector_rows_upserted   integer,
    status                 text NOT NULL,
    error_message          text,
    CONSTRAINT sync_runs_status CHECK (status IN ('running', 'success', 'failure'))
);

-- migrate:down
DROP TABLE sync_runs;
