CREATE TABLE auth_session (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id      uuid NOT NULL REFERENCES app_user (id) ON DELETE CASCADE,
    device       text,
    address      inet,
    started_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz,
    CONSTRAINT auth_session_in_order CHECK (last_used_at >= started_at)
);

CREATE INDEX auth_session_live ON auth_session (user_id) WHERE ended_at IS NULL;
