-- Demo data of mobius_rag as it is before the release: the numbers below 100 are applied. About 25,000 rows, 12,000 of
-- them published: 300 documents of 30 paragraphs and 10 facts. Every value is computed from a counter, because the seed of
-- mobius_chat computes the same rows again: change the SELECT of the published rows in both files or in none.
-- The embeddings have 8 numbers where production has 1536, to be quick. Plain SQL: psql or one simple query runs it.

INSERT INTO documents (id, filename, display_name, file_hash, storage_path, state, authority_level, effective_date,
                       termination_date, payer, region, program, status, review_status, reviewed_at, reviewed_by,
                       created_at, updated_at)
SELECT md5('document ' || d)::uuid, 'manual-' || d || '.pdf', 'Provider manual ' || d,
       encode(sha256(('manual ' || d)::bytea), 'hex'), 'manuals/' || d || '.pdf', 'published',
       (ARRAY['contract', 'manual', 'bulletin'])[d % 3 + 1], '2025-01-01', CASE WHEN d % 10 = 0 THEN '2025-12-31' END,
       'Payer No. ' || d % 12 + 1, (ARRAY['FL', 'TX', 'NY', 'CA'])[d % 4 + 1], 'Program ' || d % 36 + 1, 'active',
       CASE WHEN d % 5 = 0 THEN 'pending' ELSE 'approved' END,
       CASE WHEN d % 5 <> 0 THEN timestamp '2025-04-20 10:00' + d * interval '1 hour' END,
       CASE WHEN d % 5 <> 0 THEN 'user' || d || '@example.org' END,
       timestamp '2025-04-01 05:00' + d * interval '1 hour', timestamp '2025-04-20 10:00' + d * interval '1 hour'
  FROM generate_series(1, 300) AS d;

INSERT INTO document_pages (id, document_id, page_number, text, extracted_at)
SELECT md5('page ' || d || '/' || p)::uuid, md5('document ' || d)::uuid, p, 'Page ' || p || ' of manual ' || d,
       timestamp '2025-04-01 05:30' + d * interval '1 hour'
  FROM generate_series(1, 300) AS d, generate_series(1, 3) AS p;

INSERT INTO hierarchical_chunks (id, document_id, page_number, paragraph_index, chapter_path, section_path, text, summary, created_at)
SELECT md5('chunk ' || d || '/' || k)::uuid, md5('document ' || d)::uuid, k % 12 + 1, k, 'Chapter ' || k % 4 + 1,
       'Chapter ' || k % 4 + 1 || ' > Section ' || k,
       'Paragraph ' || k || ' of manual ' || d || ': prior authorization within ' || k % 14 + 1 || ' days.',
       CASE WHEN k % 3 = 0 THEN 'About the time that a request may take.' END,
       timestamp '2025-04-01 06:00' + d * interval '1 hour'
  FROM generate_series(1, 300) AS d, generate_series(1, 30) AS k;

-- Of ten facts, four were looked at: three are right, one is not.
INSERT INTO extracted_facts (id, document_id, chunk_id, kind, fact_text, page_number, confidence, is_pertinent, reviewed_at, reviewed_by, tags, created_at)
SELECT md5('fact ' || d || '/' || k)::uuid, md5('document ' || d)::uuid, md5('chunk ' || d || '/' || k - 30)::uuid, 'deadline',
       'Requests under manual ' || d || ' are answered within ' || k % 10 + 1 || ' days.', k % 12 + 1, 0.5 + (k % 10) * 0.05,
       CASE WHEN k <= 34 THEN k <> 34 END,
       CASE WHEN k <= 34 THEN timestamp '2025-04-21 10:00' + d * interval '1 hour' END,
       CASE WHEN k <= 34 THEN 'user' || d || '@example.org' END,
       jsonb_build_object('topic', 'timing', 'line', k % 3), timestamp '2025-04-01 06:30' + d * interval '1 hour'
  FROM generate_series(1, 300) AS d, generate_series(31, 40) AS k;

INSERT INTO embedding_jobs (document_id, model, state, attempts, enqueued_at, finished_at)
SELECT md5('document ' || d)::uuid, 'text-embedding-004', 'done', 1, timestamp '2025-04-01 06:00' + d * interval '1 hour',
       timestamp '2025-04-01 06:10' + d * interval '1 hour'
  FROM generate_series(1, 300) AS d;

INSERT INTO processing_errors (document_id, stage, message, details, is_resolved, occurred_at)
SELECT md5('document ' || d)::uuid, 'extracting', 'page ' || d % 3 + 1 || ' has no text; sent to OCR', jsonb_build_object('dpi', 150),
       d % 50 <> 0, timestamp '2025-04-01 05:40' + d * interval '1 hour'
  FROM generate_series(25, 300, 25) AS d;

INSERT INTO rag_published_embeddings (id, document_id, source_type, source_id, model, created_at, text, page_number, paragraph_index,
    section_path, chapter_path, summary, document_filename, document_display_name, document_authority_level,
    document_effective_date, document_termination_date, document_payer, document_state, document_program, document_status,
    document_created_at, document_review_status, document_reviewed_at, document_reviewed_by, updated_at, content_sha, embedding)
SELECT row.*,
       encode(sha256(convert_to(row.document_id || '|' || row.source_id || '|' || row.text, 'UTF8')), 'hex'),
       (SELECT jsonb_agg(round(sin(row.page_number * n)::numeric, 4)) FROM generate_series(1, 8) AS n)
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
      FROM generate_series(1, 300) AS d, generate_series(1, 40) AS k
  ) AS row;
