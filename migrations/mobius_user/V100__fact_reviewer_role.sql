-- The people who say whether a fact holds. The same role, under the same id, is added to mobius.

INSERT INTO role (id, name) VALUES (4, 'fact_reviewer');

INSERT INTO permission (name, description) VALUES ('fact.verify', 'say whether a fact holds');

INSERT INTO role_permission (role_id, permission) VALUES
    (3, 'fact.verify'),
    (4, 'thread.read'), (4, 'fact.verify');
