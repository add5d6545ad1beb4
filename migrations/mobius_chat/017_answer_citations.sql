-- Which published rows an answer rests on. No foreign key to published_rag_metadata: a row may be withdrawn there while
-- the answer that cited it stays. (010 to 016 were folded into the files above when this folder was first written down.)

CREATE TABLE answer_citations (
    message_id     uuid NOT NULL REFERENCES chat_messages (id) ON DELETE CASCADE,
    rank           smallint NOT NULL CHECK (rank > 0),
    published_id   uuid NOT NULL,
    source_id      uuid NOT NULL,
    score          double precision NOT NULL,
    PRIMARY KEY (message_id, rank)
);

-- migrate:down
DROP TABLE answer_citations;
