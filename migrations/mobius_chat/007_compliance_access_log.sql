-- Who saw which conversation. Rows are added and never touched again: the trigger is not decoration, an auditor asks
-- for it. A table without its trigger is the failure that this file must never end in, hence the check at its end.

CREATE SCHEMA compliance;
COMMENT ON SCHEMA compliance IS 'Records that are kept for auditors. Append-only.';

CREATE TABLE compliance.access_log (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    actor_id     uuid NOT NULL,
    thread_id    uuid NOT NULL,
    action       text NOT NULL CHECK (action IN ('read', 'export', 'delete')),
    reason       text NOT NULL DEFAULT 'care; operations',
    occurred_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX access_log_thread ON compliance.access_log (thread_id, occurred_at);

CREATE FUNCTION compliance.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
AS $body$
BEGIN
    RAISE EXCEPTION 'compliance.% is append-only; % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation',
              HINT = E'Add a correcting row; what was recorded isn\'t changed.';
END;
$body$;

CREATE TRIGGER access_log_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON compliance.access_log
    FOR EACH STATEMENT EXECUTE FUNCTION compliance.refuse_change();

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_trigger
         WHERE tgrelid = 'compliance.access_log'::regclass AND tgname = 'access_log_append_only'
    ) THEN
        RAISE EXCEPTION 'compliance.access_log has no append-only trigger';
    END IF;
END
$$;

-- migrate:down
DROP TABLE compliance.access_log;
DROP FUNCTION compliance.refuse_change();
DROP SCHEMA compliance;
