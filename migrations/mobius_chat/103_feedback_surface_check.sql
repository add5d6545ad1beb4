-- The writers that are deployed send 'web' and 'app'; 'api' is what the back-fill found. NOT VALID first: the lock is
-- held for a moment only, and old rows are looked at in 104.

ALTER TABLE chat_feedback
    ADD CONSTRAINT chat_feedback_surface CHECK (surface IN ('web', 'app', 'api')) NOT VALID;

-- migrate:down
ALTER TABLE chat_feedback DROP CONSTRAINT chat_feedback_surface;
