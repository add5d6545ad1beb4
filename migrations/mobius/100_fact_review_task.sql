-- Somebody has to look at the facts that chat shows. A task asks one reviewer about one fact of mobius_rag; the verdict
-- goes back there (fact_verdicts, origin "review_task").

CREATE TYPE review_outcome AS ENUM ('verified', 'rejected', 'undecided');

CREATE TABLE fact_review_task (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    work_item_id  uuid NOT NULL UNIQUE REFERENCES work_item (id) ON DELETE CASCADE,
    fact_id       uuid NOT NULL,
    feedback_id   uuid,
    reviewer_id   uuid REFERENCES app_user (id) ON DELETE SET NULL,
    outcome       review_outcome,
    decided_at    timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT fact_review_task_decided CHECK ((outcome IS NULL) = (decided_at IS NULL))
);

CREATE UNIQUE INDEX fact_review_task_one_open ON fact_review_task (fact_id) WHERE outcome IS NULL;

COMMENT ON COLUMN fact_review_task.feedback_id IS 'chat_feedback.id in mobius_chat, when a user''s doubt started it.';

INSERT INTO role (id, name, description) VALUES (4, 'fact_reviewer', 'says whether a fact holds');

-- migrate:down
DROP TABLE fact_review_task;
DROP TYPE review_outcome;
UPDATE app_user SET role_id = 2 WHERE role_id = 4;
DELETE FROM role WHERE id = 4;
