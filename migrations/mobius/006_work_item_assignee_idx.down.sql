DROP INDEX work_item_assignee;
