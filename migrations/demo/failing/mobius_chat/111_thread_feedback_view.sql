CREATE VIEW thread_feedback AS
SELECT f.thread_id,
       count(*)      AS given,
       avg(f.rating) AS average
  FROM chat_feedback f
 GROUP BY f.thread_id;

COMMENT ON VIEW thread_feedback IS 'What the team lead sees beside each conversation.';

-- migrate:down
DROP VIEW thread_feedback;
