CREATE TABLE permission (
    name         text PRIMARY KEY CHECK (name ~ '^[a-z_]+\.[a-z_]+$'),
    description  text NOT NULL
);

CREATE TABLE role_permission (
    role_id     smallint NOT NULL REFERENCES role (id) ON DELETE CASCADE,
    permission  text NOT NULL REFERENCES permission (name) ON UPDATE CASCADE,
    PRIMARY KEY (role_id, permission)
);

INSERT INTO permission (name, description) VALUES
    ('thread.read', 'read conversations of the tenant'),
    ('item.assign', 'give work to others'),
    ('user.manage', 'invite, lock and remove users');

INSERT INTO role_permission (role_id, permission) VALUES
    (1, 'thread.read'),
    (2, 'thread.read'), (2, 'item.assign'),
    (3, 'thread.read'), (3, 'item.assign'), (3, 'user.manage');

CREATE FUNCTION has_permission(who uuid, wanted text) RETURNS boolean
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT EXISTS (
        SELECT FROM user_role ur
          JOIN role_permission rp ON rp.role_id = ur.role_id
         WHERE ur.user_id = who AND rp.permission = wanted
    );
END;
