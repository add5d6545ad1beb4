-- From here on every feedback has its thread.
--
-- This is the migration that fails, and it fails the way such migrations do: 110 found the thread through the message,
-- and the old app gave feedback on messages that are deleted by now. Those rows have message_id NULL, so they got no
-- thread, and nobody saw them on the developers' machines, where no message was ever deleted. The fix is to decide
-- what becomes of these rows, in a migration of its own, before this one.

CREATE INDEX chat_feedback_thread ON chat_feedback (thread_id, created_at DESC);

COMMENT ON COLUMN chat_feedback.thread_id IS 'The thread of the message; kept when the message is gone.';

ALTER TABLE chat_feedback
    ALTER COLUMN thread_id SET NOT NULL;

-- migrate:down
ALTER TABLE chat_feedback ALTER COLUMN thread_id DROP NOT NULL;
COMMENT ON COLUMN chat_feedback.thread_id IS NULL;
DROP INDEX chat_feedback_thread;
