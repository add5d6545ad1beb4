-- migrate:no-transaction
-- A verdict finds its published row by the fact's id (see apply_fact_verdict). Nearly two million rows in production, all
-- of them being read: built concurrently, each statement on its own.
CREATE INDEX CONCURRENTLY rag_published_embeddings_fact ON rag_published_embeddings (source_id) WHERE source_type = 'fact';
CREATE INDEX CONCURRENTLY extracted_facts_unverified ON extracted_facts (document_id, confidence) WHERE verification_status = 'unverified';
