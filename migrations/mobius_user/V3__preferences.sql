CREATE TABLE user_preference (
    user_id     uuid PRIMARY KEY REFERENCES app_user (id) ON DELETE CASCADE,
    language    text NOT NULL DEFAULT 'en',
    timezone    text NOT NULL DEFAULT 'UTC',
    flags       jsonb NOT NULL DEFAULT '{}'::jsonb
);

CREATE INDEX user_preference_flags ON user_preference USING gin (flags);

COMMENT ON COLUMN user_preference.flags IS 'Switches of the user interface; a flag that is missing is off.';
