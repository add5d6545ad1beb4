-- migrate:no-transaction
-- From a fact to the answers that cite it: asked for whenever a fact is rejected.
CREATE INDEX CONCURRENTLY answer_citations_source ON answer_citations (source_id, message_id);
