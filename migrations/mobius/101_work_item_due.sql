-- Work gets a date. What is open gets one from its priority, counted from the day it was made; what is done needs none.

ALTER TABLE work_item ADD COLUMN due_on date;

-- The state of no row changes here, so no event is written; updated_at is kept as it was.
ALTER TABLE work_item DISABLE TRIGGER work_item_touch;

UPDATE work_item
   SET due_on = (created_at AT TIME ZONE 'UTC')::date + (ARRAY[1, 3, 10, 30, 90])[priority]
 WHERE state NOT IN ('done', 'dropped');

ALTER TABLE work_item ENABLE TRIGGER work_item_touch;

-- migrate:down
ALTER TABLE work_item DROP COLUMN due_on;
