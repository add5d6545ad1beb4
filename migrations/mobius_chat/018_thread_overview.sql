CREATE VIEW thread_overview AS
SELECT t.id,
       t.user_id,
       t.title,
       t.state,
       count(m.id)       AS messages,
       max(m.created_at) AS last_message_at
  FROM chat_threads t
  LEFT JOIN chat_messages m ON m.thread_id = t.id
 GROUP BY t.id;

-- Title of a thread as the side bar shows it.
CREATE FUNCTION thread_label(thread chat_threads) RETURNS text
    LANGUAGE sql STABLE
    RETURN CASE WHEN thread.title = '' THEN 'Conversation of ' || to_char(thread.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')
                ELSE left(thread.title, 60)
           END;

-- How an answer is doing: the number beside the thumb.
CREATE FUNCTION answer_score(answer uuid) RETURNS integer
    LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (SELECT coalesce(sum(f.rating), 0) FROM chat_feedback f WHERE f.message_id = answer);
END;
$$;

-- migrate:down
DROP FUNCTION answer_score(uuid);
DROP FUNCTION thread_label(chat_threads);
DROP VIEW thread_overview;
