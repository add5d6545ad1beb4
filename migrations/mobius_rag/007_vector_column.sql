-- Vector search beside the JSON. pgvector is asked for politely: where the server has no such extension, or this role may
-- not create it, the database goes on without, and nothing else in this folder depends on the column.

DO $guard$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') THEN
        RAISE NOTICE 'pgvector is not available here: no embedding_vec, no HNSW index';
        RETURN;
    END IF;

    BEGIN
        CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public;
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE NOTICE 'pgvector is available, but % may not create it: no embedding_vec, no HNSW index', current_user;
        RETURN;
    END;

    EXECUTE 'ALTER TABLE rag_published_embeddings ADD COLUMN embedding_vec vector(1536)';
    IF EXISTS (SELECT FROM pg_am WHERE amname = 'hnsw') THEN   -- pgvector 0.5 and newer
        EXECUTE 'CREATE INDEX rag_published_embeddings_hnsw ON rag_published_embeddings '
             || 'USING hnsw (embedding_vec vector_cosine_ops) WITH (m = 16, ef_construction = 64)';
    END IF;
END
$guard$;

-- migrate:down
-- The extension stays: somebody else in this database may use it by now.
ALTER TABLE rag_published_embeddings DROP COLUMN IF EXISTS embedding_vec;
