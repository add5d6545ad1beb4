-- The documents that payers publish, one row a file. What a document says about itself is copied onto every row that is
-- published from it, so a change here is only seen in chat after the next publish.

CREATE DOMAIN sha256_hex AS text CHECK (VALUE ~ '^[0-9a-f]{64}$');
COMMENT ON DOMAIN sha256_hex IS 'A SHA-256 digest in lower-case hexadecimal.';

CREATE TYPE document_state AS ENUM ('uploaded', 'extracting', 'chunking', 'embedding', 'published', 'failed');

CREATE TABLE documents (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    filename          text NOT NULL,
    display_name      text,
    file_hash         sha256_hex NOT NULL,
    storage_path      text NOT NULL,
    state             document_state NOT NULL DEFAULT 'uploaded',
    authority_level   text,
    effective_date    text,
    termination_date  text,
    payer             text,
    region            text,
    program           text,
    status            text,
    review_status     text NOT NULL DEFAULT 'pending' CHECK (review_status IN ('pending', 'approved', 'rejected')),
    reviewed_at       timestamp,
    reviewed_by       text,
    created_at        timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    updated_at        timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    CONSTRAINT documents_file_hash_once UNIQUE (file_hash)
);

COMMENT ON COLUMN documents.effective_date IS 'As printed in the document; many are no dates ("upon approval").';

CREATE INDEX documents_not_published ON documents (created_at) WHERE state <> 'published';

CREATE FUNCTION touch_updated_at() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    NEW.updated_at := now() AT TIME ZONE 'utc';
    RETURN NEW;
END;
$$;

CREATE TRIGGER documents_touch
    BEFORE UPDATE ON documents
    FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*)
    EXECUTE FUNCTION touch_updated_at();

-- migrate:down
DROP TABLE documents;
DROP FUNCTION touch_updated_at();
DROP TYPE document_state;
DROP DOMAIN sha256_hex;
