-- The record of people, tenants and roles. mobius has tables of the same names; the ids are the same in both.

CREATE TABLE tenant (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    slug        text NOT NULL UNIQUE,
    name        text NOT NULL,
    settings    jsonb NOT NULL DEFAULT '{}'::jsonb,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE role (
    id    smallint PRIMARY KEY,
    name  text NOT NULL UNIQUE
);

INSERT INTO role (id, name) VALUES (1, 'viewer'), (2, 'coordinator'), (3, 'admin');

CREATE TYPE user_state AS ENUM ('invited', 'active', 'locked', 'left');

CREATE TABLE app_user (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id      uuid NOT NULL REFERENCES tenant (id),
    email          text NOT NULL,
    email_key      text GENERATED ALWAYS AS (lower(email)) STORED,
    display_name   text NOT NULL,
    password_hash  text,
    state          user_state NOT NULL DEFAULT 'invited',
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, email_key)
);

CREATE TABLE user_role (
    user_id     uuid NOT NULL REFERENCES app_user (id) ON DELETE CASCADE,
    role_id     smallint NOT NULL REFERENCES role (id),
    granted_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, role_id)
);
