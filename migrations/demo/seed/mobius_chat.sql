-- Demo data of mobius_chat as it is before the release: the numbers below 100 are applied. About 26,000 rows.
-- published_rag_metadata is as a sync job leaves it that stopped too early, so that the publish step has something to do:
-- against the source it lacks 320 rows, has 75 of an older text, 12 that only spell their document's status differently, and
-- 25 of a document that is gone. The SELECT of the published rows stands in the seed of mobius_rag, too: change both or none.
-- Some feedback is about messages that are deleted. The second release of the demo falls over it.
-- Plain SQL: psql or one simple query runs it.

INSERT INTO chat_threads (id, user_id, tenant_id, title, state, context, created_at, updated_at)
SELECT md5('thread ' || n)::uuid, md5('user ' || n % 400 + 1)::uuid, md5('tenant ' || n % 5 + 1)::uuid,
       CASE WHEN n % 9 = 0 THEN '' ELSE 'Question about manual ' || n % 300 + 1 END,
       (ARRAY['open', 'waiting', 'closed', 'closed'])[n % 4 + 1]::thread_state, jsonb_build_object('payer', 'Payer No. ' || n % 12 + 1),
       timestamptz '2025-05-02 08:00+00' + n * interval '20 minutes', timestamptz '2025-05-02 08:10+00' + n * interval '20 minutes'
  FROM generate_series(1, 800) AS n;

INSERT INTO chat_messages (id, thread_id, position, author, body, created_at)
SELECT md5('message ' || n || '/' || p)::uuid, md5('thread ' || n)::uuid, p, CASE WHEN p % 2 = 0 THEN 'user' ELSE 'assistant' END::message_author,
       CASE WHEN p % 2 = 0 THEN 'How long may a request take?' ELSE 'Within ' || n % 10 + 1 || ' days, says manual ' || n % 300 + 1 || '.' END,
       timestamptz '2025-05-02 08:00+00' + n * interval '20 minutes' + p * interval '1 minute'
  FROM generate_series(1, 800) AS n, generate_series(0, 3) AS p;

INSERT INTO chat_progress_events (message_id, stage, payload, occurred_at)
SELECT md5('message ' || n || '/' || p)::uuid, stage, jsonb_build_object('step', position),
       timestamptz '2025-05-02 08:00+00' + n * interval '20 minutes' + p * interval '1 minute' + position * interval '2 seconds'
  FROM generate_series(1, 800) AS n, (VALUES (1), (3)) AS answer (p),
       unnest(ARRAY['retrieve', 'answer', 'done']) WITH ORDINALITY AS stages (stage, position)
 ORDER BY n, p, position;

INSERT INTO llm_calls (message_id, model, tokens_in, tokens_out, cost_usd, duration, called_at)
SELECT md5('message ' || n || '/' || p)::uuid, 'gemini-2.0-flash', 900 + n, 40 + p, (900 + n) * 0.0000004, interval '1.5 seconds',
       timestamptz '2025-05-02 08:00+00' + n * interval '20 minutes' + p * interval '1 minute'
  FROM generate_series(1, 800) AS n, (VALUES (1), (3)) AS answer (p);

INSERT INTO answer_citations (message_id, rank, published_id, source_id, score)
SELECT md5('message ' || n || '/1')::uuid, r, md5('published ' || n % 300 + 1 || '/' || 30 + r)::uuid, md5('fact ' || n % 300 + 1 || '/' || 30 + r)::uuid, 0.9 - r * 0.1
  FROM generate_series(1, 800) AS n, generate_series(1, 2) AS r;

INSERT INTO retrieval_traces (id, message_id, query, filters, rows_found, rows_used, traced_at)
SELECT md5('trace ' || n)::uuid, md5('message ' || n || '/1')::uuid, 'request time limit', jsonb_build_object('payer', 'Payer No. ' || n % 12 + 1),
       20, 2, timestamptz '2025-05-02 08:01+00' + n * interval '20 minutes'
  FROM generate_series(1, 800) AS n;

-- Every eleventh message that feedback was given on has been deleted since, which left message_id NULL.
INSERT INTO chat_feedback (id, message_id, user_id, rating, comment, client, created_at)
SELECT md5('feedback ' || n)::uuid, CASE WHEN n % 11 <> 0 THEN md5('message ' || n || '/1')::uuid END, md5('user ' || n % 400 + 1)::uuid,
       CASE WHEN n % 11 = 0 THEN n % 5 + 1 WHEN n % 4 = 0 THEN -1 ELSE 1 END,
       CASE WHEN n % 4 = 0 THEN 'The number of days is wrong; the manual says 14.' END,
       CASE WHEN n % 11 = 0 THEN 'legacy/1.4' ELSE (ARRAY['web/3.1', 'ios/2.0; beta', 'android/2.0'])[n % 3 + 1] END,
       timestamptz '2025-05-03 08:00+00' + n * interval '20 minutes'
  FROM generate_series(1, 600) AS n;

INSERT INTO compliance.access_log (actor_id, thread_id, action, occurred_at)
SELECT md5('user ' || n % 400 + 1)::uuid, md5('thread ' || n)::uuid, 'read', timestamptz '2025-05-04 08:00+00' + n * interval '20 minutes'
  FROM generate_series(1, 800) AS n;

-- As published, save for the last eight documents. The timestamps of the source are UTC and get their zone here.
INSERT INTO published_rag_metadata (id, document_id, source_type, source_id, model, created_at, text, page_number, paragraph_index,
    section_path, chapter_path, summary, document_filename, document_display_name, document_authority_level,
    document_effective_date, document_termination_date, document_payer, document_state, document_program, document_status,
    document_created_at, document_review_status, document_reviewed_at, document_reviewed_by, content_sha, updated_at)
SELECT row.id, row.document_id, row.source_type, row.source_id, row.model, row.created_at AT TIME ZONE 'UTC', row.text,
       row.page_number, row.paragraph_index, row.section_path, row.chapter_path, row.summary, row.document_filename,
       row.document_display_name, row.document_authority_level, row.document_effective_date, row.document_termination_date,
       row.document_payer, row.document_state, row.document_program, row.document_status,
       row.document_created_at AT TIME ZONE 'UTC', row.document_review_status, row.document_reviewed_at AT TIME ZONE 'UTC',
       row.document_reviewed_by,
       encode(sha256(convert_to(row.document_id || '|' || row.source_id || '|' || row.text, 'UTF8')), 'hex'),
       row.updated_at AT TIME ZONE 'UTC'
  FROM (
    SELECT md5('published ' || d || '/' || k)::uuid                                                        AS id,
           md5('document ' || d)::uuid                                                                     AS document_id,
           CASE WHEN k <= 30 THEN 'hierarchical' ELSE 'fact' END                                           AS source_type,
           md5(CASE WHEN k <= 30 THEN 'chunk ' ELSE 'fact ' END || d || '/' || k)::uuid                    AS source_id,
           'text-embedding-004'                                                                            AS model,
           timestamp '2025-04-01 06:00' + d * interval '1 hour'                                            AS created_at,
           CASE WHEN k <= 30 THEN 'Paragraph ' || k || ' of manual ' || d || ': prior authorization within ' || k % 14 + 1 || ' days.'
                ELSE 'Requests under manual ' || d || ' are answered within ' || k % 10 + 1 || ' days.' END AS text,
           k % 12 + 1                                                                                      AS page_number,
           CASE WHEN k <= 30 THEN k END                                                                    AS paragraph_index,
           CASE WHEN k <= 30 THEN 'Chapter ' || k % 4 + 1 || ' > Section ' || k END                        AS section_path,
           CASE WHEN k <= 30 THEN 'Chapter ' || k % 4 + 1 END                                              AS chapter_path,
           CASE WHEN k <= 30 AND k % 3 = 0 THEN 'About the time that a request may take.' END              AS summary,
           'manual-' || d || '.pdf'                                                                        AS document_filename,
           'Provider manual ' || d                                                                         AS document_display_name,
           (ARRAY['contract', 'manual', 'bulletin'])[d % 3 + 1]                                            AS document_authority_level,
           '2025-01-01'                                                                                    AS document_effective_date,
           CASE WHEN d % 10 = 0 THEN '2025-12-31' END                                                      AS document_termination_date,
           'Payer No. ' || d % 12 + 1                                                                      AS document_payer,
           (ARRAY['FL', 'TX', 'NY', 'CA'])[d % 4 + 1]                                                      AS document_state,
           'Program ' || d % 36 + 1                                                                        AS document_program,
           'active'                                                                                        AS document_status,
           timestamp '2025-04-01 05:00' + d * interval '1 hour'                                            AS document_created_at,
           CASE WHEN d % 5 = 0 THEN 'pending' ELSE 'approved' END                                          AS document_review_status,
           CASE WHEN d % 5 <> 0 THEN timestamp '2025-04-20 10:00' + d * interval '1 hour' END              AS document_reviewed_at,
           CASE WHEN d % 5 <> 0 THEN 'user' || d || '@example.org' END                                     AS document_reviewed_by,
           timestamp '2025-05-01 06:00:00.123456' + (d * 40 + k) * interval '1 minute'                     AS updated_at
      FROM generate_series(1, 292) AS d, generate_series(1, 40) AS k
  ) AS row;

-- Different: the texts of these were changed at the source, and the job never came by again. 75 rows.
UPDATE published_rag_metadata
   SET text = 'Draft. ' || text,
       content_sha = encode(sha256(convert_to(document_id || '|' || source_id || '|' || 'Draft. ' || text, 'UTF8')), 'hex'),
       updated_at = updated_at - interval '9 days'
 WHERE id IN (SELECT md5('published ' || d || '/' || k)::uuid FROM generate_series(1, 25) AS d, generate_series(1, 3) AS k);

-- Different where neither content_sha nor updated_at tells: 12 rows.
UPDATE published_rag_metadata
   SET document_status = 'Active'
 WHERE id IN (SELECT md5('published ' || d || '/5')::uuid FROM generate_series(101, 112) AS d);

-- Orphans: a document that RAG has withdrawn. 25 rows.
INSERT INTO published_rag_metadata (id, document_id, source_type, source_id, created_at, text, document_display_name, content_sha, updated_at)
SELECT md5('orphan ' || k)::uuid, md5('withdrawn')::uuid, 'hierarchical', md5('orphan chunk ' || k)::uuid, timestamptz '2025-02-01 06:00+00',
       'Withdrawn paragraph ' || k, 'Withdrawn manual',
       encode(sha256(convert_to(md5('withdrawn')::uuid || '|' || md5('orphan chunk ' || k)::uuid || '|Withdrawn paragraph ' || k, 'UTF8')), 'hex'),
       timestamptz '2025-02-01 06:00+00'
  FROM generate_series(1, 25) AS k;

INSERT INTO sync_runs (run_id, started_at, finished_at, mart_rows_read, postgres_rows_written, vector_rows_upserted, status, error_message) VALUES
    (md5('sync 1')::uuid, '2025-05-09 02:00+00', '2025-05-09 02:04+00', 11680, 11680, 11680, 'success', NULL),
    (md5('sync 2')::uuid, '2025-05-10 02:00+00', '2025-05-10 02:01+00', 12000, 0, 0, 'failure', 'connection to server was lost');

REFRESH MATERIALIZED VIEW feedback_daily;
