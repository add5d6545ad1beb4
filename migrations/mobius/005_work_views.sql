CREATE VIEW work_list AS
SELECT w.id,
       w.number,
       w.title,
       w.state,
       w.priority,
       p.name         AS payer,
       u.display_name AS assignee,
       w.created_at
  FROM work_item w
  LEFT JOIN payer p ON p.id = w.payer_id
  LEFT JOIN app_user u ON u.id = w.assigned_to
 WHERE w.state NOT IN ('done', 'dropped');

CREATE MATERIALIZED VIEW tenant_load AS
SELECT t.id AS tenant_id,
       t.name,
       count(w.id) FILTER (WHERE w.state NOT IN ('done', 'dropped')) AS open_items,
       count(w.id)                                                   AS all_items
  FROM tenant t
  LEFT JOIN work_item w ON w.tenant_id = t.id
 GROUP BY t.id, t.name
  WITH DATA;

CREATE UNIQUE INDEX tenant_load_tenant ON tenant_load (tenant_id);

-- migrate:down
DROP MATERIALIZED VIEW tenant_load;
DROP VIEW work_list;
