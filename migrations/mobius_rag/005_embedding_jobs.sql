-- The queue between chunking and embedding. Workers take the oldest waiting job with FOR UPDATE SKIP LOCKED.

CREATE SEQUENCE embedding_job_ticket START 1000;

CREATE TABLE embedding_jobs (
    ticket       bigint PRIMARY KEY DEFAULT nextval('embedding_job_ticket'),
    document_id  uuid NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    model        text NOT NULL,
    state        text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    attempts     smallint NOT NULL DEFAULT 0 CHECK (attempts BETWEEN 0 AND 10),
    error        text,
    enqueued_at  timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    finished_at  timestamp,
    CONSTRAINT embedding_jobs_finished CHECK ((state IN ('done', 'failed')) = (finished_at IS NOT NULL))
);

ALTER SEQUENCE embedding_job_ticket OWNED BY embedding_jobs.ticket;

CREATE INDEX embedding_jobs_waiting ON embedding_jobs (enqueued_at) WHERE state = 'waiting';

CREATE FUNCTION take_embedding_job() RETURNS SETOF embedding_jobs
    LANGUAGE sql
AS $take$
    UPDATE embedding_jobs AS job
       SET state = 'running', attempts = job.attempts + 1
     WHERE job.ticket = (
               SELECT ticket FROM embedding_jobs
                WHERE state = 'waiting'   -- served by embedding_jobs_waiting; keep the two alike
                ORDER BY enqueued_at
                LIMIT 1
                  FOR UPDATE SKIP LOCKED
           )
    RETURNING job.*;
$take$;

-- migrate:down
DROP FUNCTION take_embedding_job();
DROP TABLE embedding_jobs;
