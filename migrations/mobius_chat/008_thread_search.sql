-- Searching one's threads by title. Trigrams where the server has them; a plain prefix index everywhere.

-- migrate:allow require-concurrent-index-creation the table is small, and the extension wants a transaction

CREATE INDEX chat_threads_title_prefix ON chat_threads (lower(title) text_pattern_ops);

DO $guard$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
        CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
        EXECUTE 'CREATE INDEX chat_threads_title_trgm ON chat_threads USING gin (title gin_trgm_ops)';
    ELSE
        RAISE NOTICE 'pg_trgm is not available here: no trigram index';
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'pg_trgm is available, but % may not create it: no trigram index', current_user;
END
$guard$;

-- migrate:down
DROP INDEX IF EXISTS chat_threads_title_trgm;
DROP INDEX chat_threads_title_prefix;
