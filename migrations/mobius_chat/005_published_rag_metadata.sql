-- The published contract of RAG, without the embedding: what the assistant filters and cites by. The vectors are in
-- Vertex AI under the same id. "RAG returns 0 results" meant an empty table here, each time.

CREATE TABLE published_rag_metadata (
    id                          uuid PRIMARY KEY,
    document_id                 uuid NOT NULL,
    source_type                 text NOT NULL,
    source_id                   uuid NOT NULL,
    model                       text,
    created_at                  timestamptz NOT NULL,
    text                        text,
    page_number                 integer,
    paragraph_index             integer,
    section_path                text,
    chapter_path                text,
    summary                     text,
    document_filename           text,
    document_display_name       text,
    document_authority_level    text,
    document_effective_date     text,
    document_termination_date   text,
    document_payer              text,
    document_state              text,
    document_program            text,
    document_status             text,
    document_created_at         timestamptz,
    document_review_status      text,
    document_reviewed_at        timestamptz,
    document_reviewed_by        text,
    content_sha                 text NOT NULL,
    updated_at                  timestamptz NOT NULL,
    source_verification_status  text,
    CONSTRAINT published_rag_metadata_source_type CHECK (source_type IN ('hierarchical', 'fact'))
);

CREATE INDEX published_rag_metadata_document_id ON published_rag_metadata (document_id);
CREATE INDEX published_rag_metadata_updated_at ON published_rag_metadata (updated_at);
CREATE INDEX published_rag_metadata_payer ON published_rag_metadata (document_payer);
CREATE INDEX published_rag_metadata_state ON published_rag_metadata (document_state);
CREATE INDEX published_rag_metadata_program ON published_rag_metadata (document_program);
CREATE INDEX published_rag_metadata_authority_level ON published_rag_metadata (document_authority_level);

COMMENT ON TABLE published_rag_metadata IS 'Written by the publish step alone; the source is mobius_rag.rag_published_embeddings.';

-- migrate:down
DROP TABLE published_rag_metadata;
