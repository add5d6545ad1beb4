-- A thread is one conversation. Chat does not start without this table.

CREATE TYPE thread_state AS ENUM ('open', 'waiting', 'closed');

CREATE TABLE chat_threads (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id     uuid NOT NULL,
    tenant_id   uuid NOT NULL,
    title       text NOT NULL DEFAULT '',
    state       thread_state NOT NULL DEFAULT 'open',
    context     jsonb NOT NULL DEFAULT '{}'::jsonb,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX chat_threads_user ON chat_threads (user_id, updated_at DESC);
CREATE INDEX chat_threads_open ON chat_threads (tenant_id) WHERE state <> 'closed';

COMMENT ON COLUMN chat_threads.user_id IS 'app_user.id in mobius_user; another database, so no foreign key.';

CREATE FUNCTION touch_updated_at() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END;
$$;

CREATE TRIGGER chat_threads_touch
    BEFORE UPDATE ON chat_threads
    FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

-- migrate:down
DROP TABLE chat_threads;
DROP FUNCTION touch_updated_at();
DROP TYPE thread_state;
