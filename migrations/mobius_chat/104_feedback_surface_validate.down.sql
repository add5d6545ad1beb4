ALTER TABLE chat_feedback
    DROP CONSTRAINT chat_feedback_surface,
    ADD CONSTRAINT chat_feedback_surface CHECK (surface IN ('web', 'app', 'api')) NOT VALID;
