-- The badge under an answer: how many of the facts it cites are verified. And the score learns about the old app, whose
-- 1 to 5 were being summed up as if they were thumbs.

CREATE MATERIALIZED VIEW verified_answers AS
SELECT c.message_id,
       count(*)                                                              AS cited,
       count(*) FILTER (WHERE p.source_verification_status = 'verified')     AS verified,
       count(*) FILTER (WHERE p.source_verification_status = 'rejected')     AS rejected
  FROM answer_citations c
  JOIN published_rag_metadata p ON p.id = c.published_id
 WHERE p.source_type = 'fact'
 GROUP BY c.message_id
  WITH DATA;

CREATE UNIQUE INDEX verified_answers_message ON verified_answers (message_id);

COMMENT ON MATERIALIZED VIEW verified_answers IS 'Refreshed by the nightly job; the first verdicts are published after this view is made, so they show the next day.';

CREATE OR REPLACE FUNCTION answer_score(answer uuid) RETURNS integer
    LANGUAGE plpgsql STABLE
AS $$
DECLARE
    score integer;
BEGIN
    SELECT coalesce(sum(CASE WHEN f.rating IN (-1, 1) AND f.client NOT LIKE 'legacy/%' THEN f.rating
                             WHEN f.rating >= 4 THEN 1
                             WHEN f.rating <= 2 THEN -1
                             ELSE 0
                        END), 0)
      INTO score
      FROM chat_feedback f
     WHERE f.message_id = answer;
    RETURN score;
END;
$$;

-- migrate:down
CREATE OR REPLACE FUNCTION answer_score(answer uuid) RETURNS integer
    LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (SELECT coalesce(sum(f.rating), 0) FROM chat_feedback f WHERE f.message_id = answer);
END;
$$;

DROP MATERIALIZED VIEW verified_answers;
