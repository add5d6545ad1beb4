-- Thumbs and comments. Feedback outlives the message it is about: it is what the model is judged by.

CREATE TABLE chat_feedback (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    message_id  uuid REFERENCES chat_messages (id) ON DELETE SET NULL,
    user_id     uuid NOT NULL,
    rating      smallint NOT NULL,
    comment     text,
    client      text NOT NULL DEFAULT 'web/unknown',
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT chat_feedback_once UNIQUE (message_id, user_id)
);

COMMENT ON COLUMN chat_feedback.rating IS 'A thumb up is 1, a thumb down is -1; the old app wrote 1 to 5.';

-- migrate:down
DROP TABLE chat_feedback;
