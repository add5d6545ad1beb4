-- How far each document has come, as the upload page shows it; and the errors met on the way.

CREATE TABLE processing_errors (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document_id  uuid NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    stage        document_state NOT NULL,
    message      text NOT NULL CHECK (message <> ''),
    details      jsonb,
    is_resolved  boolean NOT NULL DEFAULT false,
    occurred_at  timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE INDEX processing_errors_open ON processing_errors (document_id, occurred_at DESC) WHERE NOT is_resolved;

CREATE VIEW document_progress AS
SELECT d.id,
       d.display_name,
       d.state,
       (SELECT count(*) FROM hierarchical_chunks c WHERE c.document_id = d.id) AS chunks,
       (SELECT count(*) FROM extracted_facts f WHERE f.document_id = d.id)     AS facts,
       (SELECT count(*) FROM rag_published_embeddings p WHERE p.document_id = d.id) AS published,
       EXISTS (SELECT FROM processing_errors e WHERE e.document_id = d.id AND NOT e.is_resolved) AS has_open_errors
  FROM documents d;

-- migrate:down
DROP VIEW document_progress;
DROP TABLE processing_errors;
