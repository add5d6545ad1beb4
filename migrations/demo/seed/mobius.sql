-- Demo data of mobius as it is before the release: the numbers below 100 are applied. About 5,900 rows.
-- Every value is computed from a counter, so that two runs give the same rows. Plain SQL: psql or one simple query runs it.

INSERT INTO tenant (id, slug, name, created_at)
SELECT md5('tenant ' || n)::uuid, 'clinic-' || n, 'Clinic ' || n, timestamptz '2025-01-06 09:00+00'
  FROM generate_series(1, 5) AS n;

INSERT INTO app_user (id, tenant_id, role_id, email, display_name, is_active, created_at, updated_at)
SELECT md5('user ' || n)::uuid, md5('tenant ' || n % 5 + 1)::uuid, n % 3 + 1, 'user' || n || '@example.org', 'User ' || n,
       n % 17 <> 0, timestamptz '2025-01-06 09:00+00' + n * interval '1 hour', timestamptz '2025-01-06 09:00+00' + n * interval '1 hour'
  FROM generate_series(1, 400) AS n;

INSERT INTO payer (id, name, region, contact, created_at)
SELECT md5('payer ' || n)::uuid, 'Payer No. ' || n, (ARRAY['FL', 'TX', 'NY', 'CA'])[n % 4 + 1],
       jsonb_build_object('phone', '555-01' || lpad(n::text, 2, '0')), timestamptz '2025-01-06 09:00+00'
  FROM generate_series(1, 12) AS n;

INSERT INTO program (id, payer_id, name, line)
SELECT md5('program ' || n)::uuid, md5('payer ' || n % 12 + 1)::uuid, 'Program ' || n, (ARRAY['medicaid', 'medicare', 'commercial'])[n % 3 + 1]
  FROM generate_series(1, 36) AS n;

-- The trigger writes one work_item_event for each.
INSERT INTO work_item (id, tenant_id, payer_id, assigned_to, state, priority, title, details, created_at, updated_at)
SELECT md5('item ' || n)::uuid, md5('tenant ' || n % 5 + 1)::uuid, md5('payer ' || n % 12 + 1)::uuid, md5('user ' || n % 400 + 1)::uuid,
       (ARRAY['new', 'assigned', 'blocked', 'done', 'dropped'])[n % 5 + 1]::work_item_state, n % 5 + 1, 'Item ' || n,
       jsonb_build_object('source', CASE WHEN n % 3 = 0 THEN 'chat' ELSE 'fax' END, 'pages', n % 9),
       timestamptz '2025-03-01 08:00+00' + n * interval '40 minutes', timestamptz '2025-03-01 08:00+00' + n * interval '50 minutes'
  FROM generate_series(1, 2500) AS n;

INSERT INTO audit_event (actor_id, action, subject, data, occurred_at)
SELECT md5('user ' || n % 400 + 1)::uuid, 'sign_in', 'user/' || n % 400 + 1, NULL, timestamptz '2025-05-01 07:00+00' + n * interval '7 minutes'
  FROM generate_series(1, 500) AS n;

REFRESH MATERIALIZED VIEW tenant_load;
