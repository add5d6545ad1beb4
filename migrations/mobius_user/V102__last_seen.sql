-- Review tasks go to people who are here. The last use of any session says so; it was too slow to look up each time.

ALTER TABLE app_user ADD COLUMN last_seen_at timestamptz;

UPDATE app_user AS u
   SET last_seen_at = s.last_used_at
  FROM (SELECT user_id, max(last_used_at) AS last_used_at FROM auth_session GROUP BY user_id) AS s
 WHERE s.user_id = u.id;

-- refinery has no way back of its own: what undoes a version is the snapshot.
COMMENT ON COLUMN app_user.last_seen_at IS 'The last use of any session.';
