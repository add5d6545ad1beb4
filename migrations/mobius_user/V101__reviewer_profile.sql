-- What a reviewer may judge: facts of these payers, up to this many a day.

CREATE TABLE reviewer_profile (
    user_id      uuid PRIMARY KEY REFERENCES app_user (id) ON DELETE CASCADE,
    payer_keys   text[] NOT NULL DEFAULT '{}',
    daily_limit  smallint NOT NULL DEFAULT 40 CHECK (daily_limit BETWEEN 1 AND 500),
    is_paused    boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX reviewer_profile_payers ON reviewer_profile USING gin (payer_keys) WHERE NOT is_paused;

COMMENT ON COLUMN reviewer_profile.payer_keys IS 'payer.canonical_key in mobius.';
