DROP TABLE work_item_event;
DROP TABLE work_item;
DROP FUNCTION record_work_item_state();
DROP TYPE work_item_state;
