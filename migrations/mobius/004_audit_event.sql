CREATE TABLE audit_event (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    actor_id     uuid,
    action       text NOT NULL,
    subject      text NOT NULL,
    data         jsonb,
    occurred_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX audit_event_subject ON audit_event (subject, occurred_at DESC);
CREATE INDEX audit_event_day ON audit_event USING brin (occurred_at);

COMMENT ON COLUMN audit_event.actor_id IS 'No foreign key: what a user did is kept when the user is gone.';

-- migrate:down
DROP TABLE audit_event;
