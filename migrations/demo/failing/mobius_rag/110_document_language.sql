-- The second release: documents say which language they are in. Harmless by itself; it goes back with the release when
-- the step of mobius_chat fails.

ALTER TABLE documents ADD COLUMN language text NOT NULL DEFAULT 'en' CHECK (language ~ '^[a-z]{2}$');

COMMENT ON COLUMN documents.language IS 'ISO 639-1.';

-- migrate:down
ALTER TABLE documents DROP COLUMN language;
