-- The second release: feedback is read by thread, and reaching the thread through the message costs a join each time.

ALTER TABLE chat_feedback
    ADD COLUMN thread_id uuid REFERENCES chat_threads (id) ON DELETE CASCADE;

UPDATE chat_feedback AS f
   SET thread_id = m.thread_id
  FROM chat_messages AS m
 WHERE m.id = f.message_id;

-- migrate:down
ALTER TABLE chat_feedback DROP COLUMN thread_id;
