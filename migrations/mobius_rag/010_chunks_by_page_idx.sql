-- migrate:no-transaction
-- Opening a citation looks a chunk up by page. The table takes inserts all day, so the index is built beside them.
CREATE INDEX CONCURRENTLY hierarchical_chunks_page ON hierarchical_chunks (document_id, page_number);
