-- The text of every page, as extracted. Words are counted by the database, so that no writer can get them wrong.

CREATE TABLE document_pages (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    document_id  uuid NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    page_number  integer NOT NULL CHECK (page_number > 0),
    text         text NOT NULL DEFAULT '',
    characters   integer GENERATED ALWAYS AS (length(text)) STORED,
    extracted_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    CONSTRAINT document_pages_once UNIQUE (document_id, page_number)
);
