-- Paragraphs with the path of headings above them: "Chapter 2 > Prior authorization > Imaging".

CREATE TABLE hierarchical_chunks (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    document_id      uuid NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    page_number      integer,
    paragraph_index  integer NOT NULL,
    chapter_path     text,
    section_path     text,
    text             text NOT NULL,
    summary          text,
    words            tsvector GENERATED ALWAYS AS (
                         to_tsvector('english'::regconfig, coalesce(section_path, '') || ' ' || text)
                     ) STORED,
    created_at       timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    CONSTRAINT hierarchical_chunks_once UNIQUE (document_id, paragraph_index)
);

CREATE INDEX hierarchical_chunks_words ON hierarchical_chunks USING gin (words);

-- migrate:down
DROP TABLE hierarchical_chunks;
