-- migrate:no-transaction
CREATE INDEX CONCURRENTLY work_item_due ON work_item (tenant_id, due_on) WHERE state NOT IN ('done', 'dropped');
