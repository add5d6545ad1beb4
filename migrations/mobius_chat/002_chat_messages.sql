CREATE TYPE message_author AS ENUM ('user', 'assistant', 'system');

CREATE TABLE chat_messages (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    thread_id   uuid NOT NULL REFERENCES chat_threads (id) ON DELETE CASCADE,
    position    integer NOT NULL CHECK (position >= 0),
    author      message_author NOT NULL,
    body        text NOT NULL,
    words       tsvector GENERATED ALWAYS AS (to_tsvector('english'::regconfig, body)) STORED,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT chat_messages_position_once UNIQUE (thread_id, position) DEFERRABLE INITIALLY IMMEDIATE
);

CREATE INDEX chat_messages_words ON chat_messages USING gin (words);
