DROP INDEX work_item_due;
