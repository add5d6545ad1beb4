-- "Find the document called something like …", for the upload page. pg_trgm is in the contrib package, which not every
-- server has installed; without it the page searches by prefix, which the plain index serves.

-- migrate:allow require-concurrent-index-creation the table is small, and the extension wants a transaction

CREATE INDEX documents_display_name_prefix ON documents (lower(display_name) text_pattern_ops);

DO $guard$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
        CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
        EXECUTE 'CREATE INDEX documents_display_name_trgm ON documents USING gin (display_name gin_trgm_ops)';
    ELSE
        RAISE NOTICE 'pg_trgm is not available here: no trigram index';
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'pg_trgm is available, but % may not create it: no trigram index', current_user;
END
$guard$;

-- migrate:down
DROP INDEX IF EXISTS documents_display_name_trgm;
DROP INDEX documents_display_name_prefix;
