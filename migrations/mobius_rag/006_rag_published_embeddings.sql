-- What RAG publishes: the source of mobius_chat.published_rag_metadata, column by column. Every timestamp is UTC and
-- WITHOUT time zone; the reader adds the zone. content_sha covers document_id, source_id and text, and nothing else.

CREATE TABLE rag_published_embeddings (
    id                          uuid PRIMARY KEY,
    document_id                 uuid NOT NULL,
    source_type                 text NOT NULL,
    source_id                   uuid NOT NULL,
    model                       text,
    created_at                  timestamp NOT NULL,
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
    document_created_at         timestamp,
    document_review_status      text,
    document_reviewed_at        timestamp,
    document_reviewed_by        text,
    content_sha                 text NOT NULL,
    updated_at                  timestamp NOT NULL,
    source_verification_status  text,
    embedding                   jsonb,
    CONSTRAINT rag_published_embeddings_source_type CHECK (source_type IN ('hierarchical', 'fact'))
);

CREATE INDEX rag_published_embeddings_document_id ON rag_published_embeddings (document_id);
CREATE INDEX rag_published_embeddings_updated_at ON rag_published_embeddings (updated_at);
CREATE INDEX rag_published_embeddings_payer ON rag_published_embeddings (document_payer);
CREATE INDEX rag_published_embeddings_state ON rag_published_embeddings (document_state);
CREATE INDEX rag_published_embeddings_program ON rag_published_embeddings (document_program);
CREATE INDEX rag_published_embeddings_authority_level ON rag_published_embeddings (document_authority_level);

COMMENT ON TABLE rag_published_embeddings IS 'The published contract: change it together with mobius_chat.published_rag_metadata.';
COMMENT ON COLUMN rag_published_embeddings.source_id IS 'A hierarchical_chunks.id or an extracted_facts.id, as source_type says.';

-- migrate:down
DROP TABLE rag_published_embeddings;
