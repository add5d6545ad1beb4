-- Demo data of mobius_user as it is before the release: V1 to V5 are applied. About 2,400 rows. The tenants and users
-- have the ids that they have in mobius. Plain SQL: psql or one simple query runs it.

INSERT INTO tenant (id, slug, name, created_at)
SELECT md5('tenant ' || n)::uuid, 'clinic-' || n, 'Clinic ' || n, timestamptz '2025-01-06 09:00+00'
  FROM generate_series(1, 5) AS n;

INSERT INTO app_user (id, tenant_id, email, display_name, state, created_at, updated_at)
SELECT md5('user ' || n)::uuid, md5('tenant ' || n % 5 + 1)::uuid, 'User' || n || '@example.org', 'User ' || n,
       CASE WHEN n % 17 = 0 THEN 'locked' ELSE 'active' END::user_state,
       timestamptz '2025-01-06 09:00+00' + n * interval '1 hour', timestamptz '2025-01-06 09:00+00' + n * interval '1 hour'
  FROM generate_series(1, 400) AS n;

INSERT INTO user_role (user_id, role_id, granted_at)
SELECT md5('user ' || n)::uuid, n % 3 + 1, timestamptz '2025-01-06 09:00+00'
  FROM generate_series(1, 400) AS n;

INSERT INTO auth_session (id, user_id, device, address, started_at, last_used_at, ended_at)
SELECT md5('session ' || n)::uuid, md5('user ' || n % 380 + 1)::uuid, (ARRAY['web', 'ios', 'android'])[n % 3 + 1], inet '10.0.0.0' + n,
       timestamptz '2025-05-01 07:00+00' + n * interval '13 minutes', timestamptz '2025-05-01 08:00+00' + n * interval '13 minutes',
       CASE WHEN n % 4 <> 0 THEN timestamptz '2025-05-01 09:00+00' + n * interval '13 minutes' END
  FROM generate_series(1, 1200) AS n;

INSERT INTO user_preference (user_id, language, timezone, flags)
SELECT md5('user ' || n)::uuid, (ARRAY['en', 'es', 'en-US'])[n % 3 + 1], 'America/New_York', jsonb_build_object('compact', n % 2 = 0)
  FROM generate_series(1, 400) AS n;
