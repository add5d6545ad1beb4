-- migrate:no-transaction
CREATE INDEX CONCURRENTLY llm_calls_called_at ON llm_calls (called_at, model);
