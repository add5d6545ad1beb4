-- A thumb can now be about one fact of an answer, not only about the answer. RAG takes these over as verdicts
-- (mobius_rag.fact_verdicts, origin "chat_feedback").

CREATE TYPE fact_opinion AS ENUM ('confirms', 'disputes');

CREATE TABLE feedback_facts (
    feedback_id  uuid NOT NULL REFERENCES chat_feedback (id) ON DELETE CASCADE,
    fact_id      uuid NOT NULL,
    opinion      fact_opinion NOT NULL,
    note         text CHECK (length(note) <= 2000),
    sent_to_rag  timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (feedback_id, fact_id)
);

CREATE INDEX feedback_facts_to_send ON feedback_facts (created_at) WHERE sent_to_rag IS NULL;

COMMENT ON COLUMN feedback_facts.fact_id IS 'extracted_facts.id in mobius_rag, as published_rag_metadata.source_id has it.';

-- migrate:down
DROP TABLE feedback_facts;
DROP TYPE fact_opinion;
