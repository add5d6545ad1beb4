-- Who works with Mobius. The same three names are tables of mobius_user as well: there they are the record, here they are
-- what the OS backend needs of it, under the same ids. Nobody may tell the two databases apart by their tables.

CREATE DOMAIN email_address AS text CHECK (VALUE ~ '^[^@\s]+@[^@\s]+$');

CREATE TABLE tenant (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    slug        text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9-]+$'),
    name        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE role (
    id           smallint PRIMARY KEY,
    name         text NOT NULL UNIQUE,
    description  text
);

INSERT INTO role (id, name, description) VALUES
    (1, 'viewer', 'reads'),
    (2, 'coordinator', 'works on items; may reassign them'),
    (3, 'admin', 'everything in the tenant');

CREATE TABLE app_user (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id     uuid NOT NULL REFERENCES tenant (id),
    role_id       smallint NOT NULL DEFAULT 1 REFERENCES role (id),
    email         email_address NOT NULL,
    display_name  text NOT NULL,
    is_active     boolean NOT NULL DEFAULT true,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX app_user_email ON app_user (tenant_id, lower(email));
CREATE INDEX app_user_active ON app_user (tenant_id) WHERE is_active;

CREATE FUNCTION touch_updated_at() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END;
$$;

CREATE TRIGGER app_user_touch
    BEFORE UPDATE ON app_user
    FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

-- migrate:down
DROP TABLE app_user;
DROP FUNCTION touch_updated_at();
DROP TABLE role;
DROP TABLE tenant;
DROP DOMAIN email_address;
