DROP INDEX llm_calls_called_at;
