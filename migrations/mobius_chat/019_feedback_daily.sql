-- For the weekly review. Refreshed by the nightly job; CONCURRENTLY, which is what the unique index is for.

CREATE MATERIALIZED VIEW feedback_daily AS
SELECT (f.created_at AT TIME ZONE 'UTC')::date       AS day,
       count(*)                                      AS given,
       count(*) FILTER (WHERE f.rating > 0)          AS up,
       count(*) FILTER (WHERE f.rating < 0)          AS down,
       count(*) FILTER (WHERE f.comment IS NOT NULL) AS with_comment
  FROM chat_feedback f
 GROUP BY 1
  WITH DATA;

CREATE UNIQUE INDEX feedback_daily_day ON feedback_daily (day);

COMMENT ON MATERIALIZED VIEW feedback_daily IS 'Feedback by day (UTC).';

-- migrate:down
DROP MATERIALIZED VIEW feedback_daily;
