-- migrate:no-transaction
CREATE INDEX CONCURRENTLY work_item_assignee ON work_item (assigned_to, priority) WHERE state = 'assigned';
