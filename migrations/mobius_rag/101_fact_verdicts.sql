-- Who said what about a fact, and where it came from: a reviewer's task in mobius, or a thumb in mobius_chat. The ids of
-- other databases are kept as plain values, as no foreign key reaches them.

CREATE TABLE fact_verdicts (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fact_id      uuid NOT NULL REFERENCES extracted_facts (id) ON DELETE CASCADE,
    verdict      fact_verification NOT NULL CHECK (verdict <> 'unverified'),
    origin       text NOT NULL CHECK (origin IN ('review_task', 'chat_feedback')),
    origin_id    uuid NOT NULL,
    given_by     uuid NOT NULL,
    note         text,
    given_at     timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    CONSTRAINT fact_verdicts_once UNIQUE (origin, origin_id, fact_id)
);

CREATE INDEX fact_verdicts_fact ON fact_verdicts (fact_id, given_at DESC);

COMMENT ON COLUMN fact_verdicts.origin_id IS 'mobius.fact_review_task.id or mobius_chat.chat_feedback.id, as origin says.';
COMMENT ON COLUMN fact_verdicts.given_by IS 'An app_user.id; the same in mobius and mobius_user.';

CREATE FUNCTION apply_fact_verdict() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE extracted_facts
       SET verification_status = NEW.verdict,
           verified_at = NEW.given_at,
           verified_by = NEW.given_by::text
     WHERE id = NEW.fact_id;

    UPDATE rag_published_embeddings
       SET source_verification_status = NEW.verdict::text,
           updated_at = NEW.given_at
     WHERE source_type = 'fact' AND source_id = NEW.fact_id;

    RETURN NULL;
END;
$$;

CREATE TRIGGER fact_verdicts_apply
    AFTER INSERT ON fact_verdicts
    FOR EACH ROW
    EXECUTE FUNCTION apply_fact_verdict();

-- migrate:down
DROP TABLE fact_verdicts;
DROP FUNCTION apply_fact_verdict();
