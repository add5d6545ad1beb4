-- The verdicts of the past, on the rows that are published. updated_at moves with them: content_sha does not cover the
-- status, so without a new updated_at no reader could tell that these rows have changed.
--
-- There is no way back written here. The old updated_at of each row is gone once this has run; the snapshot has it.

UPDATE rag_published_embeddings AS p
   SET source_verification_status = f.verification_status::text,
       updated_at = now() AT TIME ZONE 'utc'
  FROM extracted_facts AS f
 WHERE p.source_type = 'fact'
   AND p.source_id = f.id
   AND p.source_verification_status IS DISTINCT FROM f.verification_status::text;
